// SPDX-License-Identifier: GPL-2.0

//! Zones, their tables, and the flows in them.

#![deny(unsafe_code)]

pub(crate) mod command;
pub(crate) mod flow;
pub(crate) mod handle;
pub(crate) mod outcome;
pub(crate) mod table;
pub(crate) mod tcp;
#[cfg(nfzr_kunit)]
mod tests;
pub(crate) mod udp;
pub(crate) mod zone;
