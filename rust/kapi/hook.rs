// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks of a network namespace.
//!
//! `nf_unregister_net_hook()` does not wait for hooks that are running. A registration is
//! therefore ended in the netns' `pre_exit`, and dropped after the grace period that follows.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use core::marker::PhantomData;

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    bindings,
    kapi::{
        pernet::{Init, PreExit},
        rcu::ReadSide,
        skb::SkBuff, //
    },
};

/// Where in the IPv4 stack a hook sits: `enum nf_inet_hooks`.
#[derive(Clone, Copy)]
pub(crate) enum Inet {
    /// Before the route is chosen.
    PreRouting,
    /// Before the packet leaves.
    PostRouting,
}

impl Inet {
    const fn as_raw(self) -> u32 {
        match self {
            Self::PreRouting => bindings::nf_inet_hooks_NF_INET_PRE_ROUTING,
            Self::PostRouting => bindings::nf_inet_hooks_NF_INET_POST_ROUTING,
        }
    }
}

/// What becomes of the packet.
pub(crate) enum Verdict {
    /// It goes on.
    Accept,
}

/// The state of a hook's call: `struct nf_hook_state`, with the proof that it is under RCU.
pub(crate) struct State<'r> {
    raw: &'r bindings::nf_hook_state,
    rcu: ReadSide<'r>,
}

impl<'r> State<'r> {
    pub(super) fn as_raw(&self) -> *const bindings::nf_hook_state {
        self.raw
    }

    /// The read side that the hook is called in.
    pub(crate) fn rcu(&self) -> &ReadSide<'r> {
        &self.rcu
    }
}

/// A hook: what it is called with, where, and what it does.
pub(crate) trait Hook {
    /// What every call gets, shared by all CPUs.
    type Data: Send + Sync + 'static;

    /// Where it sits.
    const POINT: Inet;

    /// Hooks of a point run in ascending priority; of equals, the one registered later first.
    const PRIORITY: i32;

    /// Softirq, or process context with bottom halves on; under RCU; must not sleep.
    fn hook(data: ArcBorrow<'_, Self::Data>, skb: &SkBuff, state: &State<'_>) -> Verdict;
}

/// A hook registered for IPv4 in a netns.
///
/// # Invariants
///
/// `ops` is registered while `registered`. `ops` and `data` stay until a grace period after it is
/// unregistered.
pub(crate) struct Registration<H: Hook> {
    ops: KBox<bindings::nf_hook_ops>,
    net: *mut bindings::net,
    registered: Atomic<bool>,
    _data: Arc<H::Data>,
    _hook: PhantomData<H>,
}

// SAFETY: The C side allows unregistering from any thread, and `data` may be sent and shared.
unsafe impl<H: Hook> Send for Registration<H> {}
// SAFETY: `unregister` is the only use of a shared reference, and atomic.
unsafe impl<H: Hook> Sync for Registration<H> {}

impl<H: Hook> Registration<H> {
    /// Registers the hook in a netns that is being set up. Process context.
    pub(crate) fn new(init: &Init<'_>, data: Arc<H::Data>) -> Result<Self> {
        let net = init.net().as_raw();
        let mut ops = KBox::new(bindings::nf_hook_ops::default(), GFP_KERNEL)?;
        ops.hook = Some(Self::call);
        ops.priv_ = Arc::as_ptr(&data).cast_mut().cast();
        ops.pf = bindings::NFPROTO_IPV4 as u8;
        ops.hooknum = H::POINT.as_raw();
        ops.priority = H::PRIORITY;
        // SAFETY: `net` is valid, and `ops` is boxed, so it stays where it is.
        to_result(unsafe { bindings::nf_register_net_hook(net, &*ops) })?;
        // INVARIANT: Registered just now; `drop` upholds the rest.
        Ok(Self {
            ops,
            net,
            registered: Atomic::new(true),
            _data: data,
            _hook: PhantomData,
        })
    }

    /// Ends the registration. Packets that are in the hook may still be; they are not when `self`
    /// is dropped, since `PreExit` promises a grace period until then. Process context.
    pub(crate) fn unregister(&self, _cx: &PreExit) {
        self.unregister_once();
    }

    /// Whether it was registered until now.
    fn unregister_once(&self) -> bool {
        let was = self.registered.xchg(false, Relaxed);
        if was {
            // SAFETY: Registered, by the type invariant, and the netns is there as long as what
            // was made from its `Init`.
            unsafe { bindings::nf_unregister_net_hook(self.net, &*self.ops) };
        }
        was
    }

    /// The `nf_hookfn`.
    ///
    /// # Safety
    ///
    /// Called by netfilter for `ops` of a registration, under RCU.
    unsafe extern "C" fn call(
        data: *mut c_void,
        skb: *mut bindings::sk_buff,
        state: *const bindings::nf_hook_state,
    ) -> c_uint {
        // SAFETY: `data` is the `Arc` that the registration keeps, by the type invariant until no
        // hook runs any more.
        let data = unsafe { ArcBorrow::from_raw(data.cast::<H::Data>()) };
        // SAFETY: Netfilter hands the packet to one hook at a time.
        let skb = unsafe { SkBuff::from_raw(skb) };
        let state = State {
            // SAFETY: Valid for the call.
            raw: unsafe { &*state },
            // SAFETY: Netfilter calls hooks under `rcu_read_lock()`.
            rcu: unsafe { ReadSide::assume_held() },
        };
        match H::hook(data, skb, &state) {
            Verdict::Accept => bindings::NF_ACCEPT,
        }
    }
}

impl<H: Hook> Drop for Registration<H> {
    fn drop(&mut self) {
        if self.unregister_once() {
            // Not by way of `pre_exit`: an `init` that failed half-way.
            synchronize_rcu();
        }
    }
}
