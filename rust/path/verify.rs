// SPDX-License-Identifier: GPL-2.0

//! Verify mode: nothing is attached and no cached route is given, but what would have been is
//! compared with what the kernel does.
//!
//! Just before conntrack a prediction is made, just after it is compared; at FORWARD the packet's
//! route is compared with the cached one. What conntrack does depends on what other packets did before,
//! so a prediction counts only if no other packet of the netns was between the two hooks meanwhile.
//!
//! Softirq, or process context with bottom halves on; under RCU. Every packet is accepted.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow,
        Mutex, //
    },
};

use crate::{
    kapi::{
        net::netns::{Init, PreExit},
        nf::{
            conn::{ConnId, Dir},
            hook::{priority, Family, Hook, Inet, Registration, State, Verdict},
            packet::{SkBuff, SkbId},
            tcp::Tracking,
            track::{Attached, Probe}, //
        },
        sync::{
            once::ReadOnce,
            percpu::Cell,
            time, //
        },
    },
    netns::NetState,
    path::{
        lookup::{find, original_zone, track},
        serve, //
    },
    state::stats::Event,
    track::outcome::Outcome, //
};

/// What conntrack is expected to make of a packet.
#[derive(Clone, Copy)]
struct Expected {
    skb: SkbId,
    /// Jiffies when it was predicted.
    at: u32,
    /// The number of the packet.
    ticket: i32,
    /// No other packet was under way when this one came.
    alone: bool,
    /// No flow was being made when this one came; how many had been.
    made: Option<i32>,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// This.
    Connection(Prediction),
    /// A connection that no table has.
    Unknown,
    /// Anything.
    Anything,
}

/// What a packet's connection is, and is like after it.
#[derive(Clone, Copy)]
struct Prediction {
    ct: ConnId,
    /// The flow's number.
    flow: u32,
    dir: Dir,
    tcp: Option<Tracking>,
    /// In jiffies.
    timeout: u32,
}

/// Things that begin and end.
struct Span {
    begun: Atomic<i32>,
    ended: Atomic<i32>,
}

impl Span {
    const fn new() -> Self {
        Self {
            begun: Atomic::new(0),
            ended: Atomic::new(0),
        }
    }

    fn reset(&self) {
        self.begun.store(0, Relaxed);
        self.ended.store(0, Relaxed);
    }

    /// The number of those that ended, if all did that had begun.
    fn quiet(&self) -> Option<i32> {
        // ORDERING: Full, with the read-modify-writes in `begin` and `end`: in this order, so that
        // what begins in between is seen.
        let ended = self.ended.fetch_add(0, Full);
        (self.have_begun() == ended).then_some(ended)
    }

    fn have_begun(&self) -> i32 {
        // ORDERING: Full, as in `quiet`: what was read before is not read after.
        self.begun.fetch_add(0, Full)
    }

    fn begin(&self) -> i32 {
        self.begun.fetch_add(1, Full)
    }

    fn end(&self) {
        self.ended.fetch_add(1, Full);
    }
}

/// Where predictions wait for what becomes of them.
pub(crate) struct Meter {
    /// All that is needed is there: packets are compared.
    on: Atomic<bool>,
    expected: Cell<Expected>,
    /// Packets between the two hooks.
    packets: Span,
    /// Flows being made.
    flows: Span,
}

impl Meter {
    /// Process context.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            on: Atomic::new(false),
            expected: Cell::new()?,
            packets: Span::new(),
            flows: Span::new(),
        })
    }

    /// Whether packets are compared.
    pub(crate) fn is_on(&self) -> bool {
        self.on.read_once()
    }

    /// Forgets what was under way when it was switched off last. Process context; sleeps.
    fn reset(&self) {
        // For who saw that it was on.
        synchronize_rcu();
        self.expected.clear();
        self.packets.reset();
        self.flows.reset();
    }

    /// Makes a flow, by `make`.
    pub(crate) fn making<R>(&self, make: impl FnOnce() -> R) -> R {
        self.flows.begin();
        let made = make();
        self.flows.end();
        made
    }
}

/// Predicts what conntrack makes of a packet.
#[cold]
pub(crate) fn expect(net: &NetState, skb: &SkBuff, state: &State<'_>) {
    let meter = &net.meter;
    let made = meter.flows.quiet();
    let before = meter.packets.quiet();
    let ticket = meter.packets.begin();
    let expected = Expected {
        skb: skb.id(),
        at: time::jiffies32(),
        ticket,
        alone: before == Some(ticket),
        made,
        what: predict(net, skb, state),
    };
    if meter.expected.replace(Some(expected)).is_some() {
        // That packet did not come to the second hook.
        meter.packets.end();
    }
}

fn predict(net: &NetState, skb: &SkBuff, state: &State<'_>) -> What {
    let mut probe = Probe::new();
    if !skb.probe(&mut probe, state) {
        return What::Anything;
    }
    let mut copy = Tracking::default();
    let zone = original_zone(net, &probe, state);
    let tracked = find(net, &probe, zone, state).and_then(|found| {
        let timeout = track(skb, &found, &probe, state, Some(&mut copy))?;
        Ok((found, timeout))
    });
    let (outcome, what) = match tracked {
        Ok((found, timeout)) => {
            let ct = found.flow.conn();
            let prediction = Prediction {
                ct: ct.id(),
                flow: found.flow.index(),
                dir: found.dir,
                tcp: ct.is_tcp().then_some(copy),
                timeout,
            };
            (Outcome::Hit, What::Connection(prediction))
        }
        Err(Outcome::Unknown) => (Outcome::Unknown, What::Unknown),
        Err(outcome) => (outcome, What::Anything),
    };
    net.count_lookup(outcome);
    what
}

/// Just after conntrack: compares.
pub(crate) struct Compare;

impl Hook for Compare {
    type Data = NetState;

    const POINT: Inet = Inet::PreRouting;
    const PRIORITY: i32 = priority::CONNTRACK + 1;

    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        if !net.meter.is_on() {
            return Verdict::Accept;
        }
        let Some(expected) = net.meter.expected.replace(None) else {
            return Verdict::Accept;
        };
        let packets = &net.meter.packets;
        if expected.skb == skb.id() {
            let attached = skb.attached(state);
            let event = compare(&net, &expected, attached.as_ref(), state);
            // After all was read: what another packet changed meanwhile proves nothing.
            let alone = expected.alone && packets.have_begun() == expected.ticket.wrapping_add(1);
            if let Some(event) = event {
                net.count(if alone { event } else { Event::VerifySkipped });
            }
        }
        packets.end();
        Verdict::Accept
    }
}

fn compare(
    net: &NetState,
    expected: &Expected,
    attached: Option<&Attached<'_>>,
    state: &State<'_>,
) -> Option<Event> {
    match expected.what {
        What::Anything => None,
        What::Unknown => {
            // Conntrack still finds what died just now.
            let attached =
                attached.filter(|attached| attached.established && !attached.ct.is_gone())?;
            let found = net.flows.find(
                attached.ct,
                Some(attached.handle?),
                attached.dir,
                state.rcu(),
            );
            if found.is_none() {
                None
            } else if expected.made.is_some() && expected.made == net.meter.flows.quiet() {
                Some(Event::MismatchUnfound)
            } else {
                Some(Event::VerifySkipped)
            }
        }
        What::Connection(prediction) => {
            let event = differs(&prediction, attached, expected.at).unwrap_or(Event::Verified);
            // Somebody may have ended the connection between the two hooks.
            let flow = net.flows.get(prediction.flow, state.rcu());
            let is_there = flow
                .is_some_and(|flow| flow.conn().id() == prediction.ct && !flow.conn().is_gone());
            Some(if is_there {
                event
            } else {
                Event::VerifySkipped
            })
        }
    }
}

/// The first thing in which a prediction was wrong.
fn differs(prediction: &Prediction, attached: Option<&Attached<'_>>, at: u32) -> Option<Event> {
    let Some(attached) = attached.filter(|attached| attached.ct.id() == prediction.ct) else {
        return Some(Event::MismatchConnection);
    };
    if attached.dir != prediction.dir || !attached.established {
        return Some(Event::MismatchDirection);
    }
    if attached.ct.tcp() != prediction.tcp {
        return Some(Event::MismatchTcp);
    }
    // It counts from some jiffy between the prediction and now.
    let since = |expiry: u32| expiry.wrapping_sub(prediction.timeout).wrapping_sub(at);
    let passed = time::jiffies32().wrapping_sub(at);
    if prediction.tcp.is_none() && passed != 0 {
        // In another jiffy a UDP connection may be a stream that was none.
        return Some(Event::VerifySkipped);
    }
    attached
        .ct
        .expiry()
        .filter(|&expiry| since(expiry) > passed)
        .map(|_| Event::MismatchTimeout)
}

/// First in FORWARD: compares the packet's route with the cached one.
pub(crate) struct CompareRoute;

impl Hook for CompareRoute {
    type Data = NetState;

    const POINT: Inet = Inet::Forward;
    const PRIORITY: i32 = priority::FIRST;

    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        let would_serve = || serve::would_serve(&net, skb, state);
        if let Some(slot) = would_serve() {
            net.count(match skb.goes_by(slot.dst(), state) {
                Some(true) => Event::VerifiedRoute,
                // Unless a change came just before what the kernel was asked.
                Some(false) if would_serve().is_some_and(|now| core::ptr::eq(now, slot)) => {
                    Event::MismatchRoute
                }
                _ => Event::VerifySkipped,
            });
        }
        Verdict::Accept
    }
}

/// The hooks that only verify mode has.
#[pin_data]
pub(crate) struct Hooks {
    state: Arc<NetState>,
    compare: [Registration<Compare>; 2],
    route: [Registration<CompareRoute>; 2],
    /// Held by who switches them.
    #[pin]
    switch: Mutex<()>,
}

impl Hooks {
    /// In a netns that is being set up. Process context.
    pub(crate) fn new(init: &Init<'_>, state: Arc<NetState>) -> Result<Arc<Self>> {
        let compare = |family| Registration::new(init, family, state.clone());
        let compare = [compare(Family::Ipv4)?, compare(Family::Ipv6)?];
        let route = |family| Registration::new(init, family, state.clone());
        let route = [route(Family::Ipv4)?, route(Family::Ipv6)?];
        Arc::pin_init(
            pin_init!(Self {
                state,
                compare,
                route,
                switch <- new_mutex!((), "verify::Hooks"),
            }),
            GFP_KERNEL,
        )
    }

    /// The sysctl's value.
    pub(crate) fn value(&self) -> &Atomic<u32> {
        &self.state.verify
    }

    /// Does what the sysctl says. Process context; sleeps.
    pub(crate) fn follow(&self) -> Result {
        let _switch = self.switch.lock();
        let meter = &self.state.meter;
        let on = self.value().load(Relaxed) != 0;
        if on == meter.is_on() {
            return Ok(());
        }
        meter.on.store(false, Relaxed);
        let result = self.set(on);
        if on && result.is_ok() {
            meter.reset();
            meter.on.store(true, Relaxed);
        } else if result.is_err() {
            // Taking hooks away does not fail.
            let _ = self.set(false);
        }
        result
    }

    fn set(&self, on: bool) -> Result {
        for compare in &self.compare {
            compare.set(on)?;
        }
        for route in &self.route {
            route.set(on)?;
        }
        Ok(())
    }

    /// Process context.
    pub(crate) fn unregister(&self, cx: &PreExit) {
        for compare in &self.compare {
            compare.unregister(cx);
        }
        for route in &self.route {
            route.unregister(cx);
        }
    }
}
