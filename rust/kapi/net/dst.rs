// SPDX-License-Identifier: GPL-2.0

//! Routes: `struct dst_entry`, with the reference that keeps one.
//!
//! C header: [`include/net/dst.h`](srctree/include/net/dst.h)

use core::ptr::NonNull;

use crate::{
    bindings,
    kapi::{
        nf::conn::Addr,
        sync::rcu::ReadSide, //
    },
};

/// A reference on a route.
///
/// It keeps the route's memory, not its validity: the kernel may declare it obsolete at any time,
/// which is what [`Dst::is_valid`] asks.
///
/// # Invariants
///
/// `dst` is a `struct rtable`'s or a `struct rt6_info`'s, and one reference on it is ours.
pub(crate) struct Dst {
    dst: NonNull<bindings::dst_entry>,
    cookie: u32,
    multipath: bool,
}

// SAFETY: A `struct dst_entry` is used by all CPUs; what is done with it here is made for that.
unsafe impl Send for Dst {}
// SAFETY: As above.
unsafe impl Sync for Dst {}

impl Dst {
    /// # Safety
    ///
    /// `dst` is a route, a reference on it is the caller's to give, and `cookie` was read right after
    /// a lookup that chose it. `multipath`: the lookup set `IPSKB_MULTIPATH` or `IP6SKB_MULTIPATH`.
    pub(in crate::kapi) unsafe fn from_raw(
        dst: NonNull<bindings::dst_entry>,
        cookie: u32,
        multipath: bool,
    ) -> Self {
        // INVARIANT: By the function's requirement.
        Self {
            dst,
            cookie,
            multipath,
        }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::dst_entry {
        self.dst.as_ptr()
    }

    pub(in crate::kapi) fn cookie(&self) -> u32 {
        self.cookie
    }

    pub(in crate::kapi) fn multipath(&self) -> bool {
        self.multipath
    }

    /// Whether the kernel still holds the route for valid: `dst_check()`.
    pub(crate) fn is_valid(&self, _rcu: &ReadSide<'_>) -> bool {
        // SAFETY: By the type invariant, and under RCU.
        unsafe { bindings::nfzr_helper_dst_valid(self.as_raw(), self.cookie) }
    }

    /// The gateway, unless the destination is on link.
    pub(crate) fn gateway(&self) -> Option<Addr> {
        let mut gateway = [0; 16];
        let to = gateway.as_mut_ptr();
        // SAFETY: By the type invariant; a route's gateway does not change once it is published.
        let family = unsafe { bindings::nfzr_helper_dst_gateway(self.as_raw(), to) };
        (family != 0).then(|| Addr::new(family, gateway))
    }
}

impl Drop for Dst {
    fn drop(&mut self) {
        // SAFETY: Our reference, by the type invariant.
        unsafe { bindings::nfzr_helper_dst_put(self.as_raw()) };
    }
}

/// A route that a packet has, to be compared with a [`Dst`] and for nothing else.
#[derive(Clone, Copy)]
pub(crate) struct DstId(pub(in crate::kapi) *const bindings::dst_entry);

impl PartialEq<Dst> for DstId {
    fn eq(&self, other: &Dst) -> bool {
        core::ptr::eq(self.0, other.as_raw())
    }
}
