// SPDX-License-Identifier: GPL-2.0

//! Connection counts, kept by the kernel's `nf_conncount`.
//!
//! C header: [`nf_conntrack_count.h`](srctree/include/net/netfilter/nf_conntrack_count.h)

use kernel::{
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        net::netns::NetHandle,
        nf::{conn::CtRef, skb::HookSkb}, //
    },
};

/// Reason that a connection is not counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCounted {
    /// The limit is reached.
    Full,
    /// No memory is available.
    Memory,
}

/// A count of a netns' connections, without dead ones once they are collected.
#[pin_data(PinnedDrop)]
pub(crate) struct Count {
    #[pin]
    raw: Opaque<bindings::nfzr_conncount>,
    /// `raw` points to the netns too.
    _net: NetHandle,
}

// SAFETY: The C side does its own locking.
unsafe impl Send for Count {}
// SAFETY: As above.
unsafe impl Sync for Count {}

impl Count {
    /// Creates an empty count of a netns, sized for about `max` connections. Process context.
    pub(crate) fn new(net: NetHandle, max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(move |slot| {
                // SAFETY: `slot` is pinned and valid for the struct.
                unsafe { bindings::nfzr_helper_conncount_init(slot, net.as_raw(), max) }
                    .then_some(())
                    .ok_or(ENOMEM)
            }),
            _net: net,
        })
    }

    /// Returns whether counting stays efficient with `max` connections.
    pub(crate) fn fits(&self, max: u32) -> bool {
        // SAFETY: `raw` was initialised by `new`.
        unsafe { bindings::nfzr_helper_conncount_fits(self.raw.get(), max) }
    }

    /// Counts a packet's new connection, unless `max` are counted already. Does not sleep.
    pub(crate) fn add<P>(
        &self,
        skb: &HookSkb<'_, P>,
        ct: &CtRef<'_>,
        max: u32,
    ) -> Result<(), NotCounted> {
        let (raw, skb, ct) = (self.raw.get(), skb.as_raw(), ct.conn().as_raw());
        // SAFETY: `raw` was initialised by `new`; the packet and its connection are in a hook,
        // under RCU.
        let err = unsafe { bindings::nfzr_helper_conncount_add(raw, skb, ct, max) };
        if err == 0 {
            Ok(())
        } else if err == ENOMEM.to_errno() {
            Err(NotCounted::Memory)
        } else {
            Err(NotCounted::Full)
        }
    }

    /// Returns the count, which may include dead connections. Any context.
    pub(crate) fn count(&self) -> u32 {
        // SAFETY: `raw` was initialised by `new`.
        unsafe { bindings::nfzr_helper_conncount_count(self.raw.get()) }
    }

    /// Drops dead connections from the count. Process context; lets other tasks run.
    pub(crate) fn collect(&self) {
        // SAFETY: `raw` was initialised by `new`, and its netns outlives our handle.
        unsafe { bindings::nfzr_helper_conncount_collect(self.raw.get()) }
    }
}

#[pinned_drop]
impl PinnedDrop for Count {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `raw` was initialised by `new`, and `&mut self` excludes other users.
        unsafe { bindings::nfzr_helper_conncount_free(self.raw.get()) };
    }
}
