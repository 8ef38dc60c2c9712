// SPDX-License-Identifier: GPL-2.0

//! Sparse arrays of owned objects that are read under RCU, and numbers for who is put there.
//!
//! A packet comes to an object by its number several times. The `kernel` crate's `XArray` is read under
//! its lock, and the kernel's own by three calls; its generic radix tree is read by a few instructions.
//! What of it was ever used stays allocated until the array goes.
//!
//! C headers: [`include/linux/generic-radix-tree.h`](srctree/include/linux/generic-radix-tree.h),
//! [`include/linux/idr.h`](srctree/include/linux/idr.h)

use core::{
    marker::PhantomData,
    ptr::{self, NonNull}, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::sync::rcu::ReadSide, //
};

/// A radix tree of raw pointers, of which somebody else says what they point to.
#[pin_data(PinnedDrop)]
pub(in crate::kapi) struct RawArray {
    // All zero: empty.
    #[pin]
    tree: Opaque<bindings::__genradix>,
}

// SAFETY: Places are read and exchanged atomically, and nodes come in so and stay.
unsafe impl Send for RawArray {}
// SAFETY: As above.
unsafe impl Sync for RawArray {}

impl RawArray {
    pub(in crate::kapi) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            tree <- Opaque::zeroed(),
        })
    }

    /// What is at `index`, or null. Any context.
    pub(in crate::kapi) fn load(&self, index: u32) -> *mut c_void {
        // SAFETY: Initialised.
        unsafe { bindings::nfzr_helper_array_load(self.tree.get(), index) }
    }

    /// The first pointer at `from` or later, with its index. Any context.
    pub(in crate::kapi) fn next(&self, from: u32) -> Option<(u32, NonNull<c_void>)> {
        let (index, found) = self.scan(from, u32::MAX);
        Some((index, found?))
    }

    /// The same, if it is among so many places; else the index is where to go on, and `u32::MAX` says
    /// that there is nothing more. Any context.
    pub(in crate::kapi) fn scan(&self, from: u32, places: u32) -> (u32, Option<NonNull<c_void>>) {
        let (tree, mut index) = (self.tree.get(), from);
        // SAFETY: Initialised, and `index` is valid.
        let found = unsafe { bindings::nfzr_helper_array_next(tree, &mut index, places) };
        (index, NonNull::new(found))
    }

    /// Puts `entry` at `index` unless that is taken (`EBUSY`). Does not sleep.
    pub(in crate::kapi) fn insert(&self, index: u32, entry: NonNull<c_void>) -> Result {
        let (tree, entry) = (self.tree.get(), entry.as_ptr());
        // SAFETY: Initialised.
        to_result(unsafe { bindings::nfzr_helper_array_insert(tree, index, entry) })
    }

    /// Puts `entry` in the place of what is at `index`, where there must be something; that. Any
    /// context.
    fn replace(&self, index: u32, entry: NonNull<c_void>) -> *mut c_void {
        // SAFETY: Initialised.
        unsafe { bindings::nfzr_helper_array_replace(self.tree.get(), index, entry.as_ptr()) }
    }

    /// Takes what is at `index` out. Any context.
    pub(in crate::kapi) fn erase(&self, index: u32) -> *mut c_void {
        // SAFETY: Initialised.
        unsafe { bindings::nfzr_helper_array_replace(self.tree.get(), index, ptr::null_mut()) }
    }
}

#[pinned_drop]
impl PinnedDrop for RawArray {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, and nobody uses it any more.
        unsafe { bindings::nfzr_helper_array_free(self.tree.get()) };
    }
}

/// Numbers that are given out: `struct ida`. It finds the lowest one that is free, by going over those
/// that are not; so it is asked for the next one after the last that was given, up to the end of what it
/// keeps in one bitmap, and only then for the lowest. The highest is what there ever were at a time, and
/// less than a bitmap more.
#[pin_data(PinnedDrop)]
pub(in crate::kapi) struct Numbers {
    #[pin]
    ida: Opaque<bindings::ida>,
    /// Where to begin.
    next: Atomic<u32>,
}

// SAFETY: An IDA is made to be used by all CPUs, and locks.
unsafe impl Send for Numbers {}
// SAFETY: As above.
unsafe impl Sync for Numbers {}

impl Numbers {
    /// `IDA_BITMAP_BITS` - 1: the bits of a number's place in its bitmap.
    const BITMAP: u32 = 1023;

    pub(in crate::kapi) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            ida <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for a `struct ida`.
                unsafe { bindings::nfzr_helper_ida_init(slot) }
            }),
            next: Atomic::new(1),
        })
    }

    /// A number in 1..=`max`. Does not sleep.
    pub(in crate::kapi) fn take(&self, max: u32) -> Result<u32> {
        let next = self.next.load(Relaxed);
        let end = (next | Self::BITMAP).min(max);
        let number = self.take_of(next, end).or_else(|_| self.take_of(1, max))?;
        let last = number & Self::BITMAP == Self::BITMAP;
        let next = if last { 1 } else { number.wrapping_add(1) };
        self.next.store(next, Relaxed);
        Ok(number)
    }

    /// The lowest number that is free in `min..=max`.
    fn take_of(&self, min: u32, max: u32) -> Result<u32> {
        // SAFETY: Initialised.
        let number = unsafe { bindings::nfzr_helper_ida_alloc(self.ida.get(), min, max) };
        u32::try_from(number).map_err(|_| Error::from_errno(number))
    }

    /// Gives a number back that was taken. Any context.
    pub(in crate::kapi) fn give_back(&self, number: u32) {
        // SAFETY: Initialised.
        unsafe { bindings::ida_free(self.ida.get(), number) };
    }
}

#[pinned_drop]
impl PinnedDrop for Numbers {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, and nobody uses it any more.
        unsafe { bindings::ida_destroy(self.ida.get()) };
    }
}

/// A sparse array that holds a reference on what is in it.
///
/// # Invariants
///
/// Every pointer in `raw` came from an `Arc<T>`, which the array owns.
#[pin_data(PinnedDrop)]
pub(crate) struct RcuArray<T: Send + Sync> {
    #[pin]
    raw: RawArray,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> RcuArray<T> {
    /// An empty array.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- RawArray::new(),
            _owner: PhantomData,
        })
    }

    /// What is at `index`. Any context.
    pub(crate) fn get<'r>(&'r self, index: u32, _rcu: &ReadSide<'r>) -> Option<&'r T> {
        let object = NonNull::new(self.raw.load(index).cast::<T>())?;
        // SAFETY: By the type invariant a `T`; what leaves the array lives for a grace period
        // more, which cannot end before `'r`.
        Some(unsafe { object.as_ref() })
    }

    /// What is at `index`, with a reference of the caller's own. Any context.
    pub(crate) fn get_arc(&self, index: u32, _rcu: &ReadSide<'_>) -> Option<Arc<T>> {
        let object = NonNull::new(self.raw.load(index).cast::<T>())?;
        // SAFETY: By the type invariant from an `Arc<T>`, and as in `get` its reference is not given
        // up before the read-side critical section ends.
        Some(unsafe { ArcBorrow::from_raw(object.as_ptr()) }.into())
    }

    /// The first object at `from` or later, with its index. Any context.
    pub(crate) fn next<'r>(&'r self, from: u32, _rcu: &ReadSide<'r>) -> Option<(u32, &'r T)> {
        let (index, object) = self.raw.next(from)?;
        // SAFETY: As in `get`.
        Some((index, unsafe { object.cast::<T>().as_ref() }))
    }

    /// Puts `object` at `index`; `EBUSY` if that is taken. Does not sleep.
    pub(crate) fn insert(&self, index: u32, object: Arc<T>) -> Result<(), (Error, Arc<T>)> {
        let raw = Arc::into_raw(object);
        // SAFETY: An `Arc` is not null.
        let entry = unsafe { NonNull::new_unchecked(raw.cast_mut()) };
        // INVARIANT: On success the array is the owner.
        self.raw.insert(index, entry.cast()).map_err(|err| {
            // SAFETY: From `Arc::into_raw` above, and the array did not take it.
            (err, unsafe { Arc::from_raw(raw) })
        })
    }

    /// Puts `object` in the place of what is at `index`; `None`, and `object` is dropped: there is
    /// nothing. Others must not remove it meanwhile, by which `object` would stay. Does not sleep, but for
    /// the drop.
    pub(crate) fn replace(&self, index: u32, object: Arc<T>) -> Option<Removed<T>> {
        if self.raw.load(index).is_null() {
            return None;
        }
        // SAFETY: An `Arc` is not null.
        let entry = unsafe { NonNull::new_unchecked(Arc::into_raw(object).cast_mut()) };
        // INVARIANT: The array is the owner of the new one, and gives up the old one.
        NonNull::new(self.raw.replace(index, entry.cast()).cast()).map(Removed)
    }

    /// Takes what is at `index` out.
    pub(crate) fn remove(&self, index: u32) -> Option<Removed<T>> {
        let object = NonNull::new(self.raw.erase(index).cast::<T>())?;
        // INVARIANT: The array gave up its ownership.
        Some(Removed(object))
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for RcuArray<T> {
    fn drop(self: Pin<&mut Self>) {
        let mut from = 0;
        while let Some((index, _)) = self.raw.next(from) {
            from = index.saturating_add(1);
            let object = self.raw.erase(index).cast::<T>();
            // SAFETY: The array owned it, and with `&mut self` there are no readers.
            drop(unsafe { Arc::from_raw(object) });
        }
    }
}

/// Something taken out of an [`RcuArray`], which readers may still see.
///
/// # Invariants
///
/// `0` came from an `Arc<T>`, whose reference is this value's.
pub(crate) struct Removed<T: Send + Sync>(NonNull<T>);

impl<T: Send + Sync> Removed<T> {
    /// Waits once for the readers of all that was removed, then drops it. Process context.
    pub(crate) fn drop_all(mut all: KVec<Self>) {
        if all.as_slice().is_empty() {
            return;
        }
        synchronize_rcu();
        while let Some(removed) = all.pop() {
            let object = core::mem::ManuallyDrop::new(removed).0;
            // SAFETY: Our reference, by the type invariant, which readers no longer rely on.
            drop(unsafe { Arc::from_raw(object.as_ptr()) });
        }
    }
}

impl<T: Send + Sync> Drop for Removed<T> {
    /// Process context.
    fn drop(&mut self) {
        synchronize_rcu();
        // SAFETY: As in `drop_all`.
        drop(unsafe { Arc::from_raw(self.0.as_ptr()) });
    }
}
