// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate's work queues lack: a delayed work that is really cancelled, and the
//! queue that the kernel wants unbound work on.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use kernel::{
    sync::Arc,
    workqueue::{HasDelayedWork, Queue, WorkItem}, //
};

use crate::bindings;

/// The system's default queue, `system_dfl_wq`: unbound, for work that may take long.
pub(crate) fn system_dfl() -> &'static Queue {
    // SAFETY: The kernel made it before modules are loaded and keeps it.
    unsafe { Queue::from_raw(bindings::system_dfl_wq) }
}

/// Ends the delayed work of an [`Arc`] when dropped: then it neither runs nor is queued, and
/// queueing it has no effect. Dropping sleeps.
pub(crate) struct CancelOnDrop<
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
    const ID: u64 = 0,
>(pub(crate) Arc<T>);

impl<T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>, const ID: u64> CancelOnDrop<T, ID> {
    /// Ends the work now. Process context; sleeps.
    pub(crate) fn cancel(&self) {
        let owner = Arc::as_ptr(&self.0).cast_mut();
        // SAFETY: `owner` is a valid `T`, kept by `self.0`.
        let work = unsafe { T::raw_get_work(owner) };
        // SAFETY: `HasDelayedWork` promises that this `work_struct` is in a `delayed_work`.
        let delayed = unsafe {
            kernel::container_of!(
                work.cast::<bindings::work_struct>(),
                bindings::delayed_work,
                work
            )
        };
        // SAFETY: Initialised with its owner. This is process context, by the type's contract.
        if unsafe { bindings::disable_delayed_work_sync(delayed) } {
            // SAFETY: The work was queued, for which the queue was given a reference by
            // `Arc::into_raw`; it will not run, so the reference is ours to drop.
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
