// SPDX-License-Identifier: GPL-2.0

//! Events of devices, addresses, neighbours and netlink sockets: the system-wide notifier chains.
//!
//! C headers: [`include/linux/notifier.h`](srctree/include/linux/notifier.h),
//! [`include/linux/inetdevice.h`](srctree/include/linux/inetdevice.h),
//! [`include/net/addrconf.h`](srctree/include/net/addrconf.h),
//! [`include/net/netevent.h`](srctree/include/net/netevent.h),
//! [`include/linux/netlink.h`](srctree/include/linux/netlink.h)

use core::{marker::PhantomData, ptr};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu, //
    },
    types::Opaque, //
};

use crate::{
    bindings::{self, nfzr_neigh_effect},
    kapi::{
        net::{
            device::{Device, DeviceEvent},
            netns::{PerNet, PerNetRegistration}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// An event of a netns' neighbours, or of its choice among nexthops: the ones of
/// `enum netevent_notif_type` that can change a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetEvent {
    /// A neighbour's state changed and may change a route. IPv4 reports redirects this way, too.
    Neighbour,
    /// The state of the neighbour with this bit in gateway sets changed, which may change its
    /// routes.
    Gateway(u32),
    /// An IPv6 redirect arrived.
    Redirect,
    /// The packet fields by which nexthops are chosen changed.
    HashPolicy,
}

impl NetEvent {
    /// # Safety
    ///
    /// `info` is what the chain passes with `event`, during the call and under RCU.
    unsafe fn from_raw(event: usize, info: *mut c_void) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::netevent_notif_type_NETEVENT_NEIGH_UPDATE => {
                let mut bit = 0;
                // SAFETY: By the function's requirement `info` is a neighbour, for this event.
                let effect = unsafe { bindings::nfzr_helper_neigh_effect(info, &mut bit) };
                Some(match effect {
                    nfzr_neigh_effect::NFZR_NEIGH_ALL_ROUTES => Self::Neighbour,
                    nfzr_neigh_effect::NFZR_NEIGH_GATEWAY_ROUTES => Self::Gateway(bit),
                })
            }
            bindings::netevent_notif_type_NETEVENT_REDIRECT => Some(Self::Redirect),
            bindings::netevent_notif_type_NETEVENT_IPV4_MPATH_HASH_UPDATE
            | bindings::netevent_notif_type_NETEVENT_IPV6_MPATH_HASH_UPDATE => {
                Some(Self::HashPolicy)
            }
            _ => None,
        }
    }
}

/// The state of a netns, as a receiver of events. It cannot veto them.
pub(crate) trait NetListener: PerNet {
    /// Handles a device event. Process context, under RTNL.
    fn device(&self, event: DeviceEvent, device: &Device<'_>);

    /// Handles an added or removed address. Process context or softirq.
    fn address(&self);

    /// Handles a [`NetEvent`]. Process context or softirq.
    fn net_event(&self, event: NetEvent);

    /// Handles the end of a netlink socket of the family `NETLINK_NETFILTER`, of a process that has
    /// CAP_NET_ADMIN in the netns' user namespace. Process context; may sleep. The process waits.
    fn netfilter_socket_closed(&self);
}

/// A notifier chain.
///
/// # Safety
///
/// `register` and `unregister` belong to one chain. No callback runs once `unregister` returns.
unsafe trait Chain {
    /// # Safety
    ///
    /// `block` does not move until it is unregistered. Process context; sleeps.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// # Safety
    ///
    /// `block` is registered. Process context; sleeps.
    unsafe fn unregister(block: *mut bindings::notifier_block);

    /// # Safety
    ///
    /// Called by the chain, with its arguments, while `T`'s operations are registered.
    unsafe fn tell<T: NetListener>(event: usize, info: *mut c_void);
}

/// A chain's `struct notifier_block`, and whether its events are to be ignored.
#[repr(C)]
struct Raw {
    block: Opaque<bindings::notifier_block>,
    ending: Atomic<bool>,
}

impl Raw {
    fn as_raw(&self) -> *mut bindings::notifier_block {
        // CAST: `block` is the first field of a `Raw`.
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// A notifier on a chain.
///
/// # Invariants
///
/// `raw` is registered with the chain, and boxed so that it does not move.
struct ChainBlock<C: Chain> {
    raw: KBox<Raw>,
    _chain: PhantomData<C>,
}

impl<C: Chain> ChainBlock<C> {
    fn new<T: NetListener>() -> Result<Self> {
        let block = bindings::notifier_block {
            notifier_call: Some(Self::call::<T>),
            ..Default::default()
        };
        let (block, ending) = (Opaque::new(block), Atomic::new(false));
        let raw = KBox::new(Raw { block, ending }, GFP_KERNEL)?;
        // SAFETY: `raw` is boxed, and `drop` unregisters it before it is freed.
        to_result(unsafe { C::register(raw.as_raw()) })?;
        // INVARIANT: Registered above.
        Ok(Self {
            raw,
            _chain: PhantomData,
        })
    }

    /// The `notifier_fn_t`.
    ///
    /// # Safety
    ///
    /// Called by the chain.
    unsafe extern "C" fn call<T: NetListener>(
        block: *mut bindings::notifier_block,
        event: usize,
        info: *mut c_void,
    ) -> c_int {
        // CAST: `block` is the first field of a `Raw`.
        // SAFETY: By the type invariant of [`ChainBlock`] a registered block is in a `Raw`.
        if !unsafe { &*block.cast::<Raw>() }.ending.load(Relaxed) {
            // SAFETY: A `ChainBlock` exists only while `T` is registered: see `Notifier`.
            unsafe { C::tell::<T>(event, info) };
        }
        0 // NOTIFY_DONE
    }
}

impl<C: Chain> Drop for ChainBlock<C> {
    fn drop(&mut self) {
        // Unregistering may report every device as removed. Ignore that: only this notifier is.
        self.raw.ending.store(true, Relaxed);
        // SAFETY: By the type invariant the block is registered.
        unsafe { C::unregister(self.raw.as_raw()) };
    }
}

/// The chain of devices: a raw chain, under RTNL.
struct Devices;

// SAFETY: Both functions belong to the chain of netdevices and take RTNL, under which callbacks
// run.
unsafe impl Chain for Devices {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_netdevice_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_netdevice_notifier(block) };
    }

    unsafe fn tell<T: NetListener>(event: usize, info: *mut c_void) {
        let Some(event) = DeviceEvent::from_raw(event) else {
            return;
        };
        // SAFETY: The chain passes a `struct netdev_notifier_info`.
        let dev = unsafe { bindings::nfzr_helper_notifier_dev(info) };
        // SAFETY: The device is valid during the event, and the chain is called under RTNL.
        let device = unsafe { Device::from_raw(dev) };
        if let Some(state) = T::subsys().of_device(&device) {
            state.device(event, &device);
        }
    }
}

/// Calls `what` with the state of a netns, if the netns has one.
///
/// # Safety
///
/// `net` is null or valid while this runs, and `T`'s operations are registered.
unsafe fn tell<T: NetListener>(net: *const bindings::net, what: impl FnOnce(&T)) {
    if net.is_null() {
        return;
    }
    let guard = rcu::read_lock();
    // SAFETY: By the function's requirement.
    if let Some(state) = unsafe { T::subsys().of_net(net, &ReadSide::of(&guard)) } {
        what(state);
    }
}

/// The chain of IPv4 addresses: a blocking chain, under RTNL.
struct Addresses4;

// SAFETY: Both functions belong to the chain of IPv4 addresses, which has its own lock.
unsafe impl Chain for Addresses4 {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_inetaddr_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_inetaddr_notifier(block) };
    }

    unsafe fn tell<T: NetListener>(_event: usize, info: *mut c_void) {
        // SAFETY: The chain passes a `struct in_ifaddr`, whose device and netns are valid.
        unsafe { tell(bindings::nfzr_helper_ifa4_net(info), T::address) };
    }
}

/// The chain of IPv6 addresses: an atomic chain.
struct Addresses6;

// SAFETY: Both functions belong to the chain of IPv6 addresses, which is called under RCU.
// Unregistering waits for RCU.
unsafe impl Chain for Addresses6 {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_inet6addr_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_inet6addr_notifier(block) };
    }

    unsafe fn tell<T: NetListener>(_event: usize, info: *mut c_void) {
        // SAFETY: The chain passes a `struct inet6_ifaddr`, whose device and netns are valid.
        unsafe { tell(bindings::nfzr_helper_ifa6_net(info), T::address) };
    }
}

/// The chain of neighbours, redirects and more: an atomic chain.
struct NetEvents;

// SAFETY: Both functions belong to the chain of netevents, which is called under RCU. Unregistering
// waits for RCU.
unsafe impl Chain for NetEvents {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_netevent_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_netevent_notifier(block) };
    }

    unsafe fn tell<T: NetListener>(event: usize, info: *mut c_void) {
        // SAFETY: The chain passes `info` with `event`; an atomic chain is called under RCU.
        if let Some(what) = unsafe { NetEvent::from_raw(event, info) } {
            // SAFETY: The chain passes the argument of this event, whose netns is valid.
            unsafe {
                tell(
                    bindings::nfzr_helper_netevent_net(event, info),
                    |state: &T| state.net_event(what),
                )
            };
        }
    }
}

/// The chain of netlink sockets: a blocking chain.
struct Sockets;

// SAFETY: Both functions belong to the chain of netlink, which has its own lock.
unsafe impl Chain for Sockets {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::netlink_register_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::netlink_unregister_notifier(block) };
    }

    unsafe fn tell<T: NetListener>(event: usize, info: *mut c_void) {
        // SAFETY: The chain passes a `struct netlink_notify` with its event.
        let net = unsafe { bindings::nfzr_helper_netfilter_socket_net(event, info) };
        if net.is_null() {
            return;
        }
        // SAFETY: The chain reports sockets of processes only, which keep their netns alive. A
        // `ChainBlock` exists only while `T` is registered.
        if let Some(state) = unsafe { T::subsys().of_living_net(net) } {
            state.netfilter_socket_closed();
        }
    }
}

/// Notifiers on all chains, together with the states that they notify.
///
/// Fields drop in order: the blocks go before the states. Dropping a block waits for its running
/// callbacks.
pub(crate) struct Notifier<T: NetListener> {
    _sockets: ChainBlock<Sockets>,
    _net_events: ChainBlock<NetEvents>,
    _addresses6: ChainBlock<Addresses6>,
    _addresses4: ChainBlock<Addresses4>,
    _devices: ChainBlock<Devices>,
    _states: PerNetRegistration<T>,
}

// SAFETY: The C side may be called from any thread.
unsafe impl<T: NetListener> Send for Notifier<T> {}
// SAFETY: A shared reference allows no operation.
unsafe impl<T: NetListener> Sync for Notifier<T> {}

impl<T: NetListener> Notifier<T> {
    /// Registers the notifiers. Every existing device is announced. Process context; sleeps.
    pub(crate) fn new(states: PerNetRegistration<T>) -> Result<Self> {
        // If a registration fails, the earlier ones are dropped before `states`.
        let devices = ChainBlock::new::<T>()?;
        let addresses4 = ChainBlock::new::<T>()?;
        let addresses6 = ChainBlock::new::<T>()?;
        let net_events = ChainBlock::new::<T>()?;
        let sockets = ChainBlock::new::<T>()?;
        Ok(Self {
            _sockets: sockets,
            _net_events: net_events,
            _addresses6: addresses6,
            _addresses4: addresses4,
            _devices: devices,
            _states: states,
        })
    }
}
