// SPDX-License-Identifier: GPL-2.0

//! Counts of objects that exist, which no two CPUs write to the same cache line.

use core::{mem::size_of, ptr::NonNull};

use kernel::{
    prelude::*,
    sync::barrier::{smp_mb, Read}, //
};

use crate::bindings;

/// The places of both counts of a CPU.
const MADE: usize = 0;
const DROPPED: usize = 1;

/// Counts the [`Held`] that exist: each CPU counts those that it made, and those that it dropped.
///
/// # Invariants
///
/// `base` is a per-CPU allocation of two `u64`. It is not freed while a `Held` of it exists.
pub(crate) struct HeldCount {
    base: NonNull<u64>,
}

// SAFETY: Per-CPU memory is made for use by all CPUs, each writing its own part.
unsafe impl Send for HeldCount {}
// SAFETY: As above; other CPUs read by `READ_ONCE()`.
unsafe impl Sync for HeldCount {}

impl HeldCount {
    /// Creates a count of 0. Process context.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The allocation has no requirements but process context.
        let base = unsafe { bindings::nfzr_helper_percpu_alloc(2 * size_of::<u64>()) };
        // INVARIANT: Allocated above with that size.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Counts one more, until the result is dropped. Any context.
    pub(crate) fn hold(&self) -> Held {
        // SAFETY: By the type invariant.
        unsafe { bindings::nfzr_helper_percpu_add(self.base.as_ptr(), MADE, 1) };
        // INVARIANT: By the type invariant.
        Held(self.base)
    }

    /// Returns how many exist. Those that are made or dropped meanwhile may or may not count. Any
    /// context.
    pub(crate) fn count(&self) -> u64 {
        let sum = |place| {
            // SAFETY: By the type invariant.
            unsafe { bindings::nfzr_helper_percpu_sum(self.base.as_ptr(), place) }
        };
        // ORDERING: If one is seen dropped, it is seen made, because the sum of those that were
        // made is read later. So those that exist all the time count.
        let dropped = sum(DROPPED);
        smp_mb(Read);
        sum(MADE).wrapping_sub(dropped)
    }
}

impl Drop for HeldCount {
    fn drop(&mut self) {
        // If some still exist, which would be a bug, their memory is not freed.
        if self.count() == 0 {
            // SAFETY: Allocated in `new`, and no `Held` exists that could use it.
            unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
        }
    }
}

/// One that counts in a [`HeldCount`] until it is dropped.
///
/// # Invariants
///
/// `0` is the `base` of a `HeldCount`, and not freed.
pub(crate) struct Held(NonNull<u64>);

// SAFETY: Each CPU writes its own part.
unsafe impl Send for Held {}
// SAFETY: A shared reference allows no operation.
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::nfzr_helper_percpu_add(self.0.as_ptr(), DROPPED, 1) };
    }
}
