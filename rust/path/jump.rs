// SPDX-License-Identifier: GPL-2.0

//! Jumps: a packet of a connection that the administrator chose leaves from the hook before
//! conntrack, if it is known what would become of it.
//!
//! This is known if a packet of the same direction was observed from that hook to the end of
//! POST_ROUTING, left as the kernel's own code would have sent it, and nothing has changed since:
//! neither the firewall, nor the route, nor the connection's mark. [`LookupAndJump`] begins the
//! observation, [`ServeAndNote`] notes the route, and [`CommitAndLearn`] ends it.
//!
//! A packet that jumps is tracked as every other, and the kernel counts it as forwarded.

use kernel::{
    error::Error,
    sync::{
        barrier::{smp_mb, Read},
        ArcBorrow, //
    },
};

use crate::{
    flow::{
        table::{Found, FoundToJump},
        zone::Tally, //
    },
    kapi::{
        entry::lookup::LookupBuf,
        nf::{
            hook::{priority, Hook},
            jump::{Jump, OwnerId},
            observe::{Before, Observed},
            skb::{HookSkb, PostRouting, PreRouting, Verdict}, //
        },
    },
    path::{
        commit,
        lookup::{self, Lookup},
        serve::{self, LearnAndServe}, //
    },
    route::{
        pass::{Pass, Terms},
        slot::Changes,
        stamp::{Facts, Stamp},
        stay::Stay, //
    },
    state::{jump::Epoch, stats::Event, NetState},
    track::outcome::LookupMiss,
};

/// As [`Lookup`], where packets may jump.
pub(crate) struct LookupAndJump;

impl Hook for LookupAndJump {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = Lookup::PRIORITY;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        let mut buf = LookupBuf::new();
        match look_up(net, &net, &skb, &mut buf) {
            Next::Jump(jump) => return skb.jump(jump),
            Next::Observed => (),
            // An earlier packet at this address may have been observed, and dropped.
            Next::Other => {
                if let Some(observer) = net.jumps.observer() {
                    observer.observe_not(&skb);
                }
            }
        }
        skb.accept()
    }
}

/// What a packet does next.
enum Next<'b, 'r> {
    /// It leaves.
    Jump(Jump<'b, 'r>),
    /// It goes on, and is observed.
    Observed,
    /// It goes on.
    Other,
}

/// Looks up a packet. Attaches it to its connection, or leaves it to conntrack.
#[inline(always)]
fn look_up<'b, 'r>(
    net: ArcBorrow<'_, NetState>,
    state: &'r NetState,
    skb: &HookSkb<'r, PreRouting>,
    buf: &'b mut LookupBuf,
) -> Next<'b, 'r> {
    if !state.flows.has_any() {
        return Next::Other;
    }
    let epoch = state.jumps.epoch(skb.family(), skb.rcu());
    let ruleset = epoch.map(|epoch| &epoch.ruleset);
    let Some(looked) = state.flows.look_up_to_jump(skb, buf, ruleset) else {
        return Next::Other;
    };
    let result = match looked.result {
        Ok(found) => attach(net, state, skb, found, epoch),
        Err(untracked) => Err(untracked.into()),
    };
    result.unwrap_or_else(|miss| {
        lookup::leave(net, skb, &looked.trail, miss);
        Next::Other
    })
}

/// Tracks a packet and attaches it to its connection, or returns the reason why it is left to
/// conntrack. All that may keep it from jumping is looked at before it is tracked.
#[inline(always)]
fn attach<'b, 'r>(
    net: ArcBorrow<'_, NetState>,
    state: &'r NetState,
    skb: &HookSkb<'r, PreRouting>,
    found: FoundToJump<'_, 'b, 'r>,
    epoch: Option<&'r Epoch>,
) -> Result<Next<'b, 'r>, LookupMiss> {
    let checked = check(state, &found, epoch);
    let timeout = lookup::track(&found)?;
    match checked {
        Ok(()) => {
            found.entry().direction(found.dir()).count_hit();
            let counters = [found.zone().counter(Tally::Hit), state.stats.jumps()];
            let jump = found.leave(timeout, counters);
            Ok(jump.map_or(Next::Other, Next::Jump))
        }
        Err(stay) => {
            let may_jump = state.settings.jump_marks().has(found.conn().mark());
            let is_observed = may_jump && count_stay(net, skb, &found, stay);
            let hits = lookup::hits_of(state, &found);
            found.attach(timeout, hits);
            Ok(if is_observed {
                Next::Observed
            } else {
                Next::Other
            })
        }
    }
}

/// Returns whether a packet may jump, or the reason why not.
#[inline(always)]
pub(super) fn check(
    net: &NetState,
    found: &FoundToJump<'_, '_, '_>,
    epoch: Option<&Epoch>,
) -> Result<(), Stay> {
    let epoch = epoch.ok_or(Stay::Rules)?;
    check_pass(net, found, epoch)
}

/// As [`check`], of a packet at any point.
#[inline(always)]
pub(super) fn check_pass<At>(
    net: &NetState,
    found: &FoundToJump<'_, '_, '_, At>,
    epoch: &Epoch,
) -> Result<(), Stay> {
    let pass = found.pass()?;
    pass.check(epoch.number, net, || found.conn().ends(found.dir()))?;
    // By now, a change that cannot have changed the route does not count any more.
    if found.is_outdated() && !pass.dst().is_valid(found.rcu()) {
        return Err(Stay::Route);
    }
    Ok(())
}

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

/// As [`LearnAndServe`], where packets may jump.
pub(crate) struct ServeAndNote;

impl Hook for ServeAndNote {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = LearnAndServe::PRIORITY;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        let is_served = serve::learn_and_serve(net, &skb);
        if let Some(observer) = net.jumps.observer() {
            observer.goes_on(&skb, is_served, net.settings.jump_marks());
        }
        skb.accept()
    }
}

/// As [`Commit`], where packets may jump.
pub(crate) struct CommitAndLearn;

impl Hook for CommitAndLearn {
    type Data = NetState;
    type Point = PostRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PostRouting>) -> Verdict {
        if net.pending.has(&skb) {
            commit::run(net, &skb);
        }
        if let Some(observer) = net.jumps.observer().filter(|all| all.leaves(&skb)) {
            if let Some((observed, true)) = observer.take(&skb) {
                learn(&net, &skb, observed);
            }
        }
        skb.accept()
    }
}

/// Learns from a packet that leaves as a jump would have sent it: if its route is still valid, and
/// no rule has changed, the direction's next packets may jump.
#[cold]
pub(super) fn learn(
    net: &NetState,
    skb: &HookSkb<'_, PostRouting>,
    observed: Observed,
) -> Option<()> {
    let rcu = skb.rcu();
    let packet = skb.forwarded()?;
    let (ct, dir) = (&packet.ct, packet.ct.dir());
    let flow = net.flows.of_conn(ct, rcu).ok()?;
    net.jumps.epoch(skb.family(), rcu).filter(|epoch| {
        epoch.number == observed.epoch() && epoch.ruleset.is_current(&net.net, rcu)
    })?;
    // ORDERING: Pairs with the full exchange in `forget`: a change of the marks ends all epochs
    // before it. So if the marks are the old ones here, so is the epoch.
    smp_mb(Read);
    if !net.settings.jump_marks().has(observed.ct_mark()) {
        return None;
    }
    let slot = flow
        .direction(dir)
        .live(rcu)
        .find(|slot| observed.dst() == *slot.dst() && slot.key().iif == observed.iif())?;
    slot.check_now(net, || ct.ends(), rcu).ok()?;
    let (seen, epoch) = (Stamp::from_raw(observed.stamp()), observed.epoch());
    let iif = observed.iif();
    let terms = Terms::new(seen, slot.stamp(), epoch, &net.refs);
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
