// SPDX-License-Identifier: GPL-2.0

//! The addresses for which routing looks up a connection's packets.

use crate::{
    bindings,
    kapi::{
        net::prefix::Ends,
        nf::{
            conn::{Conn, CtRef, Dir},
            peek::ConnPeek, //
        },
    },
};

/// # Safety
///
/// The memory of `ct` is a `struct nf_conn` during the call.
unsafe fn read(ct: *const bindings::nf_conn, dir: Dir) -> Ends {
    let mut raw = bindings::nfzr_ends::default();
    // SAFETY: By the function's requirement.
    unsafe { bindings::nfzr_helper_ct_ends(ct, dir.as_raw(), &mut raw) };
    Ends {
        to: raw.to,
        from: raw.from,
    }
}

impl Conn {
    /// Returns the addresses of a direction. The connection is one of IPv4, or they mean nothing.
    pub(crate) fn ends(&self, dir: Dir) -> Ends {
        // SAFETY: A `&Conn` is valid.
        unsafe { read(self.as_raw(), dir) }
    }
}

impl CtRef<'_> {
    /// Returns the addresses of the packet's direction. The connection is one of IPv4, or they mean
    /// nothing.
    pub(crate) fn ends(&self) -> Ends {
        // SAFETY: The connection is the packet's.
        unsafe { read(self.conn().as_raw(), self.dir()) }
    }
}

impl ConnPeek<'_> {
    /// Returns the addresses of a direction. The connection is one of IPv4, or they mean nothing.
    pub(crate) fn ends(&self, dir: Dir) -> Ends {
        // SAFETY: By the type invariant; the helper reads the tuples.
        unsafe { read(self.as_raw(), dir) }
    }
}
