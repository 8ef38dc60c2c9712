// SPDX-License-Identifier: GPL-2.0

//! The packets that each CPU served.
//!
//! The hooks of a packet usually run one after another on one CPU. A later hook can so skip packets
//! that an earlier one served. An answer is a hint, because another packet may have been at the
//! same address before.

use core::{mem::size_of, ptr::NonNull};

use kernel::prelude::*;

use crate::{
    bindings,
    kapi::nf::skb::HookSkb, //
};

/// A small hashed set of packets on each CPU.
///
/// # Invariants
///
/// `slots` is a per-CPU allocation of `struct nfzr_served`.
pub(crate) struct Served {
    slots: NonNull<bindings::nfzr_served>,
}

// SAFETY: Per-CPU memory may be used by all CPUs, and each CPU accesses only its own part.
unsafe impl Send for Served {}
// SAFETY: As above.
unsafe impl Sync for Served {}

impl Served {
    /// Creates empty sets. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = size_of::<bindings::nfzr_served>();
        // SAFETY: A plain allocation of zeroes, aligned for a `u64` and so for pointers.
        let slots = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Just allocated.
        Ok(Self {
            slots: NonNull::new(slots.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Notes that this CPU did not serve a packet. Any context.
    #[inline]
    pub(crate) fn forget<P>(&self, skb: &HookSkb<'_, P>) {
        self.note(skb, false);
    }

    /// Notes whether this CPU served a packet. Any context.
    #[inline]
    pub(crate) fn note<P>(&self, skb: &HookSkb<'_, P>, is_served: bool) {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_served_note(self.slots.as_ptr(), skb.as_raw(), is_served) };
    }

    /// Returns whether this CPU served the packet, or an earlier one at its address. Any context.
    #[inline]
    pub(crate) fn is_served<P>(&self, skb: &HookSkb<'_, P>) -> bool {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_is_served(self.slots.as_ptr(), skb.as_raw()) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`, and this is the only owner.
        unsafe { bindings::free_percpu(self.slots.as_ptr().cast()) };
    }
}
