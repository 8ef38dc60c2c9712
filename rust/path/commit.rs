// SPDX-License-Identifier: GPL-2.0

//! Last in POST_ROUTING, about when the connection is confirmed, for the packets that an earlier
//! hook noted: creates the flow of a forwarded packet's connection, or makes the route that the
//! packet took the live one of its direction.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::{Made, NoFlow, Unlearned},
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
    path::learn,
    route::miss::Miss,
    state::{
        shared::Shared,
        stats::Event,
        NetState, //
    },
};

/// The hook.
pub(crate) struct Commit;

impl Hook for Commit {
    type Data = NetState;
    type Point = PostRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PostRouting>) -> Verdict {
        if net.pending.has(&skb) {
            run(net, &skb);
        }
        skb.accept()
    }
}

/// Commits what a noted packet has to commit.
#[cold]
pub(super) fn run(net: ArcBorrow<'_, NetState>, skb: &HookSkb<'_, PostRouting>) {
    if let Some(packet) = commit(&net, skb) {
        let made = make(&net, &packet, skb.rcu());
        finish(net, made);
    }
}

/// Makes the route that a packet took the live one. If the packet's connection has no flow and
/// shall get one, returns the packet instead.
pub(super) fn commit<'p>(
    net: &NetState,
    skb: &'p HookSkb<'_, PostRouting>,
) -> Option<Forwarded<'p>> {
    let packet = skb.forwarded()?;
    let after = net.settings.learn_after();
    let is_noted = net.pending.is_noted(skb);
    if is_noted {
        net.pending.forget(skb);
    }
    let flow = match net.flows.of_conn(&packet.ct, skb.rcu()) {
        Ok(flow) => flow,
        // The note may have been an earlier packet's, or another CPU's.
        Err(Unlearned::Count(count)) if count < after => return None,
        Err(Unlearned::Uncounted) if !is_noted && !learn::is_chosen(after) => return None,
        Err(_) => return Some(packet),
    };
    let dir = packet.ct.dir();
    let direction = flow.direction(dir);
    if packet.xfrm {
        // The next packet has no use for the route that this one was given.
        direction
            .purge(skb.rcu(), |_| Some(Miss::Xfrm))
            .for_each(drop);
        flow.note(dir, Miss::Xfrm);
    } else if direction.commit(packet.dst, packet.iif, net, || packet.ct.ends(), skb.rcu()) {
        net.stats.count(Event::Committed);
    }
    None
}

/// Creates the flow of a packet's connection. Returns `None` if there shall be none, because
/// conntrack may need room and may drop the connection early.
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
