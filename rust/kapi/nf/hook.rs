// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks of a network namespace.
//!
//! `nf_unregister_net_hook()` does not wait for packets that are in the hook. A hook's memory is
//! therefore freed only after a grace period.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use core::ptr::NonNull;

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    bindings,
    kapi::{
        net::{
            family::Family,
            netns::{NetHandle, PreExit}, //
        },
        nf::skb::{HookSkb, Point, Verdict},
        sync::rcu::ReadSide, //
    },
};

/// Reference priorities of hooks: `enum nf_ip_hook_priorities`, with the same values for IPv6.
pub(crate) mod priority {
    /// `NF_IP_PRI_FIRST`.
    pub(crate) const FIRST: i32 = i32::MIN;
    /// `NF_IP_PRI_CONNTRACK`.
    pub(crate) const CONNTRACK: i32 = -200;
    /// `NF_IP_PRI_LAST`.
    pub(crate) const LAST: i32 = i32::MAX;
}

/// A hook: its data, its position and its function.
pub(crate) trait Hook {
    /// The data that every call gets, shared by all CPUs.
    type Data: Send + Sync + 'static;

    /// The hook point.
    type Point: Point;

    /// The priority. Hooks of a point run in ascending order. Among equal priorities, the hook that
    /// was registered last runs first.
    const PRIORITY: i32;

    /// Decides about a packet. Softirq, or process context with bottom halves on; under RCU; must
    /// not sleep.
    fn hook(data: ArcBorrow<'_, Self::Data>, skb: HookSkb<'_, Self::Point>) -> Verdict;
}

/// Calls a hook: the `nf_hookfn`.
///
/// # Safety
///
/// Called by netfilter for operations that [`Pair::new`] made for `H` and that family.
unsafe extern "C" fn call<H: Hook, const SIX: bool>(
    data: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: `data` is the `Arc` of a `HookSet`, which lives until no call runs any more.
    let data = unsafe { ArcBorrow::from_raw(data.cast::<H::Data>()) };
    // SAFETY: Netfilter calls hooks under `rcu_read_lock()`.
    let rcu = unsafe { ReadSide::assume_held() };
    let family = if SIX { Family::Ipv6 } else { Family::Ipv4 };
    // SAFETY: Netfilter passes a packet, which is not null.
    let skb = unsafe { NonNull::new_unchecked(skb) };
    // SAFETY: The state is valid for the call.
    let state = unsafe { &*state };
    // SAFETY: Netfilter hands the packet to one hook at a time, at the point and for the family
    // that the hook is registered for.
    let skb = unsafe { HookSkb::from_raw(skb, state, family, rcu) };
    H::hook(data, skb).as_raw()
}

/// The operations of a hook, for IPv4 and IPv6.
struct Pair {
    id: u32,
    /// About to be unregistered.
    leaves: bool,
    ops: [bindings::nf_hook_ops; 2],
}

impl Pair {
    const COUNT: c_uint = 2;

    fn new<H: Hook>(id: u32, data: &Arc<H::Data>) -> Result<KBox<Self>> {
        let ops = |family: Family, hook: bindings::nf_hookfn| bindings::nf_hook_ops {
            hook,
            priv_: Arc::as_ptr(data).cast_mut().cast(),
            // CAST: The protocol family is a small number.
            pf: family.as_raw() as u8,
            hooknum: H::Point::HOOKNUM,
            priority: H::PRIORITY,
            ..Default::default()
        };
        let ops = [
            ops(Family::Ipv4, Some(call::<H, false>)),
            ops(Family::Ipv6, Some(call::<H, true>)),
        ];
        let leaves = false;
        Ok(KBox::new(Self { id, leaves, ops }, GFP_KERNEL)?)
    }
}

/// The hooks of a netns that share their data.
///
/// # Invariants
///
/// The operations of all `pairs` are registered in `net`, unless `ended` is set. They are freed a
/// grace period after they are unregistered, and `data` lives as long.
pub(crate) struct HookSet<D: Send + Sync + 'static> {
    pairs: KVec<KBox<Pair>>,
    net: NetHandle,
    data: Arc<D>,
    ended: bool,
}

// SAFETY: The C side allows (un)registering from any thread, and `data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for HookSet<D> {}

impl<D: Send + Sync + 'static> HookSet<D> {
    /// Creates an empty set.
    pub(crate) fn new(net: NetHandle, data: Arc<D>) -> Self {
        // INVARIANT: There are no hooks yet.
        Self {
            pairs: KVec::new(),
            net,
            data,
            ended: false,
        }
    }

    /// Registers a hook for both families under an id, unless a hook has that id. Process context;
    /// sleeps.
    pub(crate) fn add<H: Hook<Data = D>>(&mut self, id: u32) -> Result {
        if self.ended || self.pairs.iter().any(|pair| pair.id == id) {
            return Ok(());
        }
        self.pairs.reserve(1, GFP_KERNEL)?;
        let pair = Pair::new::<H>(id, &self.data)?;
        let (net, ops) = (self.net.as_raw(), pair.ops.as_ptr());
        // SAFETY: The netns outlives its handles. The operations are boxed, so they do not move.
        let registered = unsafe { bindings::nf_register_net_hooks(net, ops, Pair::COUNT) };
        if let Err(err) = to_result(registered) {
            // One family may have been registered for a moment.
            synchronize_rcu();
            return Err(err);
        }
        // INVARIANT: Registered above. There is room, so this succeeds.
        self.pairs.push(pair, GFP_KERNEL)?;
        Ok(())
    }

    /// Unregisters the hooks whose id `keep` refuses, the last registered one first, and waits
    /// until no packet is in one of them. Process context; sleeps.
    pub(crate) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        // Asked once, because the answer decides both what is unregistered and what is freed.
        for pair in &mut self.pairs {
            pair.leaves = !keep(pair.id);
        }
        if self.ended || !self.pairs.iter().any(|pair| pair.leaves) {
            return;
        }
        self.unregister(|pair| pair.leaves);
        synchronize_rcu();
        self.pairs.retain(|pair| !pair.leaves);
    }

    /// Unregisters all hooks for good. Packets may still be in them. None is left when the set is
    /// dropped, because `PreExit` promises a grace period before that. Process context.
    pub(crate) fn end(&mut self, _cx: &PreExit) {
        if !self.ended {
            self.unregister(|_| true);
            // INVARIANT: All hooks were unregistered.
            self.ended = true;
        }
    }

    fn unregister(&self, which: impl Fn(&Pair) -> bool) {
        for pair in self.pairs.iter().rev().filter(|pair| which(pair)) {
            let (net, ops) = (self.net.as_raw(), pair.ops.as_ptr());
            // SAFETY: By the type invariant the operations are registered.
            unsafe { bindings::nf_unregister_net_hooks(net, ops, Pair::COUNT) };
        }
    }
}

impl<D: Send + Sync + 'static> Drop for HookSet<D> {
    /// Process context; sleeps, unless the set has ended.
    fn drop(&mut self) {
        // If `pre_exit` did not run, an `init` failed half-way.
        self.retain(|_| false);
    }
}
