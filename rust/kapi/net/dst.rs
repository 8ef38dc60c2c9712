// SPDX-License-Identifier: GPL-2.0

//! Routes: references on `struct dst_entry`.
//!
//! C header: [`include/net/dst.h`](srctree/include/net/dst.h)

use core::{
    mem::{offset_of, size_of},
    ptr::{self, NonNull}, //
};

use kernel::{
    static_assert,
    sync::atomic::{Atomic, Relaxed}, //
};

use crate::{
    bindings,
    kapi::{
        net::{addr::Addr, family::Family, netns::Net},
        sync::{once::ReadOnce, rcu::ReadSide}, //
    },
};

/// A reference on a route.
///
/// The reference keeps the route's memory, not its validity: the kernel may mark the route obsolete
/// at any time, which [`Dst::is_valid`] checks.
///
/// # Invariants
///
/// `dst` is a `struct rtable` or a `struct rt6_info`, as the family of `choice` says, and we own
/// one reference on it.
#[repr(C)]
pub(crate) struct Dst {
    dst: NonNull<bindings::dst_entry>,
    /// See [`Self::genid`]. Read before the last lookup that chose the route, or later.
    genid: Atomic<u32>,
    choice: Choice,
}

/// How the kernel chose a route.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(in crate::kapi) struct Choice {
    /// The packet's hash, if it decided about the nexthop, else 0.
    pub(in crate::kapi) path_hash: u16,
    /// `NFZR_MULTIPATH`, `NFZR_ANY_DSCP` and `NFZR_EXPIRES`.
    pub(in crate::kapi) flags: u8,
    /// The family of the lookup.
    pub(in crate::kapi) family: Family,
}

static_assert!(size_of::<Dst>() == size_of::<bindings::nfzr_cached>());
static_assert!(offset_of!(Dst, dst) == offset_of!(bindings::nfzr_cached, dst));
static_assert!(offset_of!(Dst, genid) == offset_of!(bindings::nfzr_cached, genid));
static_assert!(offset_of!(Dst, choice.path_hash) == offset_of!(bindings::nfzr_cached, path_hash));
static_assert!(offset_of!(Dst, choice.flags) == offset_of!(bindings::nfzr_cached, flags));
static_assert!(offset_of!(Dst, choice.family) == offset_of!(bindings::nfzr_cached, family));

// SAFETY: A `struct dst_entry` is used by all CPUs, and the operations used here allow that.
unsafe impl Send for Dst {}
// SAFETY: As above.
unsafe impl Sync for Dst {}

impl Dst {
    /// # Safety
    ///
    /// `dst` is a route that was chosen as `choice` says, on which the caller hands over a
    /// reference.
    pub(in crate::kapi) unsafe fn from_raw(
        dst: NonNull<bindings::dst_entry>,
        choice: Choice,
        genid: u32,
    ) -> Self {
        let genid = Atomic::new(genid);
        // INVARIANT: By the function's requirement.
        Self { dst, choice, genid }
    }

    /// Returns another reference on the route, or `None` if the kernel frees it. Any context.
    pub(crate) fn duplicate(&self, _rcu: &ReadSide<'_>) -> Option<Self> {
        // Read before the reference is taken, and so before the route may become another's.
        let genid = self.genid();
        // SAFETY: By the type invariant `dst` is a route.
        let is_held = unsafe { bindings::nfzr_helper_dst_hold(self.as_raw()) };
        // SAFETY: A reference was taken above.
        is_held.then(|| unsafe { Self::from_raw(self.dst, self.choice, genid) })
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::dst_entry {
        self.dst.as_ptr()
    }

    /// Returns the family of the route.
    pub(crate) fn family(&self) -> Family {
        self.choice.family
    }

    pub(in crate::kapi) fn choice(&self) -> Choice {
        self.choice
    }

    /// Returns the genid of the netns, for the route's family, up to which no change can have
    /// changed the choice of the route.
    pub(crate) fn genid(&self) -> u32 {
        self.genid.read_once()
    }

    /// Notes that no change until `genid` can have changed the choice of the route.
    pub(crate) fn set_genid(&self, genid: u32) {
        self.genid.store(genid, Relaxed);
    }

    /// Returns the route as the helpers take it.
    pub(in crate::kapi) fn as_cached(&self) -> *const bindings::nfzr_cached {
        // CAST: The layouts are equal, as asserted above.
        ptr::from_ref(self).cast()
    }

    /// Returns whether a packet with this hash would be given the same nexthop.
    #[inline(always)]
    pub(crate) fn suits(&self, path_hash: u16) -> bool {
        self.choice.path_hash == 0 || self.choice.path_hash == path_hash
    }

    /// Returns whether the kernel would choose the route for packets with every other DSCP, too.
    pub(crate) fn is_for_any_dscp(&self) -> bool {
        u32::from(self.choice.flags) & bindings::NFZR_ANY_DSCP != 0
    }

    /// Returns whether the kernel still considers the route valid: `dst_check()`.
    pub(crate) fn is_valid(&self, _rcu: &ReadSide<'_>) -> bool {
        // SAFETY: By the type invariant this is a cached route, and this is under RCU.
        unsafe { bindings::nfzr_helper_dst_valid(self.as_cached()) }
    }

    /// Returns the gateway, or `None` if the destination is on link.
    pub(crate) fn gateway(&self) -> Option<Addr> {
        let mut gateway = [0; 16];
        let to = gateway.as_mut_ptr();
        // SAFETY: By the type invariant `dst` is a route. A redirect may change the gateway of a
        // route with a learned MTU meanwhile, so that what is printed is part old and part new.
        let family = unsafe { bindings::nfzr_helper_dst_gateway(self.as_raw(), to) };
        (family != 0).then(|| Addr::new(family, gateway))
    }
}

impl Net {
    /// Returns the genid of IPv4, which the kernel bumps when routes may have changed. Any context.
    pub(crate) fn genid4(&self) -> u32 {
        // SAFETY: A `&Net` is valid.
        unsafe { bindings::nfzr_helper_genid4(self.as_raw()) }
    }
}

impl Drop for Dst {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own this reference.
        unsafe { bindings::nfzr_helper_dst_put(self.as_raw()) };
    }
}

/// Identity of a packet's route, only for comparison with a [`Dst`].
#[derive(Clone, Copy)]
pub(crate) struct DstId(pub(in crate::kapi) *const bindings::dst_entry);

impl PartialEq<Dst> for DstId {
    fn eq(&self, other: &Dst) -> bool {
        core::ptr::eq(self.0, other.as_raw())
    }
}
