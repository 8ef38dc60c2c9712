// SPDX-License-Identifier: GPL-2.0

//! The way of a packet: one file per hook, in packet order.

pub(crate) mod lookup;
pub(crate) mod serve;
pub(crate) mod verify;
