// SPDX-License-Identifier: GPL-2.0

//! Last in PRE_ROUTING, for a packet of a new connection: looks for flows whose connections ended,
//! and gives the connection our extension.

use kernel::sync::ArcBorrow;

use crate::{
    kapi::nf::{
        conn::CtRef,
        skb::{HookSkb, PreRouting}, //
    },
    state::{stats::Event, NetState}, //
};

/// Prepares a new connection for a flow.
#[cold]
pub(super) fn admit(net: ArcBorrow<'_, NetState>, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>) {
    let placeholder = net.flows.placeholder_handle();
    // A packet of a VRF passes this hook twice.
    if ct.handle() == Some(placeholder) {
        return;
    }
    NetState::make_room(net, skb.rcu());
    if ct.handle().is_none() && !ct.add_extension(placeholder) {
        net.stats.count(Event::NoExtension);
    }
}
