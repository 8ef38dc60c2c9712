// SPDX-License-Identifier: GPL-2.0

//! Last in PRE_ROUTING, for a packet of a connection with a flow: attaches the cached route. If
//! there is no valid one, makes the kernel choose a route. The choice renews the live route, or is
//! staged.

use core::mem::MaybeUninit;

use kernel::sync::ArcBorrow;

use crate::{
    flow::{table::Unlearned, Flow},
    kapi::{
        mem::rcu::RcuBox,
        nf::{
            conn::{CtRef, Dir},
            hook::{priority, Hook},
            key::Key,
            packet::{Chosen, Headers},
            skb::{HookSkb, PreRouting, Verdict}, //
        },
    },
    path::learn,
    route::{
        direction::Direction,
        miss::Miss,
        slot::{Changes, PacketKey, Slot},
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
        learn_and_serve(net, &skb);
        skb.accept()
    }
}

/// Attaches the cached route to a packet, or makes the kernel choose its route, or counts it for a
/// flow. Returns whether the packet got a cached route.
#[inline(always)]
pub(super) fn learn_and_serve(net: ArcBorrow<'_, NetState>, skb: &HookSkb<'_, PreRouting>) -> bool {
    let mut buf = MaybeUninit::uninit();
    let learn_after = net.settings.learn_after();
    let Some((ct, flow)) = net.flows.of_packet(skb, learn_after, &mut buf) else {
        return false;
    };
    if ct.was_counted() {
        net.stats.count_packet(Err(Miss::NoFlow));
        return false;
    }
    if let Some(flow) = flow {
        // Only confirmed connections have a flow.
        return serve(&net, skb, ct, flow);
    }
    if ct.is_confirmed() {
        return serve_searched(&net, skb, ct);
    }
    learn::begin(net, skb, ct);
    false
}

/// Serves a packet of a flow, and counts the result. Returns whether it was served. Not inlined, so
/// that the hook saves few registers for packets that are only counted.
#[inline(never)]
fn serve(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>, flow: &Flow) -> bool {
    let served = flow.direction(ct.dir()).serve(skb, ct, net);
    match served {
        Ok(()) => net.stats.count_packet(Ok(())),
        Err(why) => rest_or_leave(net, skb, ct, flow, why),
    }
    served.is_ok()
}

/// Counts a packet that was not served, and leaves its outdated route outdated if renewals are in
/// vain. Otherwise as [`leave`].
#[cold]
fn rest_or_leave(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    ct: &CtRef<'_>,
    flow: &Flow,
    why: Option<Miss>,
) {
    match why {
        Some(miss) if flow.rests(ct.dir()) => {
            net.stats.count_packet(Err(miss));
            flow.note(ct.dir(), miss);
        }
        _ => leave(net, skb, ct, flow),
    }
}

/// As [`serve`], for a packet of a confirmed connection whose extension does not lead to a flow.
#[cold]
fn serve_searched(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>) -> bool {
    match net.flows.of_conn(ct, skb.rcu()) {
        Ok(flow) => serve(net, skb, ct, flow),
        Err(unlearned) => {
            count(net, skb, ct, unlearned);
            false
        }
    }
}

/// As [`serve`], but leaves the choice of the route to the kernel, so that verify mode can compare
/// it.
pub(super) fn serve_dry(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>) {
    let flow = match net.flows.of_conn(ct, skb.rcu()) {
        Ok(flow) => flow,
        Err(unlearned) => return count(net, skb, ct, unlearned),
    };
    let would_serve = |headers| would_serve(net, skb, (ct, flow), &headers).is_ok();
    if skb.headers(ct).is_some_and(would_serve) {
        flow.direction(ct.dir()).count_hit();
        net.stats.count_packet(Ok(()));
    } else {
        leave(net, skb, ct, flow);
    }
}

/// Counts a packet of a connection without a flow.
#[cold]
fn count(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>, unlearned: Unlearned) {
    net.stats.count_packet(Err(Miss::NoFlow));
    learn::count(net, skb, ct, unlearned);
}

/// Leaves a packet that was not served to the kernel: makes the kernel choose its route, which
/// renews the live one or is staged. Counts the reason.
#[cold]
fn leave(net: &NetState, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>, flow: &Flow) {
    let dir = ct.dir();
    let Some(headers) = skb.headers(ct) else {
        return;
    };
    let miss = match headers.fit() {
        Ok(()) => match would_serve(net, skb, (ct, flow), &headers) {
            Err(miss) => {
                let packet = Unserved {
                    ct,
                    flow,
                    dir,
                    key: key_of(&headers),
                    miss,
                };
                route(net, skb, &packet)
            }
            // Another CPU has renewed the route a moment ago.
            Ok(_) => Miss::Obsolete,
        },
        Err(unfit) => unfit.into(),
    };
    net.stats.count_packet(Err(miss));
    match miss {
        // The reason for an empty direction was noted when its route was dropped.
        Miss::Empty => (),
        // POST_ROUTING notes this again if the packets still go into IPsec.
        Miss::Xfrm => flow.note(dir, Miss::Empty),
        miss => flow.note(dir, miss),
    }
}

/// Returns the slot whose route [`serve`] would attach to a packet, or the reason why it would not.
pub(super) fn would_serve<'r, P>(
    net: &NetState,
    skb: &HookSkb<'r, P>,
    (ct, flow): (&CtRef<'_>, &'r Flow),
    headers: &Headers,
) -> Result<&'r Slot, Miss> {
    headers.fit()?;
    let direction = flow.direction(ct.dir());
    let slot = direction.usable(&key_of(headers), net, || ct.ends(), skb.rcu())?;
    if slot.dst().is_valid(skb.rcu()) {
        Ok(slot)
    } else {
        Err(Miss::Obsolete)
    }
}

/// Returns the key of a packet.
fn key_of(headers: &Headers) -> PacketKey {
    PacketKey {
        key: headers.key(),
        path_hash: headers.path_hash(),
    }
}

/// A packet that was not served.
struct Unserved<'a> {
    ct: &'a CtRef<'a>,
    flow: &'a Flow,
    dir: Dir,
    key: PacketKey,
    miss: Miss,
}

impl<'a> Unserved<'a> {
    fn direction(&self) -> &'a Direction {
        self.flow.direction(self.dir)
    }
}

/// Makes the kernel choose the route of a packet that was not served. The choice renews the live
/// route if it leads the same way, and is staged otherwise. Returns the reason to count.
#[cold]
fn route(net: &NetState, skb: &HookSkb<'_, PreRouting>, packet: &Unserved<'_>) -> Miss {
    // If packets leave by another route than they were given, there is none to cache.
    let miss = match (packet.miss, packet.flow.last(packet.dir)) {
        (Miss::Empty | Miss::Obsolete, Miss::Xfrm) => Miss::Xfrm,
        (miss, _) => miss,
    };
    let found = match packet.direction().suitable(&packet.key, skb.rcu()) {
        Some(old) => renew(net, skb, packet, old),
        None => stage(net, skb, packet),
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
    packet: &Unserved<'_>,
    old: &Slot,
) -> Result<Event, Miss> {
    let (flow, dir, direction) = (packet.flow, packet.dir, packet.direction());
    // Taken before the lookup, so that a change during the lookup invalidates the slot.
    let facts = net.facts();
    // In any case, this try is noted.
    let is_first = flow.may_try(dir, facts.jiffies);
    if !is_first && !flow.is_renewal_paid(dir) {
        return Err(Miss::Limited);
    }
    let has_served = flow.try_renewal(dir);
    let chosen = skb.route(net.validity.is_any_dscp(skb.family()))?;
    check_settled(net)?;
    if net.net.has_ipsec_policies() {
        // POST_ROUTING sees whether the packets go into IPsec now.
        net.pending.note(skb);
    }
    if old.renew(&chosen, Stamp::new(&facts)) {
        direction.unstage(skb.rcu());
        flow.note_renewal(dir, has_served);
        return Ok(Event::Renewed);
    }
    let slot = make(net, &chosen, packet.key.key, &facts)?;
    if chosen.leads_as(old.dst(), skb.rcu()) {
        direction.replace(old, slot, skb.rcu());
        direction.unstage(skb.rcu());
        flow.note_renewal(dir, has_served);
        Ok(Event::Renewed)
    } else {
        net.pending.note(skb);
        put(net, skb, packet, slot)
    }
}

/// Stages a route for a direction that has none for such packets.
fn stage(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    packet: &Unserved<'_>,
) -> Result<Event, Miss> {
    let facts = net.facts();
    let (direction, iif) = (packet.direction(), packet.key.key.iif);
    if !direction.has_room(iif, net, || packet.ct.ends(), skb.rcu()) {
        return Err(packet.miss);
    }
    net.pending.note(skb);
    if !packet.flow.may_try(packet.dir, facts.jiffies) {
        return Err(Miss::Limited);
    }
    let chosen = skb.route(net.validity.is_any_dscp(skb.family()))?;
    check_settled(net)?;
    let slot = make(net, &chosen, packet.key.key, &facts)?;
    put(net, skb, packet, slot)
}

/// Stages a slot, unless another CPU has taken the room for it.
fn put(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    packet: &Unserved<'_>,
    slot: RcuBox<Slot>,
) -> Result<Event, Miss> {
    let ends = || packet.ct.ends();
    let is_staged = packet.direction().stage(slot, net, ends, skb.rcu());
    is_staged.then_some(Event::Staged).ok_or(packet.miss)
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
    let slot = Slot::new(chosen.keep()?, key, Stamp::new(facts), &net.refs);
    let slot = net.shared.slots.alloc(slot).map_err(|_| Miss::NoMemory)?;
    Ok(RcuBox::from(slot))
}
