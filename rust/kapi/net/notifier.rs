// SPDX-License-Identifier: GPL-2.0

//! What happens to devices, addresses and neighbours: the notifier chains of the whole system.
//!
//! C headers: [`include/linux/notifier.h`](srctree/include/linux/notifier.h),
//! [`include/linux/inetdevice.h`](srctree/include/linux/inetdevice.h),
//! [`include/net/addrconf.h`](srctree/include/net/addrconf.h),
//! [`include/net/netevent.h`](srctree/include/net/netevent.h)

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
    bindings,
    kapi::{
        net::{
            device::{self, Device},
            netns::{PerNet, Registration}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// What happens to the neighbours of a netns, or to how it chooses among nexthops: those of `enum
/// netevent_notif_type` that can change a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetEvent {
    /// A neighbour's state changed, where that may change a route; IPv4 tells of redirects so, too.
    Neighbour,
    /// The state of a neighbour with this place in sets of gateways changed: that may change routes by
    /// it.
    Gateway(u32),
    /// An IPv6 redirect came.
    Redirect,
    /// Nexthops are chosen by other parts of a packet.
    HashPolicy,
}

impl NetEvent {
    /// # Safety
    ///
    /// `info` is what the chain tells, now, under RCU.
    unsafe fn from_raw(event: usize, info: *mut c_void) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::netevent_notif_type_NETEVENT_NEIGH_UPDATE => {
                let mut place = 0;
                // SAFETY: That event's argument is a neighbour; and by the function's requirement.
                match unsafe { bindings::nfzr_helper_neigh_news(info, &mut place) } {
                    bindings::nfzr_neigh_news_NFZR_NEIGH_OF_ALL => Some(Self::Neighbour),
                    _ => Some(Self::Gateway(place)),
                }
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

/// The state of a netns that wants to know. It cannot veto.
pub(crate) trait Listener: PerNet {
    /// Something happens to a device. Process context, under RTNL.
    fn device(&self, event: device::Event, device: &Device<'_>);

    /// An address came or went. Process context or softirq.
    fn address(&self);

    /// Something else happens. Process context or softirq.
    fn net_event(&self, event: NetEvent);
}

/// One of the chains.
///
/// # Safety
///
/// `register` and `unregister` are those of one chain, and when the latter returns, no callback runs.
unsafe trait Chain {
    /// # Safety
    ///
    /// `block` stays where it is until it is unregistered. Process context; sleeps.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// # Safety
    ///
    /// `block` is registered. Process context; sleeps.
    unsafe fn unregister(block: *mut bindings::notifier_block);

    /// # Safety
    ///
    /// Called by the chain, with what it tells, while `T`'s operations are registered.
    unsafe fn tell<T: Listener>(event: usize, info: *mut c_void);
}

/// `struct notifier_block`s of a chain, and whether its events are of interest.
#[repr(C)]
struct Raw {
    block: Opaque<bindings::notifier_block>,
    ending: Atomic<bool>,
}

impl Raw {
    fn as_raw(&self) -> *mut bindings::notifier_block {
        // CAST: The C part comes first in a `Raw`.
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// A notifier on a chain.
///
/// # Invariants
///
/// `raw` is registered with the chain, and boxed so that it stays where it is.
struct Block<C: Chain> {
    raw: KBox<Raw>,
    _chain: PhantomData<C>,
}

impl<C: Chain> Block<C> {
    fn new<T: Listener>() -> Result<Self> {
        let block = bindings::notifier_block {
            notifier_call: Some(Self::call::<T>),
            ..Default::default()
        };
        let (block, ending) = (Opaque::new(block), Atomic::new(false));
        let raw = KBox::new(Raw { block, ending }, GFP_KERNEL)?;
        // SAFETY: `raw` is boxed and stays until it is unregistered in `drop`.
        to_result(unsafe { C::register(raw.as_raw()) })?;
        // INVARIANT: Registered just now.
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
    unsafe extern "C" fn call<T: Listener>(
        block: *mut bindings::notifier_block,
        event: usize,
        info: *mut c_void,
    ) -> c_int {
        // CAST: The C part comes first in a `Raw`.
        // SAFETY: By the type invariant.
        if !unsafe { &*block.cast::<Raw>() }.ending.load(Relaxed) {
            // SAFETY: A `Block` is there only together with `T`'s registration: see `Notifier`.
            unsafe { C::tell::<T>(event, info) };
        }
        0 // NOTIFY_DONE
    }
}

impl<C: Chain> Drop for Block<C> {
    fn drop(&mut self) {
        // A chain may now say that every device goes, which is not so: it is we who go.
        self.raw.ending.store(true, Relaxed);
        // SAFETY: Registered, by the type invariant.
        unsafe { C::unregister(self.raw.as_raw()) };
    }
}

/// Devices: a raw chain, under RTNL.
struct Devices;

// SAFETY: Of the chain of netdevices; both take RTNL, under which it is called.
unsafe impl Chain for Devices {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_netdevice_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_netdevice_notifier(block) };
    }

    unsafe fn tell<T: Listener>(event: usize, info: *mut c_void) {
        let Some(event) = device::Event::from_raw(event) else {
            return;
        };
        // SAFETY: The chain's argument is a `struct netdev_notifier_info`.
        let dev = unsafe { bindings::nfzr_helper_notifier_dev(info) };
        // SAFETY: The device is there during the event, and the chain is called under RTNL.
        let device = unsafe { Device::from_raw(dev) };
        if let Some(state) = T::subsys().of_device(&device) {
            state.device(event, &device);
        }
    }
}

/// Tells the state of a netns, if it has one.
///
/// # Safety
///
/// `net` is null or valid while this runs, and `T`'s operations are registered.
unsafe fn tell<T: Listener>(net: *const bindings::net, what: impl FnOnce(&T)) {
    if net.is_null() {
        return;
    }
    let guard = rcu::read_lock();
    // SAFETY: By the function's requirement.
    if let Some(state) = unsafe { T::subsys().of_net(net, &ReadSide::of(&guard)) } {
        what(state);
    }
}

/// IPv4 addresses: a blocking chain, under RTNL.
struct Addresses4;

// SAFETY: Of the chain of IPv4 addresses, which has a lock of its own.
unsafe impl Chain for Addresses4 {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_inetaddr_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_inetaddr_notifier(block) };
    }

    unsafe fn tell<T: Listener>(_event: usize, info: *mut c_void) {
        // SAFETY: The chain's argument is a `struct in_ifaddr`, whose device and netns are there.
        unsafe { tell(bindings::nfzr_helper_ifa4_net(info), T::address) };
    }
}

/// IPv6 addresses: an atomic chain.
struct Addresses6;

// SAFETY: Of the chain of IPv6 addresses; unregistering waits for RCU, under which it is called.
unsafe impl Chain for Addresses6 {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_inet6addr_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_inet6addr_notifier(block) };
    }

    unsafe fn tell<T: Listener>(_event: usize, info: *mut c_void) {
        // SAFETY: The chain's argument is a `struct inet6_ifaddr`, whose device and netns are there.
        unsafe { tell(bindings::nfzr_helper_ifa6_net(info), T::address) };
    }
}

/// Neighbours, redirects and more: an atomic chain.
struct NetEvents;

// SAFETY: Of the chain of netevents; unregistering waits for RCU, under which it is called.
unsafe impl Chain for NetEvents {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the function's requirement.
        unsafe { bindings::register_netevent_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the function's requirement.
        unsafe { bindings::unregister_netevent_notifier(block) };
    }

    unsafe fn tell<T: Listener>(event: usize, info: *mut c_void) {
        // SAFETY: Just told; an atomic chain is called under RCU.
        if let Some(what) = unsafe { NetEvent::from_raw(event, info) } {
            // SAFETY: The chain's argument is what goes with that event; its netns is there.
            unsafe {
                tell(
                    bindings::nfzr_helper_netevent_net(event, info),
                    |state: &T| state.net_event(what),
                )
            };
        }
    }
}

/// Notifiers on all chains, together with the states that they tell.
///
/// Fields drop in order: first nothing is told any more, then the states go. (Dropping a block waits
/// for who is in it.)
pub(crate) struct Notifier<T: Listener> {
    _net_events: Block<NetEvents>,
    _addresses6: Block<Addresses6>,
    _addresses4: Block<Addresses4>,
    _devices: Block<Devices>,
    _states: Registration<T>,
}

// SAFETY: The C side may be called from any thread.
unsafe impl<T: Listener> Send for Notifier<T> {}
// SAFETY: A shared reference has no use.
unsafe impl<T: Listener> Sync for Notifier<T> {}

impl<T: Listener> Notifier<T> {
    /// Registers them; every device that exists is announced. Process context; sleeps.
    pub(crate) fn new(states: Registration<T>) -> Result<Self> {
        // What fails is dropped before `states`.
        let devices = Block::new::<T>()?;
        let addresses4 = Block::new::<T>()?;
        let addresses6 = Block::new::<T>()?;
        let net_events = Block::new::<T>()?;
        Ok(Self {
            _net_events: net_events,
            _addresses6: addresses6,
            _addresses4: addresses4,
            _devices: devices,
            _states: states,
        })
    }
}
