// SPDX-License-Identifier: GPL-2.0

//! Cached routes: what one depends on, how long it is good, and where a direction keeps its own.

pub(crate) mod direction;
pub(crate) mod key;
pub(crate) mod miss;
pub(crate) mod slot;
#[cfg(nfzr_kunit)]
mod tests;
