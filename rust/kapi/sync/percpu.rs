// SPDX-License-Identifier: GPL-2.0

//! Per-CPU event counters, and per-CPU slots for one value.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use core::{
    marker::PhantomData,
    mem::{size_of, MaybeUninit},
    ptr::NonNull, //
};

use kernel::prelude::*;

use crate::bindings;

/// A set of counters named by an enum.
pub(crate) trait CounterSet: Copy {
    /// The number of counters.
    const COUNT: usize;

    /// Returns the counter's index.
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

// SAFETY: Per-CPU memory is made for use by all CPUs, each accessing its own part.
unsafe impl<S> Send for Counters<S> {}
// SAFETY: As above; each CPU writes its own part, and `sum` reads by `READ_ONCE()`.
unsafe impl<S> Sync for Counters<S> {}

impl<S: CounterSet> Counters<S> {
    /// Allocates the counters, all zero. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = S::COUNT.checked_mul(size_of::<u64>()).ok_or(EOVERFLOW)?;
        // SAFETY: The allocation has no requirements but process context.
        let base = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Allocated above with that size.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            _set: PhantomData,
        })
    }

    /// Counts one event on this CPU. Any context.
    pub(crate) fn inc(&self, counter: S) {
        self.add(counter, 1);
    }

    /// Counts `events` events on this CPU. Any context.
    pub(crate) fn add(&self, counter: S, events: u64) {
        let index = counter.index();
        if index < S::COUNT {
            // SAFETY: By the type invariant `base` has an element at `index`.
            unsafe { bindings::nfzr_helper_percpu_add(self.base.as_ptr(), index, events) };
        }
    }

    /// Returns a counter, for a helper that increments it.
    #[inline(always)]
    pub(crate) fn one(&self, counter: S) -> OneCounter<'_> {
        let last = S::COUNT.saturating_sub(1);
        // SAFETY: By the type invariant `base` has an element at this index.
        let at = unsafe { self.base.add(counter.index().min(last)) };
        // INVARIANT: `at` is in the allocation, which lives as long as `self`.
        OneCounter {
            at,
            _counters: PhantomData,
        }
    }

    /// Returns the sum over all CPUs. It is exact if no CPU counts meanwhile.
    pub(crate) fn sum(&self, counter: S) -> u64 {
        let index = counter.index();
        if index >= S::COUNT {
            return 0;
        }
        // SAFETY: By the type invariant `base` has an element at `index`.
        unsafe { bindings::nfzr_helper_percpu_sum(self.base.as_ptr(), index) }
    }
}

/// One counter of [`Counters`].
///
/// # Invariants
///
/// `at` is a per-CPU `u64` for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct OneCounter<'a> {
    at: NonNull<u64>,
    _counters: PhantomData<&'a ()>,
}

impl OneCounter<'_> {
    /// Returns the counter as the helpers take it.
    pub(in crate::kapi) fn as_raw(self) -> *mut u64 {
        self.at.as_ptr()
    }
}

impl<S> Drop for Counters<S> {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`; this is the only owner.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}

/// A [`PerCpuCell`]'s slot on one CPU; all zero is empty.
#[repr(C)]
struct PerCpuSlot<T> {
    full: bool,
    value: MaybeUninit<T>,
}

/// A slot for one value on each CPU. It passes a value between two hooks that a packet traverses
/// one after the other on the same CPU.
///
/// # Invariants
///
/// `base` is a per-CPU allocation of [`PerCpuSlot<T>`]. Each place that is full holds a value.
pub(crate) struct PerCpuCell<T: Copy> {
    base: NonNull<PerCpuSlot<T>>,
}

// SAFETY: Per-CPU memory is made for use by all CPUs, each accessing its own part.
unsafe impl<T: Copy + Send> Send for PerCpuCell<T> {}
// SAFETY: As above.
unsafe impl<T: Copy + Send> Sync for PerCpuCell<T> {}

impl<T: Copy> PerCpuCell<T> {
    /// Allocates an empty cell. Process context.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The allocation needs process context only; it is zeroed and has a `u64`'s
        // alignment.
        let base = unsafe { bindings::nfzr_helper_percpu_alloc(size_of::<PerCpuSlot<T>>()) };
        const { assert!(core::mem::align_of::<PerCpuSlot<T>>() <= core::mem::align_of::<u64>()) };
        // INVARIANT: Allocated above with that size; all zero is empty.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Exchanges this CPU's value for `new`. Any context but hard interrupts.
    pub(crate) fn replace(&self, new: Option<T>) -> Option<T> {
        let mut place = PerCpuSlot {
            full: new.is_some(),
            value: new.map_or_else(MaybeUninit::uninit, MaybeUninit::new),
        };
        // SAFETY: By the type invariant; both have the size of a `PerCpuSlot<T>`. Bottom halves are
        // off meanwhile and hard interrupts do not call this, so nothing else uses this CPU's
        // place.
        unsafe {
            bindings::nfzr_helper_percpu_exchange(
                self.base.as_ptr().cast(),
                core::ptr::from_mut(&mut place).cast(),
                size_of::<PerCpuSlot<T>>(),
            )
        };
        // SAFETY: By the type invariant a full place holds a value.
        place.full.then(|| unsafe { place.value.assume_init() })
    }
}

impl<T: Copy> Drop for PerCpuCell<T> {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`; this is the only owner.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}
