// SPDX-License-Identifier: GPL-2.0

//! Sparse arrays of owned objects that are read under RCU.
//!
//! Each packet looks objects up by number several times. The `kernel` crate's `XArray` is read
//! under its lock, and reading the kernel's own takes three calls. The generic radix tree used here
//! is read by a few instructions. Nodes stay allocated until the array is dropped.
//!
//! C header: [`include/linux/generic-radix-tree.h`](srctree/include/linux/generic-radix-tree.h)

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull}, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        mem::{
            rcu::RcuBox,
            slab::{Object, SlabBox}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// A radix tree of raw pointers. Its user defines what they point to.
#[pin_data(PinnedDrop)]
pub(in crate::kapi) struct RawArray {
    // All zero is an empty tree.
    #[pin]
    tree: Opaque<bindings::__genradix>,
}

// SAFETY: Slots are read and exchanged atomically; nodes are added atomically and never removed.
unsafe impl Send for RawArray {}
// SAFETY: As above.
unsafe impl Sync for RawArray {}

impl RawArray {
    pub(in crate::kapi) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            tree <- Opaque::zeroed(),
        })
    }

    /// Returns the tree, for a helper that reads it.
    pub(in crate::kapi) fn tree(&self) -> *mut bindings::__genradix {
        self.tree.get()
    }

    /// Returns the pointer at `index`, or null. Any context.
    pub(in crate::kapi) fn load(&self, index: u32) -> *mut c_void {
        // SAFETY: `tree` was initialised by `new`.
        unsafe { bindings::nfzr_helper_array_load(self.tree.get(), index) }
    }

    /// Returns the first pointer at `from` or later, with its index. Any context.
    pub(in crate::kapi) fn next(&self, from: u32) -> Option<(u32, NonNull<c_void>)> {
        let (index, found) = self.scan(from, u32::MAX);
        Some((index, found?))
    }

    /// Returns the first pointer at `from` or later, with its index, if it is within `places`
    /// slots, or beyond them in the same leaf. If it is not, returns the index at which to
    /// continue; `u32::MAX` means that the array has no more pointers. Any context.
    pub(in crate::kapi) fn scan(&self, from: u32, places: u32) -> (u32, Option<NonNull<c_void>>) {
        let (tree, mut index) = (self.tree.get(), from);
        // SAFETY: `tree` was initialised by `new`, and `index` is valid.
        let found = unsafe { bindings::nfzr_helper_array_next(tree, &mut index, places) };
        (index, NonNull::new(found))
    }

    /// Stores `entry` at `index`, or fails with `EBUSY` if the slot is taken. Does not sleep.
    pub(in crate::kapi) fn insert(&self, index: u32, entry: NonNull<c_void>) -> Result {
        let (tree, entry) = (self.tree.get(), entry.as_ptr());
        // SAFETY: `tree` was initialised by `new`.
        to_result(unsafe { bindings::nfzr_helper_array_insert(tree, index, entry) })
    }

    /// Exchanges the pointer at `index`, whose slot has memory. Returns the old one. Any context.
    fn replace(&self, index: u32, entry: NonNull<c_void>) -> *mut c_void {
        // SAFETY: `tree` was initialised by `new`.
        unsafe { bindings::nfzr_helper_array_replace(self.tree.get(), index, entry.as_ptr()) }
    }

    /// Removes `entry` from `index` if it is there. Returns whether it was. Any context.
    fn clear(&self, index: u32, entry: NonNull<c_void>) -> bool {
        // SAFETY: `tree` was initialised by `new`.
        unsafe { bindings::nfzr_helper_array_clear(self.tree.get(), index, entry.as_ptr()) }
    }

    /// Removes and returns the pointer at `index`. Any context.
    pub(in crate::kapi) fn erase(&self, index: u32) -> *mut c_void {
        // SAFETY: `tree` was initialised by `new`.
        unsafe { bindings::nfzr_helper_array_replace(self.tree.get(), index, ptr::null_mut()) }
    }
}

#[pinned_drop]
impl PinnedDrop for RawArray {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `tree` was initialised by `new`, and `&mut self` excludes other users.
        unsafe { bindings::nfzr_helper_array_free(self.tree.get()) };
    }
}

/// A sparse array that holds a reference on each object in it.
///
/// # Invariants
///
/// Every pointer in `raw` came from an `Arc<T>` that the array owns.
#[pin_data(PinnedDrop)]
pub(crate) struct RcuArray<T: Send + Sync> {
    #[pin]
    raw: RawArray,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> RcuArray<T> {
    /// Creates an empty array.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- RawArray::new(),
            _owner: PhantomData,
        })
    }

    /// As [`RawArray::tree`]. The pointers are to `T`.
    pub(in crate::kapi) fn tree(&self) -> *mut bindings::__genradix {
        self.raw.tree()
    }

    /// Returns the object at `index`. Any context.
    pub(crate) fn get<'r>(&'r self, index: u32, _rcu: &ReadSide<'r>) -> Option<&'r T> {
        let object = NonNull::new(self.raw.load(index).cast::<T>())?;
        // SAFETY: By the type invariant this is a `T`. An object removed from the array lives for
        // one more grace period, which cannot end before `'r`.
        Some(unsafe { object.as_ref() })
    }

    /// Returns the object at `index` with a new reference, owned by the caller. Any context.
    pub(crate) fn get_arc(&self, index: u32, _rcu: &ReadSide<'_>) -> Option<Arc<T>> {
        let object = NonNull::new(self.raw.load(index).cast::<T>())?;
        // SAFETY: By the type invariant the pointer is from an `Arc<T>`. As in `get`, its reference
        // is not dropped before the read-side critical section ends.
        Some(unsafe { ArcBorrow::from_raw(object.as_ptr()) }.into())
    }

    /// Returns the first object at `from` or later, with its index. Any context.
    pub(crate) fn next<'r>(&'r self, from: u32, _rcu: &ReadSide<'r>) -> Option<(u32, &'r T)> {
        let (index, object) = self.raw.next(from)?;
        // SAFETY: As in `get`: a `T` that is not dropped before `'r` ends.
        Some((index, unsafe { object.cast::<T>().as_ref() }))
    }

    /// Stores `object` at `index`; fails with `EBUSY` if the slot is taken. Does not sleep.
    pub(crate) fn insert(&self, index: u32, object: Arc<T>) -> Result<(), (Error, Arc<T>)> {
        let raw = Arc::into_raw(object);
        // SAFETY: An `Arc` is not null.
        let entry = unsafe { NonNull::new_unchecked(raw.cast_mut()) };
        // INVARIANT: On success the array owns the object.
        self.raw.insert(index, entry.cast()).map_err(|err| {
            // SAFETY: From `Arc::into_raw` above, and the array did not take ownership.
            (err, unsafe { Arc::from_raw(raw) })
        })
    }

    /// Looks for the first object at `from` or later, at `places` indices and on to the end of a
    /// leaf. Leaves begin at the same indices in all arrays. Returns the object's index and
    /// `true`, or the index at which to continue and `false`; `u32::MAX` means that there is none
    /// beyond. Any context.
    pub(crate) fn scan(&self, from: u32, places: u32, _rcu: &ReadSide<'_>) -> (u32, bool) {
        let (index, found) = self.raw.scan(from, places);
        (index, found.is_some())
    }

    /// Removes and returns the object at `index`.
    pub(crate) fn remove(&self, index: u32) -> Option<Removed<T>> {
        let object = NonNull::new(self.raw.erase(index).cast::<T>())?;
        // INVARIANT: The array gave up ownership of the object.
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
            // SAFETY: The array owned the object, and `&mut self` proves that it has no readers.
            drop(unsafe { Arc::from_raw(object) });
        }
    }
}

/// A sparse array that owns objects, which are freed a grace period after they are removed.
///
/// # Invariants
///
/// Every pointer in `raw` is to an object that the array owns.
#[pin_data(PinnedDrop)]
pub(crate) struct RcuBoxArray<T: Send + Sync> {
    #[pin]
    raw: RawArray,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> RcuBoxArray<T> {
    /// Creates an empty array.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- RawArray::new(),
            _owner: PhantomData,
        })
    }

    /// As [`RawArray::tree`]. The pointers are to objects that hold `T`.
    pub(in crate::kapi) fn tree(&self) -> *mut bindings::__genradix {
        self.raw.tree()
    }

    fn load(&self, index: u32) -> Option<NonNull<Object<T>>> {
        NonNull::new(self.raw.load(index).cast())
    }

    /// Returns the object at `index`. Any context.
    #[inline(always)]
    pub(crate) fn get<'r>(&'r self, index: u32, _rcu: &ReadSide<'r>) -> Option<&'r T> {
        let object = self.load(index)?;
        // SAFETY: By the type invariant this is an object. If it is removed, it lives for one more
        // grace period, which cannot end before `'r`.
        Some(unsafe { &object.as_ref().value })
    }

    /// Stores an object at `index`, and removes the old one. Fails with `ENOMEM`. Does not sleep.
    pub(crate) fn put(&self, index: u32, object: RcuBox<T>) -> Result {
        let raw = object.into_raw();
        // SAFETY: A box is not null.
        let entry = unsafe { NonNull::new_unchecked(raw) };
        // INVARIANT: On success the array owns the object.
        let old = match self.raw.insert(index, entry.cast()) {
            Ok(()) => None,
            // The slot has memory, so this succeeds.
            Err(err) if err == EBUSY => NonNull::new(self.raw.replace(index, entry.cast())),
            Err(err) => {
                // SAFETY: From `into_raw` above, and the array did not take ownership.
                drop(unsafe { RcuBox::from_raw(entry) });
                return Err(err);
            }
        };
        // SAFETY: By the type invariant the array owned the object, and gave it up.
        drop(old.map(|old| unsafe { RcuBox::<T>::from_raw(old.cast()) }));
        Ok(())
    }

    /// Removes `object` from `index`, where [`Self::get`] returned it, if it is still there.
    /// Returns whether it was. Any context.
    pub(crate) fn remove_if(&self, index: u32, object: &T, _rcu: &ReadSide<'_>) -> bool {
        let Some(held) = self.load(index) else {
            return false;
        };
        // SAFETY: As in `get`.
        if !ptr::eq(unsafe { &held.as_ref().value }, object) {
            return false;
        }
        // The object cannot have been freed and another one allocated at its address, because this
        // is inside a read-side critical section.
        let is_removed = self.raw.clear(index, held.cast());
        if is_removed {
            // SAFETY: By the type invariant the array owned the object, and gave it up.
            drop(unsafe { RcuBox::<T>::from_raw(held) });
        }
        is_removed
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for RcuBoxArray<T> {
    fn drop(self: Pin<&mut Self>) {
        let mut from = 0;
        while let Some((index, object)) = self.raw.next(from) {
            from = index.saturating_add(1);
            // SAFETY: The array owned the object, and `&mut self` proves that it has no readers.
            drop(unsafe { SlabBox::<T>::from_raw(object.cast()) });
        }
    }
}

/// An object removed from an [`RcuArray`], which readers may still see.
///
/// # Invariants
///
/// `0` came from an `Arc<T>`, and this value owns its reference.
pub(crate) struct Removed<T: Send + Sync>(NonNull<T>);

impl<T: Send + Sync> Removed<T> {
    /// Waits for one grace period, then drops all removed objects. Process context.
    pub(crate) fn drop_all(mut all: KVVec<Self>) {
        if all.as_slice().is_empty() {
            return;
        }
        synchronize_rcu();
        while let Some(removed) = all.pop() {
            let object = core::mem::ManuallyDrop::new(removed).0;
            // SAFETY: By the type invariant the reference is ours; no reader relies on it any more.
            drop(unsafe { Arc::from_raw(object.as_ptr()) });
        }
    }
}

impl<T: Send + Sync> Deref for Removed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant this value owns a reference.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Send + Sync> Drop for Removed<T> {
    /// Waits for a grace period. Process context.
    fn drop(&mut self) {
        synchronize_rcu();
        // SAFETY: By the type invariant the reference is ours; no reader relies on it any more.
        drop(unsafe { Arc::from_raw(self.0.as_ptr()) });
    }
}
