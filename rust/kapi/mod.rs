// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the kernel: the only Rust code here that contains `unsafe`.
//!
//! Each file covers one family of C functions and is shaped like the `kernel` crate's own
//! abstractions: a trait for the callbacks from C, a private adapter with the `extern "C"`
//! functions, and a registration that is undone when it is dropped. Abstractions of the `kernel`
//! crate are used as is.
//!
//! # Contexts
//!
//! Netfilter hooks run in softirq, or in process context with bottom halves on. They always run
//! under `rcu_read_lock()`, which [`sync::rcu::ReadSide`] proves. A function called from a hook
//! does not sleep. A function that requires process context says so in its documentation.
//!
//! # Layers
//!
//! `sync`, `mem`, `net`, `fs` and `nf` wrap the kernel and know nothing of this module. `entry` is
//! this module's own. Each uses only the ones before it.

pub(crate) mod entry;
pub(crate) mod fs;
pub(crate) mod mem;
pub(crate) mod net;
pub(crate) mod nf;
pub(crate) mod sync;
#[cfg(nfzr_kunit)]
pub(crate) mod tests;
