// SPDX-License-Identifier: GPL-2.0

//! Route changes in a netns: the notifiers of its FIB and of its nexthop objects.
//!
//! Both announce a change *before* it takes effect, but that the FIB of IPv4 announces new and
//! replaced routes right after.
//!
//! C headers: [`include/net/fib_notifier.h`](srctree/include/net/fib_notifier.h),
//! [`include/net/nexthop.h`](srctree/include/net/nexthop.h)

use core::ptr;

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::net::{
        family::Family,
        netns::NetHandle,
        prefix::Prefix,
        rtm::{prefix_of, Messages, RouteListener}, //
    },
};

/// A kind of change: from `enum fib_event_type` or of nexthop objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FibChange {
    /// An IPv4 route, which only matters to packets from or to its prefix. Under RTNL.
    Prefix(Prefix),
    /// Another route of a family, or a nexthop of a route.
    Route(Family),
    /// A rule of a family.
    Rule(Family),
    /// A nexthop object: a single one, or a group. Under RTNL.
    Nexthop,
    /// A bucket of a resilient group. With or without RTNL.
    Bucket,
}

impl FibChange {
    /// # Safety
    ///
    /// `info` is the argument of a FIB notifier's call for `event`, which is one of that family.
    unsafe fn from_fib_event(event: usize, info: *mut c_void, family: Family) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::fib_event_type_FIB_EVENT_ENTRY_REPLACE
            | bindings::fib_event_type_FIB_EVENT_ENTRY_APPEND
            | bindings::fib_event_type_FIB_EVENT_ENTRY_ADD
            | bindings::fib_event_type_FIB_EVENT_ENTRY_DEL => {
                let mut raw = bindings::nfzr_prefix::default();
                // SAFETY: By the function's requirement, and these are events of routes.
                let is_limited = unsafe { bindings::nfzr_helper_fib_prefix(info, &mut raw) };
                Some(if is_limited {
                    Self::Prefix(prefix_of(&raw))
                } else {
                    Self::Route(family)
                })
            }
            bindings::fib_event_type_FIB_EVENT_NH_ADD
            | bindings::fib_event_type_FIB_EVENT_NH_DEL => Some(Self::Route(family)),
            bindings::fib_event_type_FIB_EVENT_RULE_ADD
            | bindings::fib_event_type_FIB_EVENT_RULE_DEL => Some(Self::Rule(family)),
            _ => None,
        }
    }

    /// Maps `enum nexthop_event_type`. The other events only ask for counters.
    fn from_nexthop_event(event: usize) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::nexthop_event_type_NEXTHOP_EVENT_DEL
            | bindings::nexthop_event_type_NEXTHOP_EVENT_REPLACE
            | bindings::nexthop_event_type_NEXTHOP_EVENT_RES_TABLE_PRE_REPLACE => {
                Some(Self::Nexthop)
            }
            bindings::nexthop_event_type_NEXTHOP_EVENT_BUCKET_REPLACE => Some(Self::Bucket),
            _ => None,
        }
    }
}

const WORDS: usize = bindings::NFZR_GATEWAY_WORDS as usize;

/// The gateways of a netns' nexthop groups in which the state of neighbours affects the nexthop
/// choice. A Bloom filter: it contains every such gateway and may report others.
pub(crate) struct GatewaySet {
    net: NetHandle,
    words: [Atomic<u64>; WORDS],
}

impl GatewaySet {
    /// Creates an empty set.
    pub(crate) fn new(net: NetHandle) -> Self {
        Self {
            net,
            words: [const { Atomic::new(0) }; WORDS],
        }
    }

    /// Waits for configuration changes in progress under RTNL, then fills the set from the existing
    /// groups. With `buckets`, also waits for bucket moves of resilient groups. Process context
    /// without RTNL, before the netns' `exit` ends; sleeps.
    pub(crate) fn settle(&self, buckets: bool) {
        let mut set = [0; WORDS];
        if buckets {
            // SAFETY: Process context without RTNL. The netns outlives its handles.
            unsafe { bindings::nfzr_helper_wait_for_buckets(self.net.as_raw()) };
        }
        // SAFETY: Process context, and by the function's contract the caller does not hold RTNL.
        unsafe { bindings::rtnl_lock() };
        // SAFETY: The netns outlives its handles. RTNL is held, and `set` has the size that the
        // helper writes.
        unsafe { bindings::nfzr_helper_group_gateways(self.net.as_raw(), set.as_mut_ptr()) };
        for (word, bits) in self.words.iter().zip(set) {
            word.store(bits, Relaxed);
        }
        // SAFETY: `rtnl_lock()` above took the lock.
        unsafe { bindings::rtnl_unlock() };
    }

    /// Returns whether the set has, or may have, the neighbour with this bit. Any context.
    pub(crate) fn may_have(&self, bit: u32) -> bool {
        let word = usize::try_from(bit / u64::BITS)
            .ok()
            .and_then(|at| self.words.get(at));
        word.is_some_and(|word| (word.load(Relaxed) >> (bit % u64::BITS)) & 1 != 0)
    }
}

/// Receiver of change notifications. It cannot veto a change.
pub(crate) trait FibListener: RouteListener {
    /// Notes that the routes of a family may depend on the DSCP, from the change on that is
    /// announced right after this call. As [`Self::changing`].
    fn dscp_counts(this: ArcBorrow<'_, Self>, family: Family);

    /// Handles a change that is about to take effect, or just did. Process context or softirq; must
    /// not sleep.
    fn changing(this: ArcBorrow<'_, Self>, change: FibChange);
}

/// A `struct notifier_block` with the listener that it calls.
#[repr(C)]
struct FibBlock<T> {
    raw: Opaque<bindings::notifier_block>,
    listener: Arc<T>,
}

impl<T: FibListener> FibBlock<T> {
    fn new(call: bindings::notifier_fn_t, listener: Arc<T>) -> Result<KBox<Self>> {
        let raw = bindings::notifier_block {
            notifier_call: call,
            // First in the chain: the kernel may apply a change even though a driver objects to it.
            priority: c_int::MAX,
            ..Default::default()
        };
        let raw = Opaque::new(raw);
        Ok(KBox::new(Self { raw, listener }, GFP_KERNEL)?)
    }

    fn as_raw(&self) -> *mut bindings::notifier_block {
        // CAST: `raw` is the first field of a `FibBlock`.
        ptr::from_ref(self).cast_mut().cast()
    }

    /// # Safety
    ///
    /// `block` is the `raw` field of a `FibBlock<T>` that lives for `'a`.
    unsafe fn listener<'a>(block: *mut bindings::notifier_block) -> ArcBorrow<'a, T> {
        // CAST: `raw` is the first field of a `FibBlock`.
        // SAFETY: By the function's requirement.
        unsafe { &*block.cast::<Self>() }.listener.as_arc_borrow()
    }

    /// The `notifier_fn_t` of the FIB.
    ///
    /// # Safety
    ///
    /// Called by the netns' chain for a `FibBlock<T>`, under RCU.
    unsafe extern "C" fn fib(
        block: *mut bindings::notifier_block,
        event: usize,
        info: *mut c_void,
    ) -> c_int {
        // SAFETY: A `Watch` keeps the block until the block is unregistered.
        let listener = unsafe { Self::listener(block) };
        // SAFETY: The chain passes the argument of the event.
        if let Some(family) = Family::from_af(unsafe { bindings::nfzr_helper_fib_family(info) }) {
            // SAFETY: As above.
            if unsafe { bindings::nfzr_helper_fib_has_dscp(event, info) } {
                T::dscp_counts(listener, family);
            }
            // SAFETY: As above.
            if let Some(change) = unsafe { FibChange::from_fib_event(event, info, family) } {
                T::changing(listener, change);
            }
        }
        0 // NOTIFY_DONE
    }

    /// The `notifier_fn_t` of nexthop objects.
    ///
    /// # Safety
    ///
    /// Called by the netns' chain for a `FibBlock<T>`.
    unsafe extern "C" fn nexthop(
        block: *mut bindings::notifier_block,
        event: usize,
        _info: *mut c_void,
    ) -> c_int {
        if let Some(change) = FibChange::from_nexthop_event(event) {
            // SAFETY: A `Watch` keeps the block until the block is unregistered.
            T::changing(unsafe { Self::listener(block) }, change);
        }
        0 // NOTIFY_DONE
    }
}

/// The FIB and nexthop notifiers of a netns, and its listener to messages about routes.
///
/// # Invariants
///
/// Each block is registered with its chain in `net`.
pub(crate) struct Watch<T: FibListener> {
    fib: KBox<FibBlock<T>>,
    nexthop: KBox<FibBlock<T>>,
    _messages: Messages<T>,
    net: NetHandle,
}

// SAFETY: The C side allows (un)registering from any thread, and the listener may be sent and
// shared.
unsafe impl<T: FibListener> Send for Watch<T> {}
// SAFETY: A shared reference allows no operation.
unsafe impl<T: FibListener> Sync for Watch<T> {}

impl<T: FibListener> Watch<T> {
    /// Registers the notifiers and the listener in a netns. Process context; sleeps.
    ///
    /// Errors: `EBUSY`, routes changed while the kernel announced those that exist.
    pub(crate) fn new(net: NetHandle, listener: Arc<T>) -> Result<Self> {
        let fib = FibBlock::new(Some(FibBlock::<T>::fib), listener.clone())?;
        let nexthop = FibBlock::new(Some(FibBlock::<T>::nexthop), listener.clone())?;
        let (raw, none) = (net.as_raw(), ptr::null_mut());
        // SAFETY: The netns outlives its handles; `fib` is boxed.
        to_result(unsafe { bindings::register_fib_notifier(raw, fib.as_raw(), None, none) })?;
        let no_fib = || {
            // SAFETY: `fib` was registered above.
            unsafe { bindings::unregister_fib_notifier(raw, fib.as_raw()) };
        };
        let block = nexthop.as_raw();
        // SAFETY: The netns outlives its handles; `nexthop` is boxed.
        let result = unsafe { bindings::register_nexthop_notifier(raw, block, none) };
        to_result(result).inspect_err(|_| no_fib())?;
        for family in Family::ALL {
            // The dump lacks a rule that was announced before it and listed after it.
            // SAFETY: The netns outlives its handles. Process context.
            if unsafe { bindings::nfzr_helper_rules_have_dscp(raw, family.as_af()) } {
                T::dscp_counts(listener.as_arc_borrow(), family);
            }
        }
        // Last, because closing it is not allowed everywhere.
        let messages = Messages::new(net, listener).inspect_err(|_| {
            // SAFETY: `nexthop` was registered above.
            unsafe { bindings::unregister_nexthop_notifier(raw, block) };
            no_fib();
        })?;
        // INVARIANT: Both blocks were registered above.
        Ok(Self {
            fib,
            nexthop,
            _messages: messages,
            net,
        })
    }
}

impl<T: FibListener> Drop for Watch<T> {
    /// Unregisters the notifiers, then the listener. The listener is not called after that. Waits
    /// for RTNL, and for a grace period. Process context, but not in a call of netlink's notifier
    /// chain; sleeps.
    fn drop(&mut self) {
        let net = self.net.as_raw();
        // SAFETY: By the type invariant the block is registered.
        unsafe { bindings::unregister_nexthop_notifier(net, self.nexthop.as_raw()) };
        // SAFETY: As above.
        unsafe { bindings::unregister_fib_notifier(net, self.fib.as_raw()) };
    }
}
