// SPDX-License-Identifier: GPL-2.0

//! Network devices and their events.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use core::marker::PhantomData;

use crate::bindings;

/// A device, and its netns, during an event: under RTNL.
pub(crate) struct Device<'a> {
    dev: *const bindings::net_device,
    _rtnl: PhantomData<&'a ()>,
}

impl Device<'_> {
    /// # Safety
    ///
    /// `dev` is valid for `'a`, and RTNL is held.
    pub(in crate::kapi) unsafe fn from_raw<'a>(dev: *const bindings::net_device) -> Device<'a> {
        Device {
            dev,
            _rtnl: PhantomData,
        }
    }

    /// Returns the device's index.
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: By the requirement of `from_raw`, the device is valid during the event.
        unsafe { bindings::nfzr_helper_dev_ifindex(self.dev) }.unsigned_abs()
    }

    pub(in crate::kapi) fn net(&self) -> *const bindings::net {
        // SAFETY: By the requirement of `from_raw`, the device is valid during the event and in a
        // netns.
        unsafe { bindings::nfzr_helper_dev_net(self.dev) }
    }
}

/// An event of a device: those of `enum netdev_cmd` that can change a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceEvent {
    /// The device was brought up.
    Up,
    /// The device was brought down.
    Down,
    /// The device is removed, or leaves the netns.
    Unregister,
    /// The device's link-layer address changed.
    ChangeAddr,
    /// The device joined or left a bridge, bond or VRF.
    ChangeUpper,
    /// The device was renamed; rules may match its name.
    ChangeName,
    /// The device's flags, carrier or group changed; rules may suppress routes by group.
    Change,
}

impl DeviceEvent {
    pub(in crate::kapi) fn from_raw(event: usize) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::netdev_cmd_NETDEV_UP => Some(Self::Up),
            bindings::netdev_cmd_NETDEV_DOWN => Some(Self::Down),
            bindings::netdev_cmd_NETDEV_UNREGISTER => Some(Self::Unregister),
            bindings::netdev_cmd_NETDEV_CHANGEADDR => Some(Self::ChangeAddr),
            bindings::netdev_cmd_NETDEV_CHANGEUPPER => Some(Self::ChangeUpper),
            bindings::netdev_cmd_NETDEV_CHANGENAME => Some(Self::ChangeName),
            bindings::netdev_cmd_NETDEV_CHANGE => Some(Self::Change),
            _ => None,
        }
    }
}
