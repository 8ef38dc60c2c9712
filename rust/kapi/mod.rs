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
//! `rcu_read_lock()`; [`rcu::ReadSide`] is the proof of the latter. Nothing called from a hook
//! sleeps. Whatever must run in process context says so in its documentation.

pub(crate) mod array;
pub(crate) mod conncount;
pub(crate) mod conntrack;
pub(crate) mod dst;
pub(crate) mod fib;
pub(crate) mod hook;
pub(crate) mod lock;
pub(crate) mod net;
pub(crate) mod netdev;
pub(crate) mod notifier;
pub(crate) mod once;
pub(crate) mod percpu;
pub(crate) mod pernet;
pub(crate) mod proc_fs;
pub(crate) mod rcu;
pub(crate) mod recent;
pub(crate) mod registry;
pub(crate) mod skb;
pub(crate) mod slab;
pub(crate) mod sysctl;
pub(crate) mod tcp;
#[cfg(nfzr_kunit)]
pub(crate) mod tests;
pub(crate) mod time;
pub(crate) mod track;
pub(crate) mod udp;
pub(crate) mod work;
