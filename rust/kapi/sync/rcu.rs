// SPDX-License-Identifier: GPL-2.0

//! RCU: the read side as a type.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::marker::PhantomData;

use kernel::{ffi::c_ulong, sync::rcu::Guard, types::NotThreadSafe};

use crate::bindings;

/// Evidence that this thread is in an RCU read-side critical section for all of `'r`.
///
/// # Invariants
///
/// `rcu_read_lock()` is held for `'r`.
pub(crate) struct ReadSide<'r>(PhantomData<&'r ()>, NotThreadSafe);

impl<'r> ReadSide<'r> {
    /// Creates the evidence on the caller's promise, as in a netfilter hook.
    ///
    /// # Safety
    ///
    /// `rcu_read_lock()` is held for all of `'r`.
    pub(in crate::kapi) unsafe fn assume_held() -> Self {
        // INVARIANT: By the function's safety requirement.
        Self(PhantomData, NotThreadSafe)
    }

    /// Returns the read side that a guard of the `kernel` crate holds.
    pub(crate) fn of(_guard: &'r Guard) -> Self {
        // INVARIANT: The guard holds the lock and is borrowed for `'r`.
        Self(PhantomData, NotThreadSafe)
    }
}

/// A grace period that began no earlier than this was created: `start_poll_synchronize_rcu()`.
#[derive(Clone, Copy)]
pub(crate) struct GracePeriod(c_ulong);

impl GracePeriod {
    /// Begins the next grace period. Any context.
    pub(crate) fn next() -> Self {
        // SAFETY: Has no requirements.
        Self(unsafe { bindings::start_poll_synchronize_rcu() })
    }

    /// Returns whether it has ended: all read-side critical sections that were there when it was
    /// created have ended too, and what they wrote is visible. Any context.
    pub(crate) fn has_ended(self) -> bool {
        // SAFETY: The number is of `start_poll_synchronize_rcu()`.
        unsafe { bindings::poll_state_synchronize_rcu(self.0) }
    }
}
