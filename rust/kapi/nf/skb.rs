// SPDX-License-Identifier: GPL-2.0

//! Packets in netfilter hooks: `struct sk_buff` with the hook's `struct nf_hook_state`.
//!
//! A hook owns its packet while it runs, and ends that by turning the packet into a [`Verdict`].
//!
//! C headers: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h),
//! [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use core::{marker::PhantomData, ptr::NonNull};

use crate::{
    bindings,
    kapi::{net::family::Family, sync::rcu::ReadSide}, //
};

/// A hook point: `enum nf_inet_hooks`. A type, so that each operation on a packet names the points
/// where it may be used.
pub(crate) trait Point {
    /// The hook's number.
    const HOOKNUM: u32;
}

/// Before routing.
pub(crate) enum PreRouting {}

impl Point for PreRouting {
    const HOOKNUM: u32 = bindings::nf_inet_hooks_NF_INET_PRE_ROUTING;
}

/// After routing, for packets to this host.
pub(crate) enum LocalIn {}

impl Point for LocalIn {
    const HOOKNUM: u32 = bindings::nf_inet_hooks_NF_INET_LOCAL_IN;
}

/// After routing, for packets to another host.
pub(crate) enum Forward {}

impl Point for Forward {
    const HOOKNUM: u32 = bindings::nf_inet_hooks_NF_INET_FORWARD;
}

/// At the ingress of a device, before the packet enters IP. Not a [`Point`], because most of what
/// may be done with a packet needs a family.
pub(crate) enum Ingress {}

/// Before the packet leaves.
pub(crate) enum PostRouting {}

impl Point for PostRouting {
    const HOOKNUM: u32 = bindings::nf_inet_hooks_NF_INET_POST_ROUTING;
}

/// The identity of a packet, meaningful only while the packet exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SkbId(usize);

/// A packet in a hook at point `P`.
///
/// # Invariants
///
/// `skb` is in a hook at `P`, with the state `state`, and is the hook's alone for `'r`. If `P` is a
/// [`Point`], the hook is for `family`. At [`Ingress`] it is for all families, and the packet may
/// be shared.
pub(crate) struct HookSkb<'r, P> {
    skb: NonNull<bindings::sk_buff>,
    state: &'r bindings::nf_hook_state,
    /// Known at build time, because each family has its own hook function.
    family: Family,
    rcu: ReadSide<'r>,
    _point: PhantomData<P>,
}

impl<'r, P> HookSkb<'r, P> {
    /// # Safety
    ///
    /// For `'r`, the type's invariant holds, or that of an equivalent context.
    #[inline(always)]
    pub(in crate::kapi) unsafe fn from_raw(
        skb: NonNull<bindings::sk_buff>,
        state: &'r bindings::nf_hook_state,
        family: Family,
        rcu: ReadSide<'r>,
    ) -> Self {
        // INVARIANT: By the function's requirement.
        Self {
            skb,
            state,
            family,
            rcu,
            _point: PhantomData,
        }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::sk_buff {
        self.skb.as_ptr()
    }

    pub(in crate::kapi) fn state(&self) -> *const bindings::nf_hook_state {
        self.state
    }

    /// Returns the read side that the hook is called in.
    pub(crate) fn rcu(&self) -> &ReadSide<'r> {
        &self.rcu
    }

    /// Returns the packet's identity, for comparison only.
    pub(crate) fn id(&self) -> SkbId {
        SkbId(self.as_raw() as usize)
    }

    /// Lets the packet continue.
    pub(crate) fn accept(self) -> Verdict {
        Verdict(bindings::NF_ACCEPT)
    }

    /// Drops the packet.
    pub(crate) fn drop(self) -> Verdict {
        Verdict(bindings::NF_DROP)
    }

    /// Takes the packet away from netfilter. Returns it with the verdict that says so.
    #[cfg(nfzr_kunit)]
    pub(crate) fn steal(self) -> (StolenSkb, Verdict) {
        // INVARIANT: The hook owned the packet, and the verdict tells netfilter to forget it.
        (StolenSkb(self.skb), Verdict(bindings::NF_STOLEN))
    }
}

impl<P: Point> HookSkb<'_, P> {
    /// Returns the family that the hook is registered for.
    pub(crate) fn family(&self) -> Family {
        self.family
    }
}

/// The decision about a packet. It can only be made by giving the packet up.
pub(crate) struct Verdict(u32);

impl Verdict {
    /// The packet is netfilter's no more.
    pub(in crate::kapi) fn stolen() -> Self {
        Self(bindings::NF_STOLEN)
    }

    pub(in crate::kapi) fn as_raw(&self) -> u32 {
        self.0
    }
}

/// A packet that a hook stole. Dropping it frees the packet.
///
/// Used by the KUnit suites only: the hooks of the module steal packets by [`HookSkb::jump`].
///
/// # Invariants
///
/// `0` is a packet that nothing else owns.
#[cfg(nfzr_kunit)]
pub(crate) struct StolenSkb(NonNull<bindings::sk_buff>);

#[cfg(nfzr_kunit)]
impl Drop for StolenSkb {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own the packet.
        unsafe { bindings::nfzr_kunit_skb_free(self.0.as_ptr()) };
    }
}
