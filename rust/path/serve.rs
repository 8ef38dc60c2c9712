// SPDX-License-Identifier: GPL-2.0

//! Routes on the packet path: the two hooks, each a few lines of what happens in which order.
//!
//! Softirq, or process context with bottom halves on; under RCU. Both hooks accept every packet but
//! what a zone's limit keeps out; whatever they are in doubt about goes the kernel's own way.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::{NoFlow, Supply},
        zone::Tally,
        Flow, //
    },
    kapi::{
        entry::registry::Entry,
        nf::{
            conncount::NotCounted,
            hook::{priority, Hook, Inet, State, Verdict},
            packet::{Forwarded, Packet, Place, SkBuff, Unfit}, //
        },
        sync::{
            rcu::RcuBox,
            time, //
        },
    },
    netns::{NetState, Shared},
    route::{
        key::Key,
        miss::Reason,
        slot::{Now, Slot}, //
    },
    state::stats::Event, //
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
    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        if !net.is_on() {
            return Verdict::Accept;
        }
        let caching = net.is_caching();
        if caching || skb.is_unconfirmed() {
            let mut place = Place::new();
            if let Some(packet) = skb.packet(&mut place, state) {
                if !packet.is_confirmed() {
                    net.flows.recent().serve(skb, false);
                    return welcome(net, skb, packet, state);
                }
                if caching {
                    consume(&net, skb, packet, state);
                }
            }
        }
        Verdict::Accept
    }
}

/// Gives a new connection our extension, unless its zone is full: then the packet is dropped, and
/// the connection with it.
#[cold]
fn welcome(
    net: ArcBorrow<'_, NetState>,
    skb: &SkBuff,
    packet: &Packet<'_>,
    state: &State<'_>,
) -> Verdict {
    // A packet of a VRF comes by twice.
    if net.flows.is_welcomed(packet.handle()) {
        return Verdict::Accept;
    }
    if net.flows.zones().is_any_limited() && !is_admitted(net, skb, packet, state) {
        return Verdict::Drop;
    }
    if packet.handle().is_none() && !skb.add_extension(packet, net.flows.welcome()) {
        net.count(Event::NoExtension);
    }
    Verdict::Accept
}

fn is_admitted(
    net: ArcBorrow<'_, NetState>,
    skb: &SkBuff,
    packet: &Packet<'_>,
    state: &State<'_>,
) -> bool {
    let id = packet.ct().own_zone();
    let zones = net.flows.zones();
    let Some(limit) = zones.limit(id, state.rcu()) else {
        return true;
    };
    match limit.admit(skb, state) {
        Ok(()) => (),
        Err(NotCounted::Memory) => net.count(Event::LimitNoMemory),
        Err(NotCounted::Full) => {
            if let Some(zone) = zones.get(id, state.rcu()) {
                zone.count(Tally::Limited);
            }
            net.count(Event::Limited);
            return false;
        }
    }
    // Those that are gone are to be forgotten.
    NetState::arm(net);
    true
}

/// The route that the packet would be given if it came to [`Consume`] now.
pub(crate) fn would_serve<'r>(
    net: &'r NetState,
    skb: &SkBuff,
    state: &State<'r>,
) -> Option<&'r Slot> {
    if !net.is_caching() {
        return None;
    }
    let mut place = Place::new();
    let packet = skb
        .packet(&mut place, state)
        .filter(|packet| packet.is_confirmed())?;
    let rcu = state.rcu();
    let flow = net
        .flows
        .find(packet.ct(), packet.handle(), packet.dir(), rcu)?;
    let slot = flow.direction(packet.dir()).live(rcu)?;
    let usable = packet.unfit().is_none() && slot.check(&key_of(packet), net.now()).is_ok();
    (usable && slot.dst().is_valid(rcu)).then_some(slot)
}

fn key_of(packet: &Packet<'_>) -> Key {
    Key::new(
        packet.iif(),
        packet.mark(),
        packet.dscp(),
        packet.flowlabel(),
        packet.source_check(),
    )
}

#[inline(always)]
fn consume(net: &NetState, skb: &SkBuff, packet: &Packet<'_>, state: &State<'_>) {
    let Some(flow) = net
        .flows
        .find(packet.ct(), packet.handle(), packet.dir(), state.rcu())
    else {
        net.flows.recent().serve(skb, false);
        net.count_packet(Reason::NoFlow);
        return;
    };
    let reason = serve(net, skb, packet, flow, state);
    net.flows.recent().serve(skb, reason == Reason::Hit);
    match reason {
        // Why there is nothing was noted when it went.
        Reason::Hit | Reason::Empty => (),
        // POST_ROUTING says so again, if it goes on.
        Reason::Xfrm => flow.note(packet.dir(), Reason::Empty),
        _ => flow.note(packet.dir(), reason),
    }
    net.count_packet(reason);
}

/// Gives the packet the live route; failing that, has the kernel choose and stages its choice.
#[inline(always)]
fn serve(
    net: &NetState,
    skb: &SkBuff,
    packet: &Packet<'_>,
    flow: &Entry<Flow>,
    state: &State<'_>,
) -> Reason {
    if let Some(unfit) = packet.unfit() {
        return unfit.into();
    }
    let key = key_of(packet);
    let direction = flow.direction(packet.dir());
    // Before the lookup: what happens during it makes the slot old.
    let now = net.now();
    // The kernel's own choice is to be seen: CompareRoute compares it.
    let give = !net.is_verifying();
    match direction.consume(skb, &key, now, give, state) {
        Ok(()) => Reason::Hit,
        Err(reason) => stage(net, skb, packet, flow, key, now, reason, state),
    }
}

/// Has the kernel choose the packet's route, which was not served for `reason`, and keeps it.
#[cold]
#[expect(clippy::too_many_arguments)]
fn stage(
    net: &NetState,
    skb: &SkBuff,
    packet: &Packet<'_>,
    flow: &Entry<Flow>,
    key: Key,
    now: Now,
    reason: Reason,
    state: &State<'_>,
) -> Reason {
    if !flow.may_try(packet.dir(), now.jiffies) {
        return Reason::Limited;
    }
    // There is nothing of use, since packets leave by other routes.
    let reason = match (reason, flow.last(packet.dir())) {
        (Reason::Empty | Reason::Obsolete, Reason::Xfrm) => Reason::Xfrm,
        _ => reason,
    };
    let route = match skb.route(state) {
        Ok(route) => route,
        Err(unfit) => return unfit.into(),
    };
    if !net.is_settled() {
        return Reason::Unsettled;
    }
    let slot = Slot::new(route, key, now, net.held.clone());
    let Ok(slot) = net.shared.slots.alloc(slot) else {
        return Reason::NoMemory;
    };
    flow.direction(packet.dir()).stage(RcuBox::from(slot));
    net.count(Event::Staged);
    reason
}

/// After SNAT, about when the connection is confirmed: makes the flow of a forwarded packet's
/// connection, and the route that the packet goes by its direction's live one.
pub(crate) struct Commit;

impl Hook for Commit {
    type Data = NetState;

    const POINT: Inet = Inet::PostRouting;
    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        // What goes by its direction's live route has nothing to commit; nor has what was found by the
        // lookup where no routes are kept.
        let may_be_served = net.is_caching() || net.is_looking_up();
        if net.is_on() && !(may_be_served && net.flows.recent().is_served(skb)) {
            if let Some(packet) = skb.forwarded(state) {
                commit(net, &packet, state);
            }
        }
        Verdict::Accept
    }
}

#[inline(always)]
fn commit(net: ArcBorrow<'_, NetState>, packet: &Forwarded<'_>, state: &State<'_>) {
    let rcu = state.rcu();
    match net.flows.find(packet.ct, packet.handle, packet.dir, rcu) {
        Some(flow) => {
            let direction = flow.direction(packet.dir);
            if packet.xfrm {
                // What it was given is of no use to the next one.
                direction.purge(rcu, |_| Some(Reason::Xfrm)).for_each(drop);
                flow.note(packet.dir, Reason::Xfrm);
            } else if direction.commit(packet.dst, packet.iif, rcu) {
                net.count(Event::Committed);
            }
        }
        None => make_flow(net, packet, state),
    }
}

#[cold]
fn make_flow(net: ArcBorrow<'_, NetState>, packet: &Forwarded<'_>, state: &State<'_>) {
    if packet.unassured && packet.ct.net().is_conntrack_scarce() {
        net.count(Event::FlowScarce);
        return;
    }
    let make = || {
        let flow = Flow::new(net.held.clone(), time::jiffies32());
        let supply = Supply {
            flows: &net.shared.flows,
            zones: &net.shared.stock,
        };
        let ended = || net.count(Event::FlowGone);
        net.flows
            .make(packet.ct, packet.handle, flow, supply, ended, state.rcu())
            .map(|_| ())
    };
    let made = if net.is_verifying() {
        net.meter.making(make)
    } else {
        make()
    };
    net.count(match made {
        Ok(()) => Event::FlowNew,
        Err(NoFlow::Zone) => Event::FlowNoZone,
        Err(NoFlow::Busy) => Event::FlowBusy,
        Err(NoFlow::Memory) => Event::FlowNoMemory,
    });
    Shared::refill_if_asked(&net.shared);
    NetState::arm(net);
}
