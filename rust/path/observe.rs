// SPDX-License-Identifier: GPL-2.0

//! What becomes of packets is learned by observing some of them: from the hook before conntrack to
//! the end of POST_ROUTING, or, if rules drop them, to the end of PRE_ROUTING and no further.

use kernel::{
    error::Error,
    sync::{
        barrier::{smp_mb, Read},
        ArcBorrow, //
    },
};

use crate::{
    flow::table::Found,
    kapi::nf::{
        conn::CtRef,
        jump::OwnerId,
        observe::{Before, Observed, Observer},
        skb::{HookSkb, Point, PostRouting, PreRouting}, //
    },
    route::{
        pass::{Fate, Pass, Terms},
        slot::Changes,
        stamp::{Facts, Stamp},
        stay::Stay, //
    },
    state::{jump::Epoch, stats::Event, NetState},
};

/// Counts a packet that could jump and does not. Observes it if that may help the next one. Returns
/// whether it is observed.
#[cold]
pub(super) fn count_stay(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    found: &Found<'_, '_>,
    stay: Stay,
) -> bool {
    let observed = match stay {
        Stay::Unlearned | Stay::Rules | Stay::Route | Stay::Entry | Stay::CtMark => {
            observe(net, skb, found)
        }
        _ => Ok(false),
    };
    let stay = observed.err().unwrap_or(stay);
    found.entry().note_stay(found.dir(), stay);
    net.stats.count_stay(stay);
    observed.unwrap_or(false)
}

/// Begins to observe a packet. Returns whether it does: a direction whose packets are of two kinds
/// would be observed all the time, so one is observed in a jiffy. Fails with the reason why such a
/// packet never jumps.
fn observe(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    found: &Found<'_, '_>,
) -> Result<bool, Stay> {
    let (flow, dir, rcu) = (found.entry(), found.dir(), skb.rcu());
    let epoch = net.jumps.epoch(skb.family(), rcu);
    let Some(epoch) = epoch.filter(|epoch| epoch.ruleset.is_current(&net.net, rcu)) else {
        NetState::record_rules_later(net);
        return Err(Stay::Rules);
    };
    epoch.ruleset.check().map_err(|_| Stay::Unskippable)?;
    // Taken before the packet meets rules.
    let facts = net.facts();
    let is_fresh = |pass: &Pass| pass.terms().are_fresh(epoch.number, facts.jiffies);
    if net.flows.pass(flow, dir, rcu).is_some_and(is_fresh) {
        return Ok(false);
    }
    begin(skb, found, epoch, &facts)?;
    Ok(true)
}

/// Begins to observe a packet. `facts` were taken before it meets the rules of the epoch. Fails
/// with the reason why such a packet never jumps.
pub(super) fn begin(
    skb: &HookSkb<'_, PreRouting>,
    found: &Found<'_, '_>,
    epoch: &Epoch,
    facts: &Facts,
) -> Result<(), Stay> {
    let stamp = Stamp::new(facts).to_raw();
    let before = Before {
        epoch: epoch.number,
        stamp,
    };
    let observer = epoch.ruleset.observer();
    Ok(observer.observe(skb, found.conn(), found.dir(), before)?)
}

/// Learns from a packet that leaves as a jump would have sent it: if its route is still valid, and
/// no rule has changed, the direction's next packets may jump.
#[cold]
pub(super) fn learn(
    net: &NetState,
    skb: &HookSkb<'_, PostRouting>,
    observed: Observed,
) -> Option<()> {
    let packet = skb.forwarded()?;
    teach(net, skb, &packet.ct, (observed, Fate::Leaves))
}

/// Learns from a packet that goes on from PRE_ROUTING. If its connection has the drop mark, it goes
/// to FORWARD, and it never comes to POST_ROUTING, rules drop the direction's packets. Returns
/// whether the connection has the mark.
#[cold]
pub(super) fn enter(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    (observer, is_served): (&Observer, bool),
) -> bool {
    let drops = net.settings.drop_marks();
    let Some(ct) = skb.ct().filter(|ct| drops.has(ct.conn().mark())) else {
        return false;
    };
    if let Some(observed) = observer.enters(skb).filter(|_| is_served) {
        teach(net, skb, &ct, (observed, Fate::Dropped));
    }
    true
}

/// Notes that a packet has passed all rules: they do not drop those of its direction.
#[cold]
pub(super) fn pass_rules(net: &NetState, skb: &HookSkb<'_, PostRouting>) -> Option<()> {
    let ct = skb.ct()?;
    let by_tuple = |_| net.flows.of_conn_by_tuple(&ct, skb.rcu());
    let flow = net.flows.of_conn(&ct, skb.rcu()).or_else(by_tuple).ok()?;
    let is_drop = |dir, pass: &Pass| dir == ct.dir() && pass.terms().is_drop();
    net.flows.drop_passes(flow, skb.rcu(), is_drop);
    Some(())
}

/// Stores what becomes of the packets of a direction, as observed, if the route is still valid and
/// no rule has changed.
fn teach<P: Point>(
    net: &NetState,
    skb: &HookSkb<'_, P>,
    ct: &CtRef<'_>,
    (observed, fate): (Observed, Fate),
) -> Option<()> {
    let (rcu, dir) = (skb.rcu(), ct.dir());
    let flow = net.flows.of_conn(ct, rcu).ok()?;
    net.jumps.epoch(skb.family(), rcu).filter(|epoch| {
        epoch.number == observed.epoch() && epoch.ruleset.is_current(&net.net, rcu)
    })?;
    // ORDERING: Pairs with the full exchange in `forget`: a change of the marks ends all epochs
    // before it. So if the marks are the old ones here, so is the epoch.
    smp_mb(Read);
    let is_dropped = net.settings.drop_marks().has(observed.ct_mark());
    if is_dropped != (fate == Fate::Dropped)
        || !(is_dropped || net.settings.jump_marks().has(observed.ct_mark()))
    {
        return None;
    }
    let slot = flow
        .direction(dir)
        .live(rcu)
        .find(|slot| observed.dst() == *slot.dst() && slot.key().iif == observed.iif())?;
    slot.check_now(net, || ct.ends(), rcu).ok()?;
    let (seen, epoch) = (Stamp::from_raw(observed.stamp()), observed.epoch());
    let iif = observed.iif();
    let terms = Terms::new(fate, (seen, slot.stamp()), epoch, &net.refs);
    let dst = slot.dst().duplicate(rcu)?;
    let pass = observed.into_pass(dst, skb.family(), OwnerId::new(flow))?;
    let pass = Pass::new(pass, terms);
    if net.settings.mode().jumps_at_ingress() {
        net.jumps.devices().add(iif);
    }
    let stored = net
        .shared
        .passes
        .alloc(pass)
        .map_err(Error::from)
        .and_then(|pass| net.flows.store_pass(flow, dir, pass.into(), rcu));
    net.stats.count(match stored {
        Ok(()) => Event::Learned,
        Err(_) => Event::LearnedNoMemory,
    });
    Some(())
}
