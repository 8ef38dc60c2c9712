// SPDX-License-Identifier: GPL-2.0

//! `READ_ONCE()` of atomics, for the packet path.
//!
//! Where the kernel is built by gcc, each operation of the `kernel` crate's `Atomic` is a call of a C
//! helper. A relaxed load is no more than a volatile read, in C as here.
//!
//! C header: [`include/asm-generic/rwonce.h`](srctree/include/asm-generic/rwonce.h)

use kernel::sync::atomic::Atomic;

/// What can be read so.
pub(crate) trait ReadOnce {
    /// The type of the value.
    type Value;

    /// The same as `load(Relaxed)`.
    fn read_once(&self) -> Self::Value;
}

macro_rules! read_once {
    ($($type:ty)*) => {
        $(impl ReadOnce for Atomic<$type> {
            type Value = $type;

            #[inline(always)]
            fn read_once(&self) -> $type {
                // SAFETY: The pointer is to an aligned value that is as valid as `self`, which others
                // change by atomic accesses only, and a volatile read of its size is one.
                unsafe { self.as_ptr().read_volatile() }
            }
        })*
    };
}

read_once!(bool i8 u32 i64);

impl<T> ReadOnce for Atomic<*mut T> {
    type Value = *mut T;

    #[inline(always)]
    fn read_once(&self) -> *mut T {
        // SAFETY: As above.
        unsafe { self.as_ptr().read_volatile() }
    }
}
