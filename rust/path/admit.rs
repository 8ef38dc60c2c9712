// SPDX-License-Identifier: GPL-2.0

//! Last in PRE_ROUTING, for a packet of a new connection: checks the limit of its zone, and gives
//! the connection our extension.

use kernel::sync::ArcBorrow;

use crate::{
    flow::zone::Tally,
    kapi::nf::{
        conn::CtRef,
        conncount::NotCounted,
        skb::{HookSkb, PreRouting}, //
    },
    state::{stats::Event, NetState}, //
};

/// Returns whether the new connection may continue: `false` if its zone is full. An admitted
/// connection gets our extension.
#[cold]
pub(super) fn is_admitted(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    ct: &CtRef<'_>,
) -> bool {
    let placeholder = net.flows.placeholder_handle();
    // A packet of a VRF passes this hook twice.
    if ct.handle() == Some(placeholder) {
        return true;
    }
    NetState::make_room(net, skb.rcu());
    if net.flows.zones().is_any_limited() && !is_within_limit(net, skb, ct) {
        return false;
    }
    if ct.handle().is_none() && !ct.add_extension(placeholder) {
        net.stats.count(Event::NoExtension);
    }
    true
}

fn is_within_limit(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    ct: &CtRef<'_>,
) -> bool {
    let id = ct.conn().own_zone();
    let zones = net.flows.zones();
    let Some(limit) = zones.limit(id, skb.rcu()) else {
        return true;
    };
    match limit.admit(skb, ct) {
        Ok(()) => (),
        Err(NotCounted::Memory) => net.stats.count(Event::LimitNoMemory),
        Err(NotCounted::Full) => {
            if let Some(zone) = zones.get(id, skb.rcu()) {
                zone.count(Tally::Limited);
            }
            net.stats.count(Event::Limited);
            return false;
        }
    }
    // The collector removes dead connections from the count.
    NetState::collect_later(net);
    true
}
