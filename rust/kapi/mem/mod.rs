// SPDX-License-Identifier: GPL-2.0

//! Memory.

pub(crate) mod array;
pub(crate) mod ids;
pub(crate) mod rcu;
pub(crate) mod slab;
