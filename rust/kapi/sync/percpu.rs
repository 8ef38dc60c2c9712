// SPDX-License-Identifier: GPL-2.0

//! Per-CPU event counters, and places for one value on each CPU.
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
        self.add(counter, 1);
    }

    /// Counts events on this CPU. Any context.
    pub(crate) fn add(&self, counter: S, events: u64) {
        let index = counter.index();
        if index < S::COUNT {
            // SAFETY: By the type invariant `base` has this index.
            unsafe { bindings::nfzr_helper_percpu_add(self.base.as_ptr(), index, events) };
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

/// What a [`Cell`] has on each CPU; all zero is empty.
#[repr(C)]
struct Place<T> {
    full: bool,
    value: MaybeUninit<T>,
}

/// A place for one value on each CPU. For what two hooks of a packet tell each other, one after the
/// other on the same CPU.
///
/// # Invariants
///
/// `base` is a per-CPU allocation of a [`Place<T>`], each of which holds a value if it is full.
pub(crate) struct Cell<T: Copy> {
    base: NonNull<Place<T>>,
}

// SAFETY: Per-CPU memory is made to be used by all CPUs, each its own part.
unsafe impl<T: Copy + Send> Send for Cell<T> {}
// SAFETY: As above.
unsafe impl<T: Copy + Send> Sync for Cell<T> {}

impl<T: Copy> Cell<T> {
    /// Empty. Process context.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: A plain allocation, of zeroes; the alignment is that of a `u64` at the least.
        let base = unsafe { bindings::nfzr_helper_percpu_alloc(size_of::<Place<T>>()) };
        const { assert!(core::mem::align_of::<Place<T>>() <= core::mem::align_of::<u64>()) };
        // INVARIANT: Just allocated with that size; all zero is empty.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Exchanges what this CPU has. Any context but hard interrupts.
    pub(crate) fn replace(&self, new: Option<T>) -> Option<T> {
        let mut place = Place {
            full: new.is_some(),
            value: new.map_or_else(MaybeUninit::uninit, MaybeUninit::new),
        };
        // SAFETY: By the type invariant; both have the size of a `Place<T>`. Bottom halves are off
        // meanwhile and no hard interrupt comes here, so nobody else is at this CPU's place.
        unsafe {
            bindings::nfzr_helper_percpu_exchange(
                self.base.as_ptr().cast(),
                core::ptr::from_mut(&mut place).cast(),
                size_of::<Place<T>>(),
            )
        };
        // SAFETY: By the type invariant.
        place.full.then(|| unsafe { place.value.assume_init() })
    }

    /// Empties it on all CPUs, while nobody uses it.
    pub(crate) fn clear(&self) {
        // SAFETY: By the type invariant; all zero is empty, whatever is torn.
        unsafe {
            bindings::nfzr_helper_percpu_clear(self.base.as_ptr().cast(), size_of::<Place<T>>())
        };
    }
}

impl<T: Copy> Drop for Cell<T> {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`; this is the only owner.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}
