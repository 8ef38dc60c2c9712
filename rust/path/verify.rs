// SPDX-License-Identifier: GPL-2.0

//! Verify mode: no packet is attached to a connection and none gets a cached route. Instead, what
//! would have been done is compared with what the kernel does.
//!
//! ```text
//!     PRE_ROUTING   -201  Predict         in place of lookup
//!                   -200  conntrack
//!                   -199  Compare         the connection, its TCP state and its timeout
//!                    MAX  LearnAndPredict in place of LearnAndServe
//!     FORWARD        MIN  CompareRoute    the packet's route with the cached one
//!     POST_ROUTING   MAX  CommitWatched   in place of commit
//! ```
//!
//! If jumps are predicted too, each packet that would have jumped is observed, and compared when it
//! leaves. It does not count if its CPU has lost its note, or if something has changed meanwhile.
//!
//! The result of conntrack depends on what other packets did before. A prediction therefore counts
//! only if no other packet of the netns was between the first two hooks at the same time.

use kernel::sync::ArcBorrow;

use crate::{
    flow::table::{Found, FoundToJump, Trail},
    kapi::{
        entry::lookup::LookupBuf,
        nf::{
            conn::CtRef,
            hook::{priority, Hook},
            observe::{Observed, Observer},
            skb::{Forward, HookSkb, PostRouting, PreRouting, Verdict}, //
        },
        sync::time, //
    },
    path::{
        commit,
        jump,
        learn,
        lookup,
        observe,
        serve, //
    },
    route::{
        pass::Fate,
        slot::{Changes, Slot},
        stay::Stay, //
    },
    state::{
        jump::Epoch,
        meter::{Expected, Forecast, Prediction},
        stats::Event,
        NetState, //
    },
    track::outcome::LookupMiss, //
};

/// Just before conntrack: predicts.
pub(crate) struct Predict;

impl Hook for Predict {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::CONNTRACK - 1;

    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        let forecast = || predict(net, &skb);
        net.meter.predict(skb.id(), time::jiffies32(), forecast);
        skb.accept()
    }
}

/// Predicts what conntrack does with a packet, and whether the packet would have jumped.
fn predict(net: ArcBorrow<'_, NetState>, skb: &HookSkb<'_, PreRouting>) -> Forecast {
    let (state, mut buf) = (&*net, LookupBuf::new());
    if !net.settings.mode().predicts_jumps() {
        let Some(looked) = state.flows.look_up(skb, &mut buf) else {
            return Forecast::Anything;
        };
        let tracked = looked.result.map_err(LookupMiss::from);
        return forecast(
            net,
            skb,
            &looked.trail,
            tracked.and_then(|found| prediction(&found)),
        );
    }
    let epoch = net.jumps.epoch(skb.family(), skb.rcu());
    let ruleset = epoch.map(|epoch| &epoch.ruleset);
    let mut is_observed = false;
    let forecast = match state.flows.look_up_to_jump(skb, &mut buf, ruleset) {
        Some(looked) => {
            let found = looked.result.map_err(LookupMiss::from);
            let tracked = found.and_then(|found| {
                let tracked = prediction(&found)?;
                is_observed = predict_jump(net, skb, &found, epoch);
                Ok(tracked)
            });
            forecast(net, skb, &looked.trail, tracked)
        }
        None => Forecast::Anything,
    };
    if let Some(observer) = net.jumps.observer().filter(|_| !is_observed) {
        observer.observe_not(skb);
    }
    forecast
}

/// Returns the observer of packets that would jump, if jumps are predicted.
fn observer(net: &NetState) -> Option<&Observer> {
    let is_on = net.settings.mode().predicts_jumps();
    net.jumps.observer().filter(|_| is_on)
}

/// Predicts how conntrack tracks a packet that was found.
fn prediction(found: &Found<'_, '_>) -> Result<Prediction, LookupMiss> {
    let (timeout, tcp) = lookup::predict(found)?;
    Ok(Prediction {
        ct: found.conn().id(),
        flow: found.entry().index(),
        dir: found.dir(),
        tcp,
        timeout,
    })
}

fn forecast(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    trail: &Trail<'_, '_>,
    tracked: Result<Prediction, LookupMiss>,
) -> Forecast {
    if let Err(miss) = tracked {
        lookup::end_gone(net, skb, trail, miss);
    }
    net.stats.count_lookup(tracked.map(|_| ()));
    match tracked {
        Ok(prediction) => Forecast::Known(prediction),
        Err(LookupMiss::Unknown) => Forecast::Unknown,
        Err(_) => Forecast::Anything,
    }
}

/// Observes a packet that would have jumped, or that may teach. Returns whether it is observed.
fn predict_jump(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    found: &FoundToJump<'_, '_, '_>,
    epoch: Option<&Epoch>,
) -> bool {
    if !net.settings.jump_marks().has(found.conn().mark()) {
        return false;
    }
    let facts = net.facts();
    let epoch = epoch.ok_or(Stay::Rules);
    let checked = epoch.and_then(|epoch| {
        if jump::check_pass(&net, found, epoch)? != Fate::Leaves {
            return Err(Stay::Undecided);
        }
        observe::begin(skb, found, epoch, &facts)?;
        found.predict(epoch.ruleset.observer());
        Ok(())
    });
    match checked {
        Ok(()) => true,
        Err(stay) => observe::count_stay(net, skb, found, stay),
    }
}

/// Just after conntrack: compares.
pub(crate) struct Compare;

impl Hook for Compare {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::CONNTRACK + 1;

    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        let Some(expected) = net.meter.take() else {
            return skb.accept();
        };
        let packets = &net.meter.packets;
        if expected.skb == skb.id() {
            let event = compare(&net, &expected, &skb);
            // Read after all else: a change by another packet meanwhile proves nothing.
            let alone = expected.alone && packets.have_begun() == expected.ticket.wrapping_add(1);
            if let Some(event) = event {
                net.stats
                    .count(if alone { event } else { Event::VerifySkipped });
            }
        }
        packets.end();
        skb.accept()
    }
}

fn compare(net: &NetState, expected: &Expected, skb: &HookSkb<'_, PreRouting>) -> Option<Event> {
    let attached = skb.ct();
    match expected.forecast {
        Forecast::Anything => None,
        Forecast::Unknown => {
            // Conntrack still finds connections that died just now.
            let attached = attached.filter(|ct| ct.is_established() && !ct.conn().is_gone())?;
            // Without the extension, the connection was confirmed while no hook of ours saw it.
            attached.handle()?;
            net.flows.of_conn(&attached, skb.rcu()).ok()?;
            let quiet = expected.made.is_some() && expected.made == net.meter.flows.quiet();
            Some(if quiet {
                Event::MismatchUnfound
            } else {
                Event::VerifySkipped
            })
        }
        Forecast::Known(prediction) => {
            let event =
                differs(&prediction, attached.as_ref(), expected.at).unwrap_or(Event::Verified);
            // Another CPU may have deleted the connection between the two hooks.
            let flow = net.flows.get(prediction.flow, skb.rcu());
            let is_there = flow.and_then(|flow| {
                flow.peek(skb.rcu(), |conn| {
                    conn.id() == prediction.ct && !conn.is_gone()
                })
            });
            Some(if is_there == Some(true) {
                event
            } else {
                Event::VerifySkipped
            })
        }
    }
}

/// Returns the first part of a prediction that was wrong.
fn differs(prediction: &Prediction, attached: Option<&CtRef<'_>>, at: u32) -> Option<Event> {
    let Some(attached) = attached.filter(|ct| ct.conn().id() == prediction.ct) else {
        return Some(Event::MismatchConnection);
    };
    if attached.dir() != prediction.dir || !attached.is_established() {
        return Some(Event::MismatchDirection);
    }
    if attached.conn().tcp() != prediction.tcp {
        return Some(Event::MismatchTcp);
    }
    // The timeout counts from some jiffy between the prediction and now.
    let since = |expiry: u32| expiry.wrapping_sub(prediction.timeout).wrapping_sub(at);
    let passed = time::jiffies32().wrapping_sub(at);
    if prediction.tcp.is_none() && passed != 0 {
        // A UDP connection may have become a stream in the next jiffy.
        return Some(Event::VerifySkipped);
    }
    attached
        .conn()
        .expiry()
        .filter(|&expiry| since(expiry) > passed)
        .map(|_| Event::MismatchTimeout)
}

/// Last in PRE_ROUTING: learns, and counts what would have been served.
pub(crate) struct LearnAndPredict;

impl Hook for LearnAndPredict {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::LAST;

    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        if let Some(ct) = skb.ct() {
            if ct.is_confirmed() {
                serve::serve_dry(&net, &skb, &ct);
            } else {
                learn::begin(net, &skb, &ct);
            }
        }
        skb.accept()
    }
}

/// First in FORWARD: compares the packet's route with the cached one.
pub(crate) struct CompareRoute;

impl Hook for CompareRoute {
    type Data = NetState;
    type Point = Forward;

    const PRIORITY: i32 = priority::FIRST;

    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, Forward>) -> Verdict {
        if let Some(slot) = cached(&net, &skb) {
            let stamp = slot.stamp();
            let is_the_same = |now: &Slot| core::ptr::eq(now, slot) && now.stamp() == stamp;
            let is_right = skb.goes_by(slot.dst());
            if let (Some(true), Some(observer)) = (is_right, observer(&net)) {
                observer.takes_cached_route(&skb);
            }
            net.stats.count(match is_right {
                Some(true) => Event::VerifiedRoute,
                // Only if no change came just before the kernel was asked.
                Some(false) if cached(&net, &skb).is_some_and(is_the_same) => Event::MismatchRoute,
                _ => Event::VerifySkipped,
            });
        }
        skb.accept()
    }
}

/// Returns the slot that would serve a packet if it came to the last hook of PRE_ROUTING now.
fn cached<'r>(net: &'r NetState, skb: &HookSkb<'r, Forward>) -> Option<&'r Slot> {
    let ct = skb.ct().filter(CtRef::is_confirmed)?;
    let headers = skb.headers(&ct)?;
    let flow = net.flows.of_conn(&ct, skb.rcu()).ok()?;
    serve::would_serve(net, skb, (&ct, flow), &headers).ok()
}

/// Last in POST_ROUTING: commits, and notes that a flow is being created. Compares how a packet
/// leaves with how it would have jumped.
pub(crate) struct CommitWatched;

impl Hook for CommitWatched {
    type Data = NetState;
    type Point = PostRouting;

    const PRIORITY: i32 = priority::LAST;

    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PostRouting>) -> Verdict {
        if net.pending.has(&skb) {
            if let Some(packet) = commit::commit(&net, &skb) {
                net.meter.flows.begin();
                let made = commit::make(&net, &packet, skb.rcu());
                net.meter.flows.end();
                commit::finish(net, made);
            }
        }
        if let Some(observer) = observer(&net).filter(|all| all.leaves(&skb)) {
            if let Some((observed, is_as_a_jump)) = observer.take(&skb) {
                compare_jump(&net, &skb, observed, is_as_a_jump);
            }
        }
        skb.accept()
    }
}

/// Compares an observed packet with the prediction, or learns from it if there was none.
fn compare_jump(
    net: &NetState,
    skb: &HookSkb<'_, PostRouting>,
    observed: Observed,
    is_as_a_jump: bool,
) {
    if !observed.is_predicted() {
        if is_as_a_jump {
            observe::learn(net, skb, observed);
        }
        return;
    }
    net.stats.count(if is_as_a_jump && observed.is_right() {
        Event::VerifiedJump
    } else if would_jump(net, skb, &observed) == Some(true) {
        Event::MismatchJump
    } else {
        // Something has changed since.
        Event::VerifySkipped
    });
}

/// Returns whether a packet that has met all rules would jump if it came now.
fn would_jump(net: &NetState, skb: &HookSkb<'_, PostRouting>, observed: &Observed) -> Option<bool> {
    let rcu = skb.rcu();
    let ct = skb.ct()?;
    let flow = net.flows.of_conn(&ct, rcu).ok()?;
    let epoch = net.jumps.epoch(skb.family(), rcu)?;
    let pass = net.flows.pass(flow, ct.dir(), rcu)?;
    let is_current = epoch.number == observed.epoch() && epoch.ruleset.is_current(&net.net, rcu);
    let is_marked = ct.conn().mark() == observed.ct_mark();
    let is_good = pass.check(epoch.number, net, || ct.ends()).is_ok();
    Some(is_current && is_marked && is_good && observed.has_route())
}
