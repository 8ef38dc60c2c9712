// SPDX-License-Identifier: GPL-2.0

//! Netfilter and conntrack.

pub(crate) mod conn;
pub(crate) mod ends;
pub(crate) mod hook;
pub(crate) mod ingress;
pub(crate) mod jump;
pub(crate) mod key;
pub(crate) mod observe;
pub(crate) mod packet;
pub(crate) mod peek;
pub(crate) mod pending;
pub(crate) mod ruleset;
pub(crate) mod seats;
pub(crate) mod skb;
pub(crate) mod tcp;
pub(crate) mod track;
pub(crate) mod tuple;
pub(crate) mod udp;
