// SPDX-License-Identifier: GPL-2.0

//! The packets of each CPU that have something to commit.
//!
//! The hooks of a packet usually run one after another on one CPU. An early hook can so tell a late
//! one what to do, and most packets cost the late one next to nothing. A packet that was queued to
//! userspace may continue on another CPU, so it is always taken for a noted one. The answers are
//! hints: another packet may have been at the same address before.

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
/// `slots` is a per-CPU allocation of `struct nfzr_pending`.
pub(crate) struct Pending {
    slots: NonNull<bindings::nfzr_pending>,
}

// SAFETY: Per-CPU memory may be used by all CPUs, and each CPU accesses only its own part.
unsafe impl Send for Pending {}
// SAFETY: As above.
unsafe impl Sync for Pending {}

impl Pending {
    /// Creates empty sets. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = size_of::<bindings::nfzr_pending>();
        // SAFETY: A plain allocation of zeroes, aligned for a `u64` and so for pointers.
        let slots = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Just allocated.
        Ok(Self {
            slots: NonNull::new(slots.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Notes that a packet has something to commit. Any context.
    #[inline]
    pub(crate) fn note<P>(&self, skb: &HookSkb<'_, P>) {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_pending_note(self.slots.as_ptr(), skb.as_raw()) };
    }

    /// Forgets a packet. Any context.
    pub(crate) fn forget<P>(&self, skb: &HookSkb<'_, P>) {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_pending_forget(self.slots.as_ptr(), skb.as_raw()) };
    }

    /// Returns whether this CPU noted the packet, or an earlier one at its address. Any context.
    pub(crate) fn is_noted<P>(&self, skb: &HookSkb<'_, P>) -> bool {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_is_noted(self.slots.as_ptr(), skb.as_raw()) }
    }

    /// Returns whether the packet may have something to commit: [`Self::is_noted`], or another CPU
    /// may have noted it. Any context.
    #[inline]
    pub(crate) fn has<P>(&self, skb: &HookSkb<'_, P>) -> bool {
        // SAFETY: By the type invariant; the packet's address is only compared.
        unsafe { bindings::nfzr_helper_is_pending(self.slots.as_ptr(), skb.as_raw()) }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`, and this is the only owner.
        unsafe { bindings::free_percpu(self.slots.as_ptr().cast()) };
    }
}
