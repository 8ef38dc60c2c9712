// SPDX-License-Identifier: GPL-2.0

//! `READ_ONCE()` of atomics, for the packet path.
//!
//! If the kernel is built by gcc, each operation of the `kernel` crate's `Atomic` calls a C helper.
//! A relaxed load is just a volatile read, in C as well as here.
//!
//! C header: [`include/asm-generic/rwonce.h`](srctree/include/asm-generic/rwonce.h)

use kernel::sync::atomic::Atomic;

/// An atomic that can be read by `READ_ONCE()`.
pub(crate) trait ReadOnce {
    /// The type of the value.
    type Value;

    /// Returns the value, as `load(Relaxed)` does.
    fn read_once(&self) -> Self::Value;

    /// Returns the value, as `load(Acquire)` does: `smp_load_acquire()`.
    #[inline(always)]
    fn read_acquire(&self) -> Self::Value {
        let value = self.read_once();
        #[cfg(target_arch = "x86_64")]
        // ORDERING: The CPU orders a load before all later accesses.
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Acquire);
        #[cfg(not(target_arch = "x86_64"))]
        kernel::sync::barrier::smp_mb(kernel::sync::barrier::Full);
        value
    }
}

macro_rules! read_once {
    ($($type:ty)*) => {
        $(impl ReadOnce for Atomic<$type> {
            type Value = $type;

            #[inline(always)]
            fn read_once(&self) -> $type {
                // SAFETY: The pointer is aligned and as valid as `self`. Other code changes the
                // value by atomic accesses only, and a volatile read of its size is an atomic
                // access.
                unsafe { self.as_ptr().read_volatile() }
            }
        })*
    };
}

read_once!(bool i8 i32 u32 i64 u64);

// Values of 64 bits are read at once.
kernel::static_assert!(usize::BITS == u64::BITS);

impl<T> ReadOnce for Atomic<*mut T> {
    type Value = *mut T;

    #[inline(always)]
    fn read_once(&self) -> *mut T {
        // SAFETY: As in `read_once!`: aligned, valid, and changed by atomic accesses only.
        unsafe { self.as_ptr().read_volatile() }
    }
}
