// SPDX-License-Identifier: GPL-2.0

//! The lookup of packets in their zone's table, just before conntrack: what conntrack would plainly
//! accept is tracked here and given its connection, and conntrack passes it by.
//!
//! Softirq, or process context with bottom halves on; under RCU. Every packet is accepted; whatever
//! is in doubt is left to conntrack.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::Found,
        zone::{Tally, Zone}, //
    },
    kapi::nf::{
        conn::Dir,
        hook::{priority, Hook, Inet, State, Verdict},
        packet::SkBuff,
        tcp::Tracking,
        track::{Probe, Protocol, Untracked}, //
    },
    netns::NetState,
    path::verify,
    track::{
        outcome::Outcome,
        tcp,
        udp, //
    },
};

impl From<Untracked> for Outcome {
    fn from(untracked: Untracked) -> Self {
        const { assert!(Untracked::COUNT == Outcome::UNTRACKED_COUNT) };
        Self::from_untracked(untracked.index())
    }
}

/// Just before conntrack.
pub(crate) struct Lookup;

impl Hook for Lookup {
    type Data = NetState;

    const POINT: Inet = Inet::PreRouting;
    const PRIORITY: i32 = priority::CONNTRACK - 1;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: &SkBuff, state: &State<'_>) -> Verdict {
        if net.is_verifying() {
            verify::expect(&net, skb, state);
        } else if net.is_looking_up() {
            // Read in place: it is large.
            let mut probe = Probe::new();
            let mut hit = false;
            if skb.probe(&mut probe, state) {
                let outcome = lookup(&net, skb, &probe, state);
                net.count_lookup(outcome);
                hit = outcome == Outcome::Hit;
            }
            if !net.is_caching() {
                net.flows.recent().serve(skb, hit);
            }
        }
        Verdict::Accept
    }
}

#[inline(always)]
fn lookup(net: &NetState, skb: &SkBuff, probe: &Probe, state: &State<'_>) -> Outcome {
    let zone = original_zone(net, probe, state);
    let tracked = find(net, probe, zone, state).and_then(|found| {
        let timeout = track(skb, &found, probe, state, None)?;
        skb.attach(found.flow.conn(), found.dir, timeout);
        found.zone.count(Tally::Hit);
        Ok(())
    });
    let Err(outcome) = tracked else {
        return Outcome::Hit;
    };
    if let Some(zone) = zone {
        zone.count(Tally::Miss);
    }
    outcome
}

/// The zone that a packet is of if it goes the original way, if it is in use.
#[inline(always)]
pub(crate) fn original_zone<'r>(
    net: &'r NetState,
    probe: &Probe,
    state: &State<'r>,
) -> Option<&'r Zone> {
    net.flows
        .zones()
        .get(probe.zone(Dir::Original), state.rcu())
}

/// The flow of a packet, whose [`original_zone`] is `zone`.
#[inline(always)]
pub(crate) fn find<'r>(
    net: &'r NetState,
    probe: &Probe,
    zone: Option<&'r Zone>,
    state: &State<'r>,
) -> Result<Found<'r>, Outcome> {
    probe.fit()?;
    net.flows
        .lookup(probe, zone, state.rcu())
        .ok_or(Outcome::Unknown)
}

/// Tracks the packet as conntrack would; the connection's new timeout, in jiffies. With `copy`, the
/// connection's TCP state is copied there and changed there only.
#[inline]
pub(crate) fn track(
    skb: &SkBuff,
    found: &Found<'_>,
    probe: &Probe,
    state: &State<'_>,
    copy: Option<&mut Tracking>,
) -> Result<u32, Outcome> {
    match skb.begin(found.flow.conn(), probe, state)? {
        Protocol::Tcp(mut guard) => {
            let timeouts = guard.timeouts();
            let tracking = match copy {
                Some(copy) => {
                    *copy = *guard.tracking();
                    copy
                }
                None => guard.tracking(),
            };
            Ok(tcp::track(tracking, &probe.segment(found.dir), &timeouts)?)
        }
        Protocol::Udp(stream) => udp::track(&stream).ok_or(Outcome::Assuring),
    }
}
