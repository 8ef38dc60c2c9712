// SPDX-License-Identifier: GPL-2.0

//! Routes for tests.

use core::{marker::PhantomData, ptr::NonNull};

use kernel::prelude::*;

use crate::{
    bindings,
    kapi::{
        net::{
            dst::{Choice, Dst, DstId},
            family::Family, //
        },
        nf::packet::{Chosen, Route}, //
    },
};

/// A route, with a reference that the test holds.
pub(crate) struct TestDst(NonNull<bindings::dst_entry>);

impl TestDst {
    /// Allocates a route over the loopback device, through `gateway` if given.
    pub(crate) fn new(gateway: Option<[u8; 4]>) -> Result<Self> {
        let gateway = u32::from_ne_bytes(gateway.unwrap_or_default());
        // SAFETY: No requirements.
        let dst = unsafe { bindings::nfzr_kunit_dst(gateway) };
        Ok(Self(NonNull::new(dst).ok_or(ENOMEM)?))
    }

    /// Returns the number of references to it, including the test's.
    pub(crate) fn refs(&self) -> u32 {
        // SAFETY: Our reference keeps it valid.
        unsafe { bindings::nfzr_kunit_dst_refs(self.0.as_ptr()) }
    }

    /// Takes another reference, in the module's type.
    pub(crate) fn hold(&self) -> Dst {
        self.hold_by(0)
    }

    /// The same for a route that was chosen by a packet's hash.
    pub(crate) fn hold_by(&self, path_hash: u16) -> Dst {
        let choice = Choice {
            family: Family::Ipv4,
            path_hash,
            flags: u8::from(path_hash != 0),
        };
        // SAFETY: Our reference keeps it valid.
        unsafe { bindings::nfzr_kunit_dst_hold(self.0.as_ptr()) };
        // SAFETY: It is an IPv4 route, and the `Dst` gets the new reference.
        unsafe { Dst::from_raw(self.0, choice, 0) }
    }

    /// Returns it as the route that the kernel chose for a packet.
    pub(crate) fn route(&self, oif: u32) -> Route {
        Route {
            dst: self.hold(),
            oif,
        }
    }

    /// Returns it as the route that the kernel chose for a packet without keeping it.
    pub(crate) fn chosen(&self) -> Chosen<'_> {
        // INVARIANT: It is a route, and `self` keeps it.
        Chosen {
            dst: self.0,
            choice: self.hold().choice(),
            genid: 0,
            oif: 9,
            _skb: PhantomData,
        }
    }

    /// Returns its identity, as read from a packet.
    pub(crate) fn id(&self) -> DstId {
        DstId(self.0.as_ptr())
    }
}

impl Drop for TestDst {
    fn drop(&mut self) {
        // SAFETY: We own one reference, which this drops.
        unsafe { bindings::nfzr_helper_dst_put(self.0.as_ptr()) };
    }
}
