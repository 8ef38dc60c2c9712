// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the kernel: the only Rust here that holds `unsafe` code.
//!
//! Each file is one family of C functions, shaped like the `kernel` crate's own abstractions: a
//! trait for what the C side calls, a private adapter with the `extern "C"` functions, and a
//! registration whose drop undoes it. What the `kernel` crate has is used as it is.
//!
//! # Contexts
//!
//! Netfilter hooks run in softirq or in process context with bottom halves on, always under
//! `rcu_read_lock()`; [`sync::rcu::ReadSide`] is the proof of the latter. Nothing called from a hook
//! sleeps. Whatever must run in process context says so in its documentation.

pub(crate) mod entry;
pub(crate) mod fs;
pub(crate) mod mem;
pub(crate) mod net;
pub(crate) mod nf;
pub(crate) mod sync;
#[cfg(nfzr_kunit)]
pub(crate) mod tests;
