// SPDX-License-Identifier: GPL-2.0

//! Per-CPU event counters.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use core::{
    marker::PhantomData,
    mem::size_of,
    ptr::NonNull, //
};

use kernel::prelude::*;

use crate::bindings;

/// A set of counters named by an enum.
pub(crate) trait CounterSet: Copy {
    /// How many there are.
    const COUNT: usize;

    /// The counter's number.
    fn index(self) -> usize;
}

/// A `u64` for each counter of `S` on each CPU.
///
/// # Invariants
///
/// `base` is a per-CPU allocation of [`CounterSet::COUNT`] times `u64`.
pub(crate) struct Counters<S> {
    base: NonNull<u64>,
    _set: PhantomData<fn(S)>,
}

// SAFETY: Per-CPU memory is made to be used by all CPUs, each its own part.
unsafe impl<S> Send for Counters<S> {}
// SAFETY: As above; each CPU writes its own part, and a sum reads by `READ_ONCE()`.
unsafe impl<S> Sync for Counters<S> {}

impl<S: CounterSet> Counters<S> {
    /// All zero. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = S::COUNT.checked_mul(size_of::<u64>()).ok_or(EOVERFLOW)?;
        // SAFETY: A plain allocation.
        let base = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Just allocated with that size.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            _set: PhantomData,
        })
    }

    /// Counts one event on this CPU. Any context.
    pub(crate) fn inc(&self, counter: S) {
        let index = counter.index();
        if index < S::COUNT {
            // SAFETY: By the type invariant `base` has this index.
            unsafe { bindings::nfzr_helper_percpu_inc(self.base.as_ptr(), index) };
        }
    }

    /// The sum over all CPUs; exact when nothing counts meanwhile.
    pub(crate) fn sum(&self, counter: S) -> u64 {
        let index = counter.index();
        if index >= S::COUNT {
            return 0;
        }
        // SAFETY: By the type invariant `base` has this index.
        unsafe { bindings::nfzr_helper_percpu_sum(self.base.as_ptr(), index) }
    }
}

impl<S> Drop for Counters<S> {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`; this is the only owner.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}
