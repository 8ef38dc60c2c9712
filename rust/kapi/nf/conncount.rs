// SPDX-License-Identifier: GPL-2.0

//! Connection counts, kept by the kernel's `nf_conncount`.
//!
//! C header: [`include/net/netfilter/nf_conntrack_count.h`](srctree/include/net/netfilter/nf_conntrack_count.h)

use kernel::{
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::nf::{
        hook::State,
        packet::SkBuff, //
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

/// A count of a netns' connections, without dead ones once they are collected. It must be dropped
/// before the netns is freed.
#[pin_data(PinnedDrop)]
pub(crate) struct Count {
    #[pin]
    raw: Opaque<bindings::nfzr_conncount>,
}

// SAFETY: The C side does its own locking.
unsafe impl Send for Count {}
// SAFETY: As above.
unsafe impl Sync for Count {}

impl Count {
    /// Creates an empty count, sized for about `max` connections. Process context.
    pub(crate) fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(move |slot| {
                // SAFETY: `slot` is pinned and valid for the struct.
                unsafe { bindings::nfzr_helper_conncount_init(slot, max) }
                    .then_some(())
                    .ok_or(ENOMEM)
            }),
        })
    }

    /// Returns whether counting stays efficient with `max` connections.
    pub(crate) fn fits(&self, max: u32) -> bool {
        // SAFETY: `raw` was initialised by `new`.
        unsafe { bindings::nfzr_helper_conncount_fits(self.raw.get(), max) }
    }

    /// Counts the packet's new connection, unless `max` are counted already. The packet must have a
    /// connection. Does not sleep.
    pub(crate) fn add(&self, skb: &SkBuff, state: &State<'_>, max: u32) -> Result<(), NotCounted> {
        // SAFETY: `raw` was initialised by `new`; `state` is that of the hook that `skb` is in,
        // under RCU.
        let err = unsafe {
            bindings::nfzr_helper_conncount_add(self.raw.get(), skb.as_raw(), state.as_raw(), max)
        };
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
        // SAFETY: `raw` was initialised by `new`. By the type's contract the netns is not freed
        // yet.
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
