// SPDX-License-Identifier: GPL-2.0

//! Objects that are freed after a grace period, and cells that own one of them.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::{self, NonNull}, //
};

use kernel::sync::atomic::{Atomic, Full, Relaxed};

use crate::{
    bindings,
    kapi::{
        mem::slab::{Object, SlabBox},
        sync::{once::ReadOnce, rcu::ReadSide}, //
    },
};

/// An owned object that readers may still see. Dropping it frees the object after a grace period.
///
/// Any context. The value's own destructor runs in softirq.
///
/// # Invariants
///
/// `0` points to an initialised object that nothing else owns.
pub(crate) struct RcuBox<T: Send + Sync>(NonNull<Object<T>>);

// SAFETY: An `RcuBox` owns a `T`, which may be sent and shared.
unsafe impl<T: Send + Sync> Send for RcuBox<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuBox<T> {}

impl<T: Send + Sync> From<SlabBox<T>> for RcuBox<T> {
    fn from(object: SlabBox<T>) -> Self {
        // INVARIANT: The `SlabBox` was the sole owner of an initialised object and gives it up.
        Self(object.into_raw())
    }
}

impl<T: Send + Sync> RcuBox<T> {
    /// # Safety
    ///
    /// `object` is initialised, `kfree()` accepts its memory, and nothing else owns it.
    pub(in crate::kapi) unsafe fn from_raw(object: NonNull<Object<T>>) -> Self {
        // INVARIANT: By the function's requirement.
        Self(object)
    }

    /// Gives up ownership of the object.
    pub(in crate::kapi) fn into_raw(self) -> *mut Object<T> {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl<T: Send + Sync> Deref for RcuBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the object is initialised; it lives as long as `self`.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T: Send + Sync> Drop for RcuBox<T> {
    fn drop(&mut self) {
        // SAFETY: The object is valid. Its head is unused, because only the owner queues it.
        let head = unsafe { ptr::addr_of_mut!((*self.0.as_ptr()).rcu) };
        // SAFETY: `head` is in an object that `free` may free, because this was its only owner. The
        // module waits for callbacks (`rcu_barrier()`) before its text is freed. The callback is
        // not lazy, because the object may hold a connection, and conntrack may need the room.
        unsafe { bindings::nfzr_helper_call_rcu_hurry(head.cast(), Some(Object::<T>::free)) };
    }
}

/// A cell that owns at most one object, which is read under RCU and replaced by exchange.
///
/// # Invariants
///
/// `object` is null, or an object that only this cell owns.
pub(crate) struct RcuCell<T: Send + Sync> {
    object: Atomic<*mut Object<T>>,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> RcuCell<T> {
    /// Creates an empty cell.
    pub(crate) const fn new() -> Self {
        Self {
            object: Atomic::new(ptr::null_mut()),
            _owner: PhantomData,
        }
    }

    /// Returns the object that the cell holds now.
    pub(crate) fn load<'r>(&'r self, _rcu: &ReadSide<'r>) -> Option<&'r T> {
        // ORDERING: Relaxed, as in `rcu_dereference()`: the address dependency orders accesses to
        // the object after the full exchange in `swap`.
        let object = NonNull::new(self.object.read_once())?;
        // SAFETY: The object was initialised before it was published. An object that left the cell
        // is freed by `RcuBox` after a grace period, which cannot end before `'r` does.
        Some(unsafe { &object.as_ref().value })
    }

    /// Replaces the object in the cell. The caller owns the returned old object.
    pub(crate) fn swap(&self, new: Option<RcuBox<T>>) -> Option<RcuBox<T>> {
        let new = new.map_or(ptr::null_mut(), RcuBox::into_raw);
        // ORDERING: Full, to publish the object's contents to `load`.
        // INVARIANT: The cell takes ownership of `new` and gives up that of the old object.
        NonNull::new(self.object.xchg(new, Full)).map(RcuBox)
    }

    /// Empties the cell if it still holds `object`, which a `load` of this cell returned.
    pub(crate) fn take_if(&self, object: &T, rcu: &ReadSide<'_>) -> Option<RcuBox<T>> {
        self.exchange_if(object, ptr::null_mut(), rcu)
    }

    /// Replaces `object`, which a `load` of this cell returned, if the cell still holds it. Returns
    /// the old object, or else the new one.
    pub(crate) fn replace_if(
        &self,
        object: &T,
        new: RcuBox<T>,
        rcu: &ReadSide<'_>,
    ) -> Result<RcuBox<T>, RcuBox<T>> {
        let new = new.into_raw();
        self.exchange_if(object, new, rcu).ok_or_else(|| {
            // SAFETY: From `into_raw` above, and the cell did not take ownership.
            unsafe { RcuBox::from_raw(NonNull::new_unchecked(new)) }
        })
    }

    /// Replaces `object` if the cell still holds it. If so, the cell takes ownership of `new`.
    fn exchange_if(
        &self,
        object: &T,
        new: *mut Object<T>,
        _rcu: &ReadSide<'_>,
    ) -> Option<RcuBox<T>> {
        let current = self.object.load(Relaxed);
        let held = NonNull::new(current)?;
        // SAFETY: The object is published and not freed in this read-side critical section: see
        // `load`.
        if !ptr::eq(unsafe { &held.as_ref().value }, object) {
            return None;
        }
        // ORDERING: Full, as in `swap`. The object cannot have been freed and reallocated at the
        // same address, because this is inside a read-side critical section.
        let old = self.object.cmpxchg(current, new, Full).ok()?;
        // INVARIANT: The exchange took ownership from the cell.
        NonNull::new(old).map(RcuBox)
    }
}

impl<T: Send + Sync> Drop for RcuCell<T> {
    fn drop(&mut self) {
        if let Some(object) = NonNull::new(*self.object.get_mut()) {
            // SAFETY: The cell owns the object. `&mut self` proves that no reader can reach the
            // object through the cell any more, so no further grace period is needed.
            drop(unsafe { SlabBox::from_raw(object) });
        }
    }
}
