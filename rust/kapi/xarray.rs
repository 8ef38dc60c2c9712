// SPDX-License-Identifier: GPL-2.0

//! The kernel's XArray as a sparse array of owned objects that is read under RCU.
//!
//! The `kernel` crate's `XArray` is read under its lock; a packet must not take one.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
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
    kapi::rcu::ReadSide, //
};

/// An XArray of raw pointers, of which somebody else says what they point to.
#[pin_data(PinnedDrop)]
pub(super) struct RawXArray {
    #[pin]
    xa: Opaque<bindings::xarray>,
}

// SAFETY: An XArray is made to be used by all CPUs.
unsafe impl Send for RawXArray {}
// SAFETY: As above: writers take its lock, readers are under RCU.
unsafe impl Sync for RawXArray {}

impl RawXArray {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            xa <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for a `struct xarray`.
                unsafe { bindings::nfzr_helper_xa_init(slot) }
            }),
        })
    }

    /// What is at `index`, or null.
    pub(super) fn load(&self, index: u32) -> *mut c_void {
        // SAFETY: Initialised; takes the RCU read lock itself.
        unsafe { bindings::xa_load(self.xa.get(), index as usize) }
    }

    /// The first pointer at `from` or later, with its index.
    pub(super) fn next(&self, from: u32) -> Option<(u32, NonNull<c_void>)> {
        let mut index = from as usize;
        // SAFETY: Initialised; takes the RCU read lock itself.
        let found = unsafe {
            bindings::xa_find(
                self.xa.get(),
                &mut index,
                u32::MAX as usize,
                bindings::XA_PRESENT,
            )
        };
        Some((u32::try_from(index).ok()?, NonNull::new(found)?))
    }

    /// Puts `entry` at a free index in 1..=`max`, from `next` on, and writes the index to `index`
    /// before anyone can load it. Does not sleep.
    ///
    /// # Safety
    ///
    /// `index` can be written, `next` is this array's own, and `entry` is 4-byte aligned.
    pub(super) unsafe fn alloc(
        &self,
        index: *mut u32,
        next: *mut u32,
        max: u32,
        entry: *mut c_void,
    ) -> Result {
        // SAFETY: By the function's requirements; `next` is only touched under the array's lock.
        let err = unsafe { bindings::nfzr_helper_xa_alloc(self.xa.get(), index, next, max, entry) };
        kernel::error::to_result(err)
    }

    /// Puts `entry` at `index` unless that is taken (`EBUSY`). Does not sleep.
    pub(super) fn insert(&self, index: u32, entry: NonNull<c_void>) -> Result {
        // SAFETY: Initialised, and whatever a `NonNull` of an allocation points to is aligned.
        let err = unsafe { bindings::nfzr_helper_xa_insert(self.xa.get(), index, entry.as_ptr()) };
        kernel::error::to_result(err)
    }

    /// Puts `entry` in the place of what is at `index`, where there must be something. Does not sleep.
    fn replace(&self, index: u32, entry: NonNull<c_void>) -> *mut c_void {
        // SAFETY: Initialised, and whatever a `NonNull` of an allocation points to is aligned.
        unsafe { bindings::nfzr_helper_xa_replace(self.xa.get(), index, entry.as_ptr()) }
    }

    /// Takes what is at `index` out.
    pub(super) fn erase(&self, index: u32) -> *mut c_void {
        // SAFETY: Initialised.
        unsafe { bindings::nfzr_helper_xa_erase(self.xa.get(), index) }
    }
}

#[pinned_drop]
impl PinnedDrop for RawXArray {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, and nobody uses it any more.
        unsafe { bindings::xa_destroy(self.xa.get()) };
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
    raw: RawXArray,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> RcuArray<T> {
    /// An empty array.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- RawXArray::new(),
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
    /// nothing. Others must not remove it meanwhile. Does not sleep, but for the drop.
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
        while let Some((index, _)) = self.raw.next(0) {
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
