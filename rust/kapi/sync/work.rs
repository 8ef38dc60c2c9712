// SPDX-License-Identifier: GPL-2.0

//! Additions to the `kernel` crate's work queues: a delayed work that is cancelled for good, the
//! queue that the kernel recommends for unbound work, and queues of the module's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{ops::Deref, ptr::NonNull};

use kernel::{
    prelude::*,
    sync::Arc,
    workqueue::{HasDelayedWork, Queue, WorkItem}, //
};

use crate::bindings;

/// Returns the system's default queue, `system_dfl_wq`: unbound, for long-running work.
pub(crate) fn system_dfl() -> &'static Queue {
    // SAFETY: The kernel creates this queue before it loads modules, and never frees it.
    unsafe { Queue::from_raw(bindings::system_dfl_wq) }
}

/// A queue of the module's own, for unbound work. Dropping it waits for its works. Process context;
/// sleeps.
///
/// # Invariants
///
/// `0` is a queue that this value owns.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: The C side allows using and freeing a queue from any thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Creates a queue of which at most `max` works run at a time. Process context.
    pub(crate) fn new(name: &CStr, max: i32) -> Result<Self> {
        // SAFETY: The name is NUL-terminated, and copied.
        let queue = unsafe { bindings::nfzr_helper_queue_alloc(name.as_char_ptr(), max) };
        // INVARIANT: Allocated above.
        Ok(Self(NonNull::new(queue).ok_or(ENOMEM)?))
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariant the queue lives as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the queue is ours.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// Cancels the delayed work of an [`Arc`] when dropped. After that the work neither runs nor is
/// queued, and queueing it has no effect. Dropping sleeps.
pub(crate) struct CancelOnDrop<
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
    const ID: u64 = 0,
>(pub(crate) Arc<T>);

impl<T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>, const ID: u64> CancelOnDrop<T, ID> {
    fn delayed(&self) -> *mut bindings::delayed_work {
        let owner = Arc::as_ptr(&self.0).cast_mut();
        // SAFETY: `self.0` keeps `owner`, a valid `T`.
        let work = unsafe { T::raw_get_work(owner) };
        // SAFETY: `HasDelayedWork` promises that this `work_struct` is in a `delayed_work`.
        unsafe {
            kernel::container_of!(
                work.cast::<bindings::work_struct>(),
                bindings::delayed_work,
                work
            )
        }
    }

    /// Runs the work now if it is queued, and waits until it has run. Process context; sleeps.
    pub(crate) fn finish(&self) {
        // SAFETY: The work was initialised with its owner. By the method's contract this may sleep.
        unsafe { bindings::flush_delayed_work(self.delayed()) };
    }

    /// Cancels the work now. Process context; sleeps.
    pub(crate) fn cancel(&self) {
        let owner = Arc::as_ptr(&self.0).cast_mut();
        // SAFETY: The work was initialised with its owner. By the type's contract this may sleep.
        if unsafe { bindings::disable_delayed_work_sync(self.delayed()) } {
            // SAFETY: The work was queued with a reference from `Arc::into_raw`. It will not run
            // any more, so the reference is ours to drop.
            drop(unsafe { Arc::from_raw(owner.cast_const()) });
        }
    }
}

impl<T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>, const ID: u64> Drop
    for CancelOnDrop<T, ID>
{
    fn drop(&mut self) {
        self.cancel();
    }
}
