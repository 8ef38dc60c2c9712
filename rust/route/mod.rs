// SPDX-License-Identifier: GPL-2.0

//! Cached routes: their keys, their validity, and the slots of a direction that hold them.

pub(crate) mod direction;
pub(crate) mod key;
pub(crate) mod miss;
pub(crate) mod pass;
pub(crate) mod slot;
pub(crate) mod stamp;
pub(crate) mod stay;
#[cfg(nfzr_kunit)]
mod tests;
