// SPDX-License-Identifier: GPL-2.0

//! Connections that may be reused at any moment: what can be read in them without a reference.

use core::marker::PhantomData;

use crate::{
    bindings,
    kapi::{
        net::family::Family,
        nf::{
            conn::{ConnId, Dir},
            tuple::Tuple, //
        },
    },
};

/// A `struct nf_conn` on which no reference is held. Conntrack may free it and use its memory for
/// another connection at any moment, so the values that are read may be of different connections.
///
/// Only what lies in the `struct nf_conn` itself is read: no extension, no lock, no pointer.
///
/// # Invariants
///
/// `ct` was a connection in this read-side critical section, which lasts for `'r`. Its memory is
/// that of some connection until then, because its slab is `SLAB_TYPESAFE_BY_RCU`.
pub(crate) struct ConnPeek<'r> {
    ct: *mut bindings::nf_conn,
    _rcu: PhantomData<&'r ()>,
}

impl<'r> ConnPeek<'r> {
    /// # Safety
    ///
    /// `ct` was a connection in this read-side critical section, which lasts for `'r`.
    #[inline(always)]
    pub(in crate::kapi) unsafe fn from_raw(ct: *mut bindings::nf_conn) -> Self {
        // INVARIANT: By the function's requirement.
        Self {
            ct,
            _rcu: PhantomData,
        }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::nf_conn {
        self.ct
    }

    /// Returns the identity of the connection, for comparison only.
    pub(crate) fn id(&self) -> ConnId {
        ConnId::of_raw(self.ct)
    }

    /// Returns whether the connection is dying or expired.
    #[inline(always)]
    pub(crate) fn is_gone(&self) -> bool {
        // SAFETY: By the type invariant; the helper reads the status and the timeout.
        unsafe { bindings::nfzr_helper_ct_gone(self.ct) }
    }

    /// Returns whether the connection is assured.
    pub(crate) fn is_assured(&self) -> bool {
        // SAFETY: By the type invariant; the helper reads the status.
        unsafe { bindings::nfzr_helper_ct_assured(self.ct) }
    }

    /// Returns the family of the connection's packets.
    pub(crate) fn family(&self) -> Family {
        // SAFETY: By the type invariant; the helper reads a tuple.
        Family::of_ipv6(unsafe { bindings::nfzr_helper_ct_is_ipv6(self.ct) })
    }

    /// Returns a copy of a direction's tuple.
    pub(crate) fn tuple(&self, dir: Dir) -> Tuple {
        // SAFETY: By the type invariant; the helper reads the tuple and the zone.
        unsafe { Tuple::read(self.ct, dir) }
    }
}
