// SPDX-License-Identifier: GPL-2.0

//! Last in PRE_ROUTING, for a packet of a connection with a flow: attaches the cached route. If
//! there is no valid one, makes the kernel choose a route and stages its choice.

use kernel::sync::ArcBorrow;

use crate::{
    flow::Flow,
    kapi::{
        mem::rcu::RcuBox,
        nf::{
            conn::{CtRef, Dir},
            hook::{priority, Hook},
            packet::{Chosen, Headers},
            skb::{HookSkb, PreRouting, Verdict}, //
        },
    },
    path::learn,
    route::{
        direction::Direction,
        key::Key,
        miss::Miss,
        slot::{PacketKey, Slot},
        stamp::{Facts, Stamp}, //
    },
    state::{stats::Event, NetState}, //
};

/// The hook. Another hook at the last priority may still run after it, and must not change the
/// fields that routing looks at.
pub(crate) struct LearnAndServe;

impl Hook for LearnAndServe {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        if let Some(ct) = learn::read(&net, &skb) {
            if ct.was_counted() {
                net.stats.count_packet(Err(Miss::NoFlow));
            } else if ct.is_confirmed() {
                serve(&net, &skb, &ct);
            } else {
                learn::begin(net, &skb, &ct);
            }
        }
        skb.accept()
    }
}

/// Serves a packet of a confirmed connection, and counts the result. Not inlined, so that the hook
/// saves few registers for packets that are only counted.
#[inline(never)]
fn serve(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>) {
    visit(net, skb, ct, |direction, headers| {
        direction.serve(skb, &key_of(headers), &net.facts())
    });
}

/// As [`serve`], but leaves the choice of the route to the kernel, so that verify mode can compare
/// it.
pub(super) fn serve_dry(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>) {
    visit(net, skb, ct, |direction, headers| {
        would_serve(net, skb, direction, headers).map(|_| direction.count_hit())
    });
}

/// Lets `serve` serve a packet that is fit for it. If it does not, makes the kernel choose a route,
/// which renews the live one or is staged. Counts the result.
#[inline(always)]
fn visit<'r>(
    net: &'r NetState,
    skb: &HookSkb<'r, PreRouting>,
    ct: &CtRef<'_>,
    serve: impl FnOnce(&'r Direction, &Headers) -> Result<(), Miss>,
) {
    let flow = match net.flows.of_conn(ct, skb.rcu()) {
        Ok(flow) => flow,
        Err(unlearned) => {
            net.stats.count_packet(Err(Miss::NoFlow));
            return learn::count(net, skb, ct, unlearned);
        }
    };
    let Some(headers) = skb.headers(ct) else {
        return;
    };
    let result = match headers.fit() {
        Ok(()) => serve(flow.direction(ct.dir()), &headers).map_err(|miss| {
            let key = key_of(&headers);
            route(net, skb, flow, ct.dir(), Unserved { key, miss })
        }),
        Err(unfit) => Err(unfit.into()),
    };
    finish(net, flow, ct.dir(), result);
}

/// Returns the slot whose route [`serve`] would attach to a packet, or the reason why it would not.
pub(super) fn would_serve<'r, P>(
    net: &NetState,
    skb: &HookSkb<'r, P>,
    direction: &'r Direction,
    headers: &Headers,
) -> Result<&'r Slot, Miss> {
    headers.fit()?;
    let slot = direction.usable(&key_of(headers), &net.facts(), skb.rcu())?;
    if slot.dst().is_valid(skb.rcu()) {
        Ok(slot)
    } else {
        Err(Miss::Obsolete)
    }
}

/// Counts and notes whether a packet was served.
#[inline(always)]
fn finish(net: &NetState, flow: &Flow, dir: Dir, result: Result<(), Miss>) {
    net.stats.count_packet(result);
    match result {
        // The reason for an empty direction was noted when its route was dropped.
        Ok(()) | Err(Miss::Empty) => (),
        // POST_ROUTING notes this again if the packets still go into IPsec.
        Err(Miss::Xfrm) => flow.note(dir, Miss::Empty),
        Err(miss) => flow.note(dir, miss),
    }
}

/// Returns the key of a packet.
fn key_of(headers: &Headers) -> PacketKey {
    let key = Key::new(
        headers.iif(),
        headers.mark(),
        headers.dscp(),
        headers.flowlabel(),
        headers.source_check(),
    );
    PacketKey {
        key,
        path_hash: headers.path_hash(),
    }
}

/// A packet that was not served.
struct Unserved {
    key: PacketKey,
    miss: Miss,
}

/// Makes the kernel choose the route of a packet that was not served. The choice renews the live
/// route if it leads the same way, and is staged otherwise. Returns the reason to count.
#[cold]
fn route(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    flow: &Flow,
    dir: Dir,
    packet: Unserved,
) -> Miss {
    // If packets leave by another route than they were given, there is none to cache.
    let miss = match (packet.miss, flow.last(dir)) {
        (Miss::Empty | Miss::Obsolete, Miss::Xfrm) => Miss::Xfrm,
        (miss, _) => miss,
    };
    let found = match flow.direction(dir).suitable(&packet.key, skb.rcu()) {
        Some(old) => renew(net, skb, flow, dir, &packet.key, old),
        None => stage(net, skb, flow, dir, packet.key.key),
    };
    match found {
        Ok(event) => {
            net.stats.count(event);
            miss
        }
        Err(miss) => miss,
    }
}

/// Renews an outdated live route of a direction: at most once in a jiffy, unless the last renewal
/// was worth its cost.
fn renew(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    flow: &Flow,
    dir: Dir,
    packet: &PacketKey,
    old: &Slot,
) -> Result<Event, Miss> {
    let direction = flow.direction(dir);
    // Taken before the lookup, so that a change during the lookup invalidates the slot.
    let facts = net.facts();
    if !flow.is_renewal_paid(dir) && !flow.may_try(dir, facts.jiffies) {
        return Err(Miss::Limited);
    }
    let chosen = skb.route().inspect_err(|_| {
        // Without a live route, the next packet may try only in the next jiffy.
        direction.discard(old, skb.rcu());
    })?;
    check_settled(net)?;
    if old.renew(&chosen, Stamp::new(&facts)) {
        return Ok(Event::Renewed);
    }
    let slot = make(net, &chosen, packet.key, &facts)?;
    net.pending.note(skb);
    if chosen.leads_as(old.dst(), skb.rcu()) {
        direction.replace(old, slot, skb.rcu());
        Ok(Event::Renewed)
    } else {
        direction.stage(slot);
        Ok(Event::Staged)
    }
}

/// Stages a route for a direction that has none for such packets.
fn stage(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    flow: &Flow,
    dir: Dir,
    key: Key,
) -> Result<Event, Miss> {
    let facts = net.facts();
    net.pending.note(skb);
    if !flow.may_try(dir, facts.jiffies) {
        return Err(Miss::Limited);
    }
    let chosen = skb.route()?;
    check_settled(net)?;
    flow.direction(dir).stage(make(net, &chosen, key, &facts)?);
    Ok(Event::Staged)
}

/// Fails if the route that was chosen before this call may be that of a change in progress.
fn check_settled(net: &NetState) -> Result<(), Miss> {
    net.validity
        .is_settled()
        .then_some(())
        .ok_or(Miss::Unsettled)
}

/// Makes a slot for a route. `facts` were read before it was chosen.
fn make(
    net: &NetState,
    chosen: &Chosen<'_>,
    key: Key,
    facts: &Facts,
) -> Result<RcuBox<Slot>, Miss> {
    let slot = Slot::new(chosen.keep()?, key, Stamp::new(facts), net.refs.clone());
    let slot = net.shared.slots.alloc(slot).map_err(|_| Miss::NoMemory)?;
    Ok(RcuBox::from(slot))
}
