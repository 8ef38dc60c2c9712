// SPDX-License-Identifier: GPL-2.0

//! Counts of connections, by the kernel's `nf_conncount`.
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

/// Why a connection is not counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCounted {
    /// There are as many as may be.
    Full,
    /// No memory.
    Memory,
}

/// A count of a netns' connections, which forgets those that are gone. It must go before the netns.
#[pin_data(PinnedDrop)]
pub(crate) struct Count {
    #[pin]
    raw: Opaque<bindings::nfzr_conncount>,
}

// SAFETY: The C side locks.
unsafe impl Send for Count {}
// SAFETY: As above.
unsafe impl Sync for Count {}

impl Count {
    /// None yet; made for about `max`. Process context.
    pub(crate) fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(move |slot| {
                // SAFETY: `slot` is valid for the struct, and pinned.
                unsafe { bindings::nfzr_helper_conncount_init(slot, max) }
                    .then_some(())
                    .ok_or(ENOMEM)
            }),
        })
    }

    /// Whether counting goes well with as many as `max`.
    pub(crate) fn fits(&self, max: u32) -> bool {
        // SAFETY: Initialised.
        unsafe { bindings::nfzr_helper_conncount_fits(self.raw.get(), max) }
    }

    /// Counts the packet's new connection, unless there are `max`. The packet must have one. Does not
    /// sleep.
    pub(crate) fn add(&self, skb: &SkBuff, state: &State<'_>, max: u32) -> Result<(), NotCounted> {
        // SAFETY: Initialised; the packet is in this hook, with this state, under RCU.
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

    /// How many there are, some of which may be gone. Any context.
    pub(crate) fn count(&self) -> u32 {
        // SAFETY: Initialised.
        unsafe { bindings::nfzr_helper_conncount_count(self.raw.get()) }
    }

    /// Forgets those that are gone. Process context; lets others run.
    pub(crate) fn collect(&self) {
        // SAFETY: Initialised. What counts connections of a netns goes before the netns does.
        unsafe { bindings::nfzr_helper_conncount_collect(self.raw.get()) }
    }
}

#[pinned_drop]
impl PinnedDrop for Count {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, and nobody uses it any more.
        unsafe { bindings::nfzr_helper_conncount_free(self.raw.get()) };
    }
}
