// SPDX-License-Identifier: GPL-2.0

//! Tracking by prediction: what conntrack would do with a packet. Pure.

pub(crate) mod outcome;
pub(crate) mod tcp;
pub(crate) mod udp;
