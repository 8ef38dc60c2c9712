// SPDX-License-Identifier: GPL-2.0

//! What happens to network devices.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use core::{marker::PhantomData, ptr};

use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

use crate::{
    bindings,
    kapi::pernet::{PerNet, Registration, Subsys}, //
};

/// A device, and its netns, while something happens to it: under RTNL.
pub(crate) struct Device<'a> {
    dev: *const bindings::net_device,
    _rtnl: PhantomData<&'a ()>,
}

impl Device<'_> {
    /// The device's index.
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: The device is there during the event.
        unsafe { bindings::nfzr_helper_dev_ifindex(self.dev) }.unsigned_abs()
    }

    pub(super) fn net(&self) -> *const bindings::net {
        // SAFETY: The device is there during the event, and in a netns.
        unsafe { bindings::nfzr_helper_dev_net(self.dev) }
    }
}

/// What happens to the device: those of `enum netdev_cmd` that can change a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was switched off.
    Down,
    /// It goes, or leaves the netns.
    Unregister,
    /// Its link-layer address changed.
    ChangeAddr,
    /// It joined or left a bridge, bond or VRF.
    ChangeUpper,
    /// It has another name, which rules may select by.
    ChangeName,
}

impl Event {
    fn from_raw(event: usize) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::netdev_cmd_NETDEV_DOWN => Some(Self::Down),
            bindings::netdev_cmd_NETDEV_UNREGISTER => Some(Self::Unregister),
            bindings::netdev_cmd_NETDEV_CHANGEADDR => Some(Self::ChangeAddr),
            bindings::netdev_cmd_NETDEV_CHANGEUPPER => Some(Self::ChangeUpper),
            bindings::netdev_cmd_NETDEV_CHANGENAME => Some(Self::ChangeName),
            _ => None,
        }
    }
}

/// The state of a netns that wants to know.
pub(crate) trait Listener: PerNet {
    /// Process context, under RTNL. Cannot veto.
    fn event(&self, event: Event, device: &Device<'_>);
}

/// The `struct notifier_block`, and whether its events are of interest.
#[repr(C)]
struct Block {
    raw: bindings::notifier_block,
    ending: Atomic<bool>,
}

/// The notifier, together with the states that it tells.
///
/// Fields drop in order only after `drop` unregistered the notifier, so no event finds a netns
/// whose state is gone.
///
/// # Invariants
///
/// `block` is registered, and boxed so that it stays where it is.
pub(crate) struct Notifier<T: Listener> {
    block: KBox<Block>,
    _states: Registration<T>,
}

// SAFETY: The C side may be called from any thread.
unsafe impl<T: Listener> Send for Notifier<T> {}
// SAFETY: A shared reference has no use.
unsafe impl<T: Listener> Sync for Notifier<T> {}

impl<T: Listener> Notifier<T> {
    /// Registers it; every device that exists is announced to it. Process context; sleeps.
    pub(crate) fn new(states: Registration<T>) -> Result<Self> {
        let raw = bindings::notifier_block {
            notifier_call: Some(Self::call),
            ..Default::default()
        };
        let ending = Atomic::new(false);
        let mut block = KBox::new(Block { raw, ending }, GFP_KERNEL)?;
        // CAST: The C part comes first in a `Block`.
        // SAFETY: `block` is boxed and stays until it is unregistered in `drop`.
        to_result(unsafe {
            bindings::register_netdevice_notifier(ptr::from_mut(&mut *block).cast())
        })?;
        // INVARIANT: Registered just now.
        Ok(Self {
            block,
            _states: states,
        })
    }

    /// The `notifier_fn_t`.
    ///
    /// # Safety
    ///
    /// Called by the netdevice chain, under RTNL.
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        event: usize,
        info: *mut c_void,
    ) -> c_int {
        // CAST: The C part comes first in a `Block`.
        // SAFETY: By the type invariant.
        if unsafe { &*block.cast::<Block>() }.ending.load(Relaxed) {
            return 0; // NOTIFY_DONE
        }
        if let Some(event) = Event::from_raw(event) {
            let device = Device {
                // SAFETY: The chain's argument is a `struct netdev_notifier_info`.
                dev: unsafe { bindings::nfzr_helper_notifier_dev(info) },
                _rtnl: PhantomData,
            };
            let subsys: &Subsys<T> = T::subsys();
            if let Some(state) = subsys.of_device(&device) {
                state.event(event, &device);
            }
        }
        0 // NOTIFY_DONE
    }
}

impl<T: Listener> Drop for Notifier<T> {
    fn drop(&mut self) {
        // The chain now tells us that every device goes, which is not so: it is we who go.
        self.block.ending.store(true, Relaxed);
        // SAFETY: Registered, by the type invariant.
        unsafe { bindings::unregister_netdevice_notifier(ptr::from_mut(&mut *self.block).cast()) };
    }
}
