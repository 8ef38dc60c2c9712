// SPDX-License-Identifier: GPL-2.0

//! What happens to the routes of a netns: the notifiers of its FIB and of its nexthop objects.
//!
//! Both tell of a change *before* it takes effect.
//!
//! C headers: [`include/net/fib_notifier.h`](srctree/include/net/fib_notifier.h),
//! [`include/net/nexthop.h`](srctree/include/net/nexthop.h)

use core::ptr;

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        net::netns::{Init, PreExit},
        sync::time, //
    },
};

/// What changes: `enum fib_event_type`, and nexthop objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A route, or a nexthop of one.
    Route,
    /// A rule.
    Rule,
    /// A nexthop object: one, or a group. Under RTNL.
    Nexthop,
    /// A bucket of a resilient group. Under RTNL or not.
    Bucket,
}

impl Change {
    fn from_fib_event(event: usize) -> Option<Self> {
        match u32::try_from(event).ok()? {
            bindings::fib_event_type_FIB_EVENT_ENTRY_REPLACE
            | bindings::fib_event_type_FIB_EVENT_ENTRY_APPEND
            | bindings::fib_event_type_FIB_EVENT_ENTRY_ADD
            | bindings::fib_event_type_FIB_EVENT_ENTRY_DEL
            | bindings::fib_event_type_FIB_EVENT_NH_ADD
            | bindings::fib_event_type_FIB_EVENT_NH_DEL => Some(Self::Route),
            bindings::fib_event_type_FIB_EVENT_RULE_ADD
            | bindings::fib_event_type_FIB_EVENT_RULE_DEL => Some(Self::Rule),
            _ => None,
        }
    }

    /// `enum nexthop_event_type`: others ask for counters.
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

/// The gateways of the groups of nexthop objects of a netns, whose neighbours have a say in which is
/// chosen: a Bloom filter, which has all that it should have, and perhaps others.
///
/// # Invariants
///
/// `net` is the netns that this was made for while that was set up.
pub(crate) struct GatewaySet {
    net: *mut bindings::net,
    words: [Atomic<u64>; WORDS],
}

// SAFETY: What is done with the netns may be done by any thread.
unsafe impl Send for GatewaySet {}
// SAFETY: As above.
unsafe impl Sync for GatewaySet {}

impl GatewaySet {
    /// None yet, of a netns that is being set up.
    pub(crate) fn new(init: &Init<'_>) -> Self {
        // INVARIANT: Its own netns.
        Self {
            net: init.net().as_raw(),
            words: [const { Atomic::new(0) }; WORDS],
        }
    }

    /// Waits for who changes the network's configuration under RTNL now, and with `buckets` also for
    /// who moves buckets of resilient groups; and takes over what groups there are. Process context
    /// without RTNL, before the netns' `exit` ends; sleeps.
    pub(crate) fn settle(&self, buckets: bool) {
        let mut set = [0; WORDS];
        if buckets {
            // SAFETY: Process context without RTNL, and the netns is there as below.
            unsafe { bindings::nfzr_helper_wait_for_buckets(self.net) };
        }
        // SAFETY: Process context, and nothing here holds RTNL.
        unsafe { bindings::rtnl_lock() };
        // SAFETY: The netns is there as long as what was made from its `Init` is used, RTNL is held, and
        // `set` has the size that the helper writes.
        unsafe { bindings::nfzr_helper_group_gateways(self.net, set.as_mut_ptr()) };
        for (word, bits) in self.words.iter().zip(set) {
            word.store(bits, Relaxed);
        }
        // SAFETY: Locked just now.
        unsafe { bindings::rtnl_unlock() };
    }

    /// Whether it has, or may have, a neighbour by its place. Any context.
    pub(crate) fn may_have(&self, place: u32) -> bool {
        let word = usize::try_from(place / u64::BITS)
            .ok()
            .and_then(|at| self.words.get(at));
        word.is_some_and(|word| (word.load(Relaxed) >> (place % u64::BITS)) & 1 != 0)
    }
}

/// Who wants to know. It cannot veto.
pub(crate) trait Listener: Send + Sync + 'static {
    /// A change is about to take effect, or just did. Process context or softirq; must not sleep.
    fn changing(this: ArcBorrow<'_, Self>, change: Change);
}

/// A `struct notifier_block` with whom it tells.
#[repr(C)]
struct Block<T> {
    raw: Opaque<bindings::notifier_block>,
    listener: Arc<T>,
}

impl<T: Listener> Block<T> {
    fn new(call: bindings::notifier_fn_t, listener: Arc<T>) -> Result<KBox<Self>> {
        let raw = bindings::notifier_block {
            notifier_call: call,
            // First: what a driver objects to the kernel may do all the same.
            priority: c_int::MAX,
            ..Default::default()
        };
        let raw = Opaque::new(raw);
        Ok(KBox::new(Self { raw, listener }, GFP_KERNEL)?)
    }

    fn as_raw(&self) -> *mut bindings::notifier_block {
        // CAST: The C part comes first in a `Block`.
        ptr::from_ref(self).cast_mut().cast()
    }

    /// # Safety
    ///
    /// `block` is the C part of a `Block<T>` that stays for `'a`.
    unsafe fn listener<'a>(block: *mut bindings::notifier_block) -> ArcBorrow<'a, T> {
        // CAST: The C part comes first in a `Block`.
        // SAFETY: By the function's requirement.
        unsafe { &*block.cast::<Self>() }.listener.as_arc_borrow()
    }

    /// The `notifier_fn_t` of the FIB.
    ///
    /// # Safety
    ///
    /// Called by the netns' chain for a `Block<T>`, under RCU.
    unsafe extern "C" fn fib(
        block: *mut bindings::notifier_block,
        event: usize,
        info: *mut c_void,
    ) -> c_int {
        // SAFETY: The chain's argument is a `struct fib_notifier_info`.
        let is_ip = unsafe { bindings::nfzr_helper_fib_is_ip(info) };
        if let Some(change) = Change::from_fib_event(event).filter(|_| is_ip) {
            // SAFETY: A `Watch` keeps the block until it is unregistered.
            T::changing(unsafe { Self::listener(block) }, change);
        }
        0 // NOTIFY_DONE
    }

    /// The `notifier_fn_t` of nexthop objects.
    ///
    /// # Safety
    ///
    /// Called by the netns' chain for a `Block<T>`.
    unsafe extern "C" fn nexthop(
        block: *mut bindings::notifier_block,
        event: usize,
        _info: *mut c_void,
    ) -> c_int {
        if let Some(change) = Change::from_nexthop_event(event) {
            // SAFETY: A `Watch` keeps the block until it is unregistered.
            T::changing(unsafe { Self::listener(block) }, change);
        }
        0 // NOTIFY_DONE
    }
}

/// How often the FIB's notifier is tried to be registered, where routes change all the time.
const REGISTER_TRIES: u32 = 20;

/// The notifiers of a netns.
///
/// # Invariants
///
/// The blocks are registered while `registered` says so, each with its chain in `net`.
pub(crate) struct Watch<T: Listener> {
    fib: KBox<Block<T>>,
    nexthop: KBox<Block<T>>,
    net: *mut bindings::net,
    registered: Atomic<bool>,
}

// SAFETY: The C side allows (un)registering from any thread, and the listener may be sent and shared.
unsafe impl<T: Listener> Send for Watch<T> {}
// SAFETY: As above; what a shared reference can do is done once.
unsafe impl<T: Listener> Sync for Watch<T> {}

impl<T: Listener> Watch<T> {
    /// Registers them in a netns that is being set up. Process context; sleeps.
    pub(crate) fn new(init: &Init<'_>, listener: Arc<T>) -> Result<Self> {
        let fib = Block::new(Some(Block::<T>::fib), listener.clone())?;
        let nexthop = Block::new(Some(Block::<T>::nexthop), listener)?;
        let net = init.net().as_raw();
        let none = ptr::null_mut();
        let mut tries = 0;
        loop {
            tries += 1;
            let block = fib.as_raw();
            // SAFETY: The netns is there as long as what was made from its `Init`; `fib` is boxed.
            let registered = unsafe { bindings::register_fib_notifier(net, block, None, none) };
            match to_result(registered) {
                Ok(()) => break,
                // Routes changed while they were announced. They may pause.
                Err(err) if err == EBUSY && tries < REGISTER_TRIES => time::sleep_ms(tries * 10),
                Err(err) => return Err(err),
            }
        }
        let block = nexthop.as_raw();
        // SAFETY: As above.
        let registered = unsafe { bindings::register_nexthop_notifier(net, block, none) };
        if let Err(err) = to_result(registered) {
            // SAFETY: Registered just now.
            unsafe { bindings::unregister_fib_notifier(net, fib.as_raw()) };
            return Err(err);
        }
        // INVARIANT: Both were registered just now.
        Ok(Self {
            fib,
            nexthop,
            net,
            registered: Atomic::new(true),
        })
    }

    /// Unregisters them; then nobody is told any more. Process context; sleeps.
    pub(crate) fn unregister(&self, _cx: &PreExit) {
        self.end();
    }

    fn end(&self) {
        if self.registered.xchg(false, Full) {
            // SAFETY: Registered, by the type invariant.
            unsafe { bindings::unregister_nexthop_notifier(self.net, self.nexthop.as_raw()) };
            // SAFETY: As above. (Waits for RCU, for one netns after the other.)
            unsafe { bindings::unregister_fib_notifier(self.net, self.fib.as_raw()) };
        }
    }
}

impl<T: Listener> Drop for Watch<T> {
    fn drop(&mut self) {
        self.end();
    }
}
