// SPDX-License-Identifier: GPL-2.0

//! Time as netfilter keeps it: the low 32 bits of jiffies, which wrap. And chance.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use kernel::time::msecs_to_jiffies;

use crate::bindings;

/// Now, as `nfct_time_stamp` has it. Differences by `wrapping_sub` only.
pub(crate) fn jiffies32() -> u32 {
    // SAFETY: Reads a variable.
    unsafe { bindings::nfzr_helper_jiffies32() }
}

/// Milliseconds as jiffies, rounded up; at most a day.
pub(crate) fn from_ms(ms: u32) -> u32 {
    const DAY: u32 = 86_400_000;
    u32::try_from(msecs_to_jiffies(ms.min(DAY))).unwrap_or(u32::MAX)
}

/// Jiffies as milliseconds, of which 32 bits remain.
pub(crate) fn to_ms(jiffies: u32) -> u32 {
    // SAFETY: A computation.
    unsafe { bindings::nfzr_helper_jiffies_to_ms(jiffies) }
}

/// A delay for a work queue, from milliseconds.
pub(crate) fn work_delay(ms: u32) -> kernel::time::Jiffies {
    msecs_to_jiffies(ms)
}

/// A random number. Any context.
pub(crate) fn random_u32() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::get_random_u32() }
}

/// Lets others run, in a long loop. Process context, under no lock.
pub(crate) fn cond_resched() {
    // SAFETY: By the function's contract about its context.
    unsafe { bindings::nfzr_helper_cond_resched() }
}

/// Sleeps for so many ms. Process context.
pub(crate) fn sleep_ms(ms: u32) {
    // SAFETY: Process context, by the function's contract.
    unsafe { bindings::msleep(ms) }
}
