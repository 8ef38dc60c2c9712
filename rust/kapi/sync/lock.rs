// SPDX-License-Identifier: GPL-2.0

//! A spin lock that disables bottom halves, for data shared by hooks and process context.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use kernel::{
    bindings::{lock_class_key, spinlock_t},
    ffi::c_char,
    sync::lock::{Backend, Lock}, //
};

use crate::bindings;

/// The [`Backend`] of [`SpinLockBh`].
pub(crate) struct SpinLockBhBackend;

/// Data protected by `spin_lock_bh()`. Any context but hard interrupts.
pub(crate) type SpinLockBh<T> = Lock<T, SpinLockBhBackend>;

// SAFETY: `spinlock_t` ensures mutual exclusion, and `relock` locks by the same method.
unsafe impl Backend for SpinLockBhBackend {
    type State = spinlock_t;
    type GuardState = ();

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut lock_class_key) {
        // SAFETY: The caller promises that `ptr` is writable, and that `name` and `key` stay valid.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) {
        // SAFETY: The caller promises that the lock was initialised.
        unsafe { bindings::nfzr_helper_spin_lock_bh(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<()> {
        // SAFETY: The caller promises that the lock was initialised.
        unsafe { bindings::nfzr_helper_spin_trylock_bh(ptr) }.then_some(())
    }

    unsafe fn unlock(ptr: *mut Self::State, _state: &()) {
        // SAFETY: The caller promises to hold the lock.
        unsafe { bindings::nfzr_helper_spin_unlock_bh(ptr) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: The caller promises that the lock was initialised.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}
