// SPDX-License-Identifier: GPL-2.0

//! The observation of packets, by which it is learned what becomes of the packets of their
//! direction.
//!
//! Softirq, unless stated otherwise.

use core::{
    mem::{size_of, MaybeUninit},
    ptr::NonNull, //
};

use kernel::prelude::*;

use crate::{
    bindings,
    kapi::{
        net::{
            dst::{Dst, DstId},
            family::Family, //
        },
        nf::{
            conn::{Conn, Dir},
            jump::{Marks, OwnerId, Pass, Stays},
            skb::{Forward, HookSkb, Ingress, PostRouting, PreRouting}, //
        },
    },
};

/// What is known before a packet meets rules.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    /// The number of the firewall.
    pub(crate) epoch: u32,
    /// A stamp.
    pub(crate) stamp: u64,
}

/// The packets of each CPU that are observed, and those that go on without a jump.
///
/// # Invariants
///
/// `base` is a per-CPU allocation of `struct nfzr_observer`.
pub(crate) struct Observer {
    base: NonNull<bindings::nfzr_observer>,
}

// SAFETY: Per-CPU memory may be used by all CPUs, and each CPU accesses only its own part.
unsafe impl Send for Observer {}
// SAFETY: As above.
unsafe impl Sync for Observer {}

impl Observer {
    /// Creates an observer of no packets. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = size_of::<bindings::nfzr_observer>();
        // SAFETY: A plain allocation of zeroes, aligned for a `u64` and so for pointers.
        let base = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Just allocated.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::nfzr_observer {
        self.base.as_ptr()
    }

    /// Observes a packet of a connection that is about to meet rules. Fails with the reason if the
    /// packet's kind never jumps.
    pub(crate) fn observe(
        &self,
        skb: &HookSkb<'_, PreRouting>,
        conn: &Conn,
        dir: Dir,
        before: Before,
    ) -> Result<(), Stays> {
        // SAFETY: By the type invariant; the packet is in this hook, with this state, under RCU. A
        // `&Conn` is valid.
        Stays::check(unsafe {
            bindings::nfzr_helper_observe(
                self.base.as_ptr(),
                skb.as_raw(),
                skb.state(),
                conn.as_raw(),
                dir.as_raw(),
                before.epoch,
                before.stamp,
            )
        })
    }

    /// Ends the observation of an earlier packet at the address of one that is not observed. Any
    /// context.
    pub(crate) fn observe_not(&self, skb: &HookSkb<'_, PreRouting>) {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_observe_not(self.base.as_ptr(), skb.as_raw()) };
    }

    /// Notes that a packet at ingress goes on into IP, so that no later packet of its direction
    /// overtakes it.
    pub(crate) fn stays(&self, skb: &HookSkb<'_, Ingress>) {
        let base = self.base.as_ptr();
        // SAFETY: By the type invariant; the packet is in this hook, with this state, under RCU.
        unsafe { bindings::nfzr_helper_ingress_stays(base, skb.as_raw(), skb.state()) };
    }

    /// Notes that a packet goes on from PRE_ROUTING, if its connection has such a mark, and whether
    /// by a cached route: otherwise, its observation ends.
    pub(crate) fn goes_on(&self, skb: &HookSkb<'_, PreRouting>, is_served: bool, marks: Marks) {
        let (base, Marks { mark, mask }) = (self.base.as_ptr(), marks);
        // SAFETY: By the type invariant; the packet is in this hook, under RCU.
        unsafe { bindings::nfzr_helper_goes_on(base, skb.as_raw(), is_served, mark, mask) };
    }

    /// Notes that a packet leaves POST_ROUTING. Returns whether this CPU observes it, or observed
    /// an earlier one at its address. Any context.
    pub(crate) fn leaves(&self, skb: &HookSkb<'_, PostRouting>) -> bool {
        // SAFETY: By the type invariant; the packet is in this hook, under RCU.
        unsafe { bindings::nfzr_helper_leaves(self.base.as_ptr(), skb.as_raw(), skb.state()) }
    }

    /// Notes that an observed packet would have jumped as its lookup found.
    ///
    /// # Safety
    ///
    /// `lookup` was filled by a lookup of the packet that found where it leaves.
    pub(in crate::kapi) unsafe fn predict(
        &self,
        skb: &HookSkb<'_, PreRouting>,
        lookup: *const bindings::nfzr_lookup,
    ) {
        // SAFETY: By the type invariant and the function's requirement; the packet's address is
        // only compared.
        unsafe { bindings::nfzr_helper_predict(self.base.as_ptr(), skb.as_raw(), lookup) };
    }

    /// Notes that the kernel chose the cached route for a packet.
    pub(crate) fn takes_cached_route(&self, skb: &HookSkb<'_, Forward>) {
        // SAFETY: By the type invariant; the packet is in this hook, under RCU.
        unsafe { bindings::nfzr_helper_observe_route(self.base.as_ptr(), skb.as_raw()) };
    }

    /// Ends the observation of a packet at the end of PRE_ROUTING, and the note that an earlier one
    /// of its direction has not left. Returns what was observed if the packet goes to FORWARD by
    /// its route.
    pub(crate) fn enters(&self, skb: &HookSkb<'_, PreRouting>) -> Option<Observed> {
        let mut packet = MaybeUninit::uninit();
        let mut pass = MaybeUninit::zeroed();
        let (to, base) = (packet.as_mut_ptr(), self.base.as_ptr());
        // SAFETY: By the type invariant; the packet is in this hook, with this state, under RCU.
        // The results are valid to write to.
        let enters = unsafe {
            bindings::nfzr_helper_entered(base, skb.as_raw(), skb.state(), to, pass.as_mut_ptr())
        };
        if !enters {
            return None;
        }
        // SAFETY: The helper wrote both, except for the pass's route and owner, which are all zero.
        let (packet, pass) = unsafe { (packet.assume_init(), pass.assume_init()) };
        Some(Observed { packet, pass })
    }

    /// Ends the observation of a packet that leaves. Returns what was observed, and whether the
    /// packet leaves as a jump would have sent it.
    pub(crate) fn take(&self, skb: &HookSkb<'_, PostRouting>) -> Option<(Observed, bool)> {
        let mut packet = MaybeUninit::uninit();
        let mut pass = MaybeUninit::zeroed();
        let (to, base) = (packet.as_mut_ptr(), self.base.as_ptr());
        // SAFETY: By the type invariant; the packet is in this hook, with this state, under RCU.
        // The results are valid to write to.
        let seen = unsafe {
            bindings::nfzr_helper_observed(base, skb.as_raw(), skb.state(), to, pass.as_mut_ptr())
        };
        if seen == bindings::nfzr_seen::NFZR_UNSEEN {
            return None;
        }
        // SAFETY: The helper wrote both, except for the pass's route and owner, which are all zero.
        let (packet, pass) = unsafe { (packet.assume_init(), pass.assume_init()) };
        let is_as_a_jump = seen == bindings::nfzr_seen::NFZR_SEEN;
        Some((Observed { packet, pass }, is_as_a_jump))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`, and this is the only owner.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}

/// A packet that was observed from before the rules to its end.
pub(crate) struct Observed {
    packet: bindings::nfzr_observed,
    /// Without a route.
    pass: bindings::nfzr_pass,
}

impl Observed {
    /// Returns the number of the firewall that the packet passed.
    pub(crate) fn epoch(&self) -> u32 {
        self.packet.epoch
    }

    /// Returns the connection's mark.
    pub(crate) fn ct_mark(&self) -> u32 {
        self.packet.ct_mark
    }

    /// Returns the stamp that was taken before the packet met rules.
    pub(crate) fn stamp(&self) -> u64 {
        self.packet.stamp
    }

    /// Returns the index of the device that received the packet.
    pub(crate) fn iif(&self) -> u32 {
        self.packet.entry.key.iif
    }

    /// Returns whether the packet would have jumped.
    pub(crate) fn is_predicted(&self) -> bool {
        self.packet.is_predicted
    }

    /// Returns whether the packet leaves the way and with the marks that were predicted.
    pub(crate) fn is_right(&self) -> bool {
        self.packet.is_right
    }

    /// Returns whether the kernel chose the cached route for the packet.
    pub(crate) fn has_route(&self) -> bool {
        !self.packet.dst.is_null()
    }

    /// Returns the cached route by which the packet leaves.
    pub(crate) fn dst(&self) -> DstId {
        DstId(self.packet.dst)
    }

    /// Returns what becomes of such packets of the owner by a route, which is [`Self::dst`].
    /// Returns `None` if the route is not one of the packet's family.
    pub(crate) fn into_pass(self, dst: Dst, family: Family, owner: OwnerId) -> Option<Pass> {
        (dst.family() == family).then(|| Pass::new(dst, self.pass, owner))
    }
}
