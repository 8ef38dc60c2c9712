// SPDX-License-Identifier: GPL-2.0

//! Time as netfilter keeps it: the low 32 bits of jiffies, which wrap. Also random numbers.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use core::ptr;

use kernel::time::msecs_to_jiffies;

use crate::bindings;

/// Returns the current time, as in `nfct_time_stamp`. Compute differences by `wrapping_sub` only.
pub(crate) fn jiffies32() -> u32 {
    // SAFETY: The kernel's variable, which it changes by single stores. This is `READ_ONCE()`.
    let jiffies = unsafe { ptr::addr_of!(bindings::jiffies).read_volatile() };
    // CAST: Truncated on purpose.
    jiffies as u32
}

/// Converts milliseconds, at most a day, to jiffies, rounded up.
pub(crate) fn from_ms(ms: u32) -> u32 {
    const DAY: u32 = 86_400_000;
    u32::try_from(msecs_to_jiffies(ms.min(DAY))).unwrap_or(u32::MAX)
}

/// Converts jiffies to milliseconds, truncated to 32 bits.
pub(crate) fn to_ms(jiffies: u32) -> u32 {
    // SAFETY: Only computes.
    unsafe { bindings::nfzr_helper_jiffies_to_ms(jiffies) }
}

/// Converts milliseconds to a delay for a work queue.
pub(crate) fn work_delay(ms: u32) -> kernel::time::Jiffies {
    msecs_to_jiffies(ms)
}

/// Returns a random number. Any context.
pub(crate) fn random_u32() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::get_random_u32() }
}

/// Lets other tasks run, in a long loop. Process context, with no lock held.
pub(crate) fn cond_resched() {
    // SAFETY: By the function's contract this is process context, with no lock held.
    unsafe { bindings::nfzr_helper_cond_resched() }
}
