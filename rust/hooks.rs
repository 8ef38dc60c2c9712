// SPDX-License-Identifier: GPL-2.0

//! The packet path: the two hooks, each a few lines of what happens in which order.
//!
//! Softirq, or process context with bottom halves on; under RCU. Both hooks accept every packet;
//! whatever they are in doubt about goes the kernel's own way.

#![deny(unsafe_code)]

use kernel::sync::ArcBorrow;

use crate::{
    conntrack::{flow::Flow, table::NoFlow},
    kapi::{
        hook::{Hook, Inet, State, Verdict},
        rcu::RcuBox,
        registry::Entry,
        skb::{Forwarded, Packet, SkBuff, Unfit},
        time, //
    },
    netns::{NetState, Shared},
    route::{key::Key, reason::Reason, slot::Slot},
    stats::Event, //
};

impl From<Unfit> for Reason {
    fn from(unfit: Unfit) -> Self {
        const { assert!(Unfit::COUNT == Reason::UNFIT_COUNT) };
        Self::from_unfit(unfit.index())
    }
}

/// After mangle and DNAT, before the route is chosen: gives the packet its flow's route. Another
/// hook at the very last priority may still come after it, and must not change what routing
/// looks at.
pub(crate) struct Consume;

impl Hook for Consume {
    type Data = NetState;

    const POINT: Inet = Inet::PreRouting;
    const PRIORITY: i32 = i32::MAX;

    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        if net.is_on() {
            if let Some(packet) = skb.packet(state) {
                consume(&net, skb, &packet, state);
            }
        }
        Verdict::Accept
    }
}

fn consume(net: &NetState, skb: &SkBuff, packet: &Packet<'_>, state: &State<'_>) {
    if !packet.confirmed {
        if packet.handle.is_none() && !skb.add_extension(packet) {
            net.count(Event::NoExtension);
        }
        return;
    }
    if !net.is_caching() {
        return;
    }
    let Some(flow) = net
        .flows
        .find(packet.ct, packet.handle, packet.dir, state.rcu())
    else {
        net.count_packet(Reason::NoFlow);
        return;
    };
    let reason = serve(net, skb, packet, flow, state);
    flow.note(packet.dir, reason);
    net.count_packet(reason);
}

/// Gives the packet the live route; failing that, has the kernel choose and stages its choice.
fn serve(
    net: &NetState,
    skb: &SkBuff,
    packet: &Packet<'_>,
    flow: &Entry<Flow>,
    state: &State<'_>,
) -> Reason {
    if let Some(unfit) = packet.unfit {
        return unfit.into();
    }
    let key = Key {
        iif: packet.iif,
        mark: packet.mark,
        dscp: packet.dscp,
        source_check: packet.source_check,
    };
    let rcu = state.rcu();
    let direction = flow.direction(packet.dir);
    // Before the lookup: what happens during it makes the slot old.
    let now = net.now();
    let Err(reason) = direction.consume(skb, &key, now, rcu) else {
        return Reason::Hit;
    };
    if !flow.may_try(packet.dir, now.jiffies) {
        return Reason::Limited;
    }
    let route = match skb.route(rcu) {
        Ok(route) => route,
        Err(unfit) => return unfit.into(),
    };
    let slot = Slot::new(route, key, now, net.held.clone());
    let Ok(slot) = net.shared.slots.alloc(slot) else {
        return Reason::NoMemory;
    };
    direction.stage(RcuBox::from(slot));
    net.count(Event::Staged);
    reason
}

/// After SNAT, about when the connection is confirmed: makes the flow of a forwarded packet's
/// connection, and the route that the packet goes by its direction's live one.
pub(crate) struct Commit;

impl Hook for Commit {
    type Data = NetState;

    const POINT: Inet = Inet::PostRouting;
    const PRIORITY: i32 = i32::MAX;

    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        if net.is_on() {
            if let Some(packet) = skb.forwarded(state) {
                commit(net, &packet, state);
            }
        }
        Verdict::Accept
    }
}

fn commit(net: ArcBorrow<'_, NetState>, packet: &Forwarded<'_>, state: &State<'_>) {
    let rcu = state.rcu();
    match net.flows.find(packet.ct, packet.handle, packet.dir, rcu) {
        Some(flow) => {
            if flow
                .direction(packet.dir)
                .commit(packet.dst, packet.iif, rcu)
            {
                net.count(Event::Committed);
            }
        }
        None => make_flow(net, packet, state),
    }
}

fn make_flow(net: ArcBorrow<'_, NetState>, packet: &Forwarded<'_>, state: &State<'_>) {
    if packet.unassured && packet.ct.net().is_conntrack_scarce() {
        net.count(Event::FlowScarce);
        return;
    }
    let made = net.flows.make(
        packet.ct,
        packet.handle,
        Flow::new(net.held.clone(), time::jiffies32()),
        &net.shared.flows,
        &net.shared.stock,
        state.rcu(),
    );
    net.count(match made {
        Ok(_) => Event::FlowNew,
        Err(NoFlow::Zone) => Event::FlowNoZone,
        Err(NoFlow::Busy) => Event::FlowBusy,
        Err(NoFlow::Memory) => Event::FlowNoMemory,
    });
    Shared::refill_if_asked(&net.shared);
    NetState::arm(net);
}
