// SPDX-License-Identifier: GPL-2.0

//! Concurrency and time.

pub(crate) mod held;
pub(crate) mod lock;
pub(crate) mod once;
pub(crate) mod percpu;
pub(crate) mod rcu;
pub(crate) mod time;
pub(crate) mod work;
