// SPDX-License-Identifier: GPL-2.0

//! Numbers for objects: `struct ida`.
//!
//! C header: [`include/linux/idr.h`](srctree/include/linux/idr.h)

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    types::Opaque, //
};

use crate::bindings;

/// An allocator of numbers: `struct ida`. An IDA finds the lowest free number by scanning the
/// allocated ones. It is therefore asked first for the next number after the last one allocated, up
/// to the end of that number's bitmap, and only then for the lowest. The highest number thus
/// exceeds the largest count ever in use at a time by less than one bitmap.
#[pin_data(PinnedDrop)]
pub(in crate::kapi) struct Ids {
    #[pin]
    ida: Opaque<bindings::ida>,
    /// The number to try first.
    next: Atomic<u32>,
}

// SAFETY: An IDA is made for use by all CPUs and has its own lock.
unsafe impl Send for Ids {}
// SAFETY: As above.
unsafe impl Sync for Ids {}

impl Ids {
    /// `IDA_BITMAP_BITS` - 1: mask of a number's position in its bitmap.
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

    /// Allocates a number in 1..=`max`. Does not sleep.
    pub(in crate::kapi) fn take(&self, max: u32) -> Result<u32> {
        let next = self.next.load(Relaxed);
        let end = (next | Self::BITMAP).min(max);
        let number = self.take_of(next, end).or_else(|_| self.take_of(1, max))?;
        let last = number & Self::BITMAP == Self::BITMAP;
        let next = if last { 1 } else { number.wrapping_add(1) };
        self.next.store(next, Relaxed);
        Ok(number)
    }

    /// Allocates the lowest free number in `min..=max`.
    fn take_of(&self, min: u32, max: u32) -> Result<u32> {
        // SAFETY: `ida` was initialised by `new`.
        let number = unsafe { bindings::nfzr_helper_ida_alloc(self.ida.get(), min, max) };
        u32::try_from(number).map_err(|_| Error::from_errno(number))
    }

    /// Frees an allocated number. Any context.
    pub(in crate::kapi) fn give_back(&self, number: u32) {
        // SAFETY: `ida` was initialised by `new`.
        unsafe { bindings::ida_free(self.ida.get(), number) };
    }
}

#[pinned_drop]
impl PinnedDrop for Ids {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `ida` was initialised by `new`, and `&mut self` excludes other users.
        unsafe { bindings::ida_destroy(self.ida.get()) };
    }
}
