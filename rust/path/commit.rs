// SPDX-License-Identifier: GPL-2.0

//! Last in POST_ROUTING, about when the connection is confirmed: creates the flow of a forwarded
//! packet's connection, and makes the route that the packet took the live one of its direction.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::{Made, NoFlow},
        Flow, //
    },
    kapi::{
        nf::{
            hook::{priority, Hook},
            packet::Forwarded,
            skb::{HookSkb, PostRouting, Verdict}, //
        },
        sync::{rcu::ReadSide, time}, //
    },
    route::miss::Miss,
    state::{
        shared::Shared,
        stats::Event,
        NetState, //
    },
};

/// The hook. `SKIPS`: it skips packets that an earlier hook served, because these have nothing to
/// commit.
pub(crate) struct Commit<const SKIPS: bool>;

impl<const SKIPS: bool> Hook for Commit<SKIPS> {
    type Data = NetState;
    type Point = PostRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PostRouting>) -> Verdict {
        if !(SKIPS && net.served.is_served(&skb)) {
            if let Some(packet) = skb.forwarded() {
                if !commit(&net, &packet, skb.rcu()) {
                    let made = make(&net, &packet, skb.rcu());
                    finish(net, made);
                }
            }
        }
        skb.accept()
    }
}

/// Makes the route that a packet took the live one. Returns `false` if the connection has no flow.
#[inline(always)]
pub(super) fn commit(net: &NetState, packet: &Forwarded<'_>, rcu: &ReadSide<'_>) -> bool {
    let Some(flow) = net.flows.of_conn(&packet.ct, rcu) else {
        return false;
    };
    let dir = packet.ct.dir();
    let direction = flow.direction(dir);
    if packet.xfrm {
        // The next packet has no use for the route that this one was given.
        direction.purge(rcu, |_| Some(Miss::Xfrm)).for_each(drop);
        flow.note(dir, Miss::Xfrm);
    } else if direction.commit(packet.dst, packet.iif, rcu) {
        net.stats.count(Event::Committed);
    }
    true
}

/// Creates the flow of a packet's connection. Returns `None` if there shall be none, because
/// conntrack may need room and may drop the connection early.
#[cold]
pub(super) fn make<'r>(
    net: &'r NetState,
    packet: &Forwarded<'_>,
    rcu: &ReadSide<'r>,
) -> Option<Made<'r>> {
    if packet.unassured && net.net.is_conntrack_nearly_full() {
        return None;
    }
    let flow = Flow::new(time::jiffies32());
    let from = net.shared.allocators();
    Some(net.flows.make(&packet.ct, flow, &from, rcu))
}

/// Counts a created flow, and queues the works that follow from it.
#[cold]
pub(super) fn finish(net: ArcBorrow<'_, NetState>, made: Option<Made<'_>>) {
    let Some(made) = made else {
        net.stats.count(Event::FlowScarce);
        return;
    };
    net.stats.count_many(Event::FlowGone, made.ended);
    net.stats.count(match made.flow {
        Ok(_) => Event::FlowNew,
        Err(NoFlow::Zone) => Event::FlowNoZone,
        Err(NoFlow::Busy) => Event::FlowBusy,
        Err(NoFlow::Memory) => Event::FlowNoMemory,
    });
    Shared::refill_if_asked(&net.shared);
    NetState::collect_later(net);
}
