// SPDX-License-Identifier: GPL-2.0

//! Jumps: a packet of a connection that the administrator chose leaves from the hook before
//! conntrack, if it is known what would become of it.
//!
//! This is known if a packet of the same direction was observed from that hook to the end of
//! POST_ROUTING, left as the kernel's own code would have sent it, and nothing has changed since:
//! neither the firewall, nor the route, nor the connection's mark. [`LookupAndJump`] begins the
//! observation, [`ServeAndNote`] notes the route, and [`CommitAndLearn`] ends it.
//!
//! A packet of a connection with the drop mark is dropped in the same hook, if it is known that
//! rules drop it: an earlier one of its direction went on to FORWARD, a grace period has ended
//! since, and it did not come to the end of POST_ROUTING.
//!
//! A packet that jumps is tracked as every other, and the kernel counts it as forwarded.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{table::FoundToJump, zone::Tally},
    kapi::{
        entry::lookup::LookupBuf,
        nf::{
            conn::Conn,
            hook::{priority, Hook},
            jump::Jump,
            skb::{HookSkb, PostRouting, PreRouting, Verdict}, //
        },
    },
    path::{
        commit,
        lookup::{self, Lookup},
        observe,
        serve::{self, LearnAndServe}, //
    },
    route::{pass::Fate, stay::Stay},
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
            Next::Drop => return skb.drop(),
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
    /// It is dropped.
    Drop,
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
        Ok(Fate::Leaves) => {
            found.entry().direction(found.dir()).count_hit();
            let counters = [found.zone().counter(Tally::Hit), state.stats.jumps()];
            let jump = found.leave(timeout, counters);
            Ok(jump.map_or(Next::Other, Next::Jump))
        }
        Ok(Fate::Dropped) => {
            let hits = lookup::hits_of(state, &found);
            found.attach(timeout, hits);
            state.stats.count(Event::Dropped);
            Ok(Next::Drop)
        }
        Err(stay) => {
            let is_observed =
                is_marked(state, found.conn()) && observe::count_stay(net, skb, &found, stay);
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

/// Returns whether packets of a connection may jump, or be dropped.
#[inline(always)]
fn is_marked(net: &NetState, conn: &Conn) -> bool {
    let mark = conn.mark();
    net.settings.jump_marks().has(mark) || net.settings.drop_marks().has(mark)
}

/// Returns what becomes of a packet that need not meet the rules, or the reason why it must.
#[inline(always)]
fn check(
    net: &NetState,
    found: &FoundToJump<'_, '_, '_>,
    epoch: Option<&Epoch>,
) -> Result<Fate, Stay> {
    let epoch = epoch.ok_or(Stay::Rules)?;
    let fate = check_pass(net, found, epoch)?;
    if fate == Fate::Dropped {
        check_drop(net, found)?;
    }
    Ok(fate)
}

/// Returns whether a packet may be dropped now that the grace period has ended: a packet that rules
/// let pass has removed the pass before, unless the marks had changed.
#[cold]
fn check_drop(net: &NetState, found: &FoundToJump<'_, '_, '_>) -> Result<(), Stay> {
    let stored = net.flows.pass(found.entry(), found.dir(), found.rcu());
    let used = found.pass()?;
    if !stored.is_some_and(|stored| core::ptr::eq(stored, used)) {
        return Err(Stay::Unlearned);
    }
    if !net.settings.drop_marks().has(found.conn().mark()) {
        return Err(Stay::CtMark);
    }
    Ok(())
}

/// As [`check`], of a packet at any point.
#[inline(always)]
pub(super) fn check_pass<At>(
    net: &NetState,
    found: &FoundToJump<'_, '_, '_, At>,
    epoch: &Epoch,
) -> Result<Fate, Stay> {
    let pass = found.pass()?;
    pass.check(epoch.number, net, || found.conn().ends(found.dir()))?;
    // By now, a change that cannot have changed the route does not count any more.
    if found.is_outdated() && !pass.dst().is_valid(found.rcu()) {
        return Err(Stay::Route);
    }
    pass.terms().fate()
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
            let drops = net.settings.drop_marks();
            if drops.mask == 0 || !observe::enter(&net, &skb, (observer, is_served)) {
                observer.goes_on(&skb, is_served, net.settings.jump_marks());
            }
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
        if net.settings.drop_marks().mask != 0 {
            observe::pass_rules(&net, &skb);
        }
        if let Some(observer) = net.jumps.observer().filter(|all| all.leaves(&skb)) {
            if let Some((observed, true)) = observer.take(&skb) {
                observe::learn(&net, &skb, observed);
            }
        }
        skb.accept()
    }
}
