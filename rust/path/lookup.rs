// SPDX-License-Identifier: GPL-2.0

//! Just before conntrack: finds the packet's connection in its zone's table.
//!
//! A packet that conntrack would plainly accept is tracked here and attached to its connection, and
//! conntrack skips it. Every other packet is left to conntrack.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::{Found, NotFound},
        zone::{Tally, Zone}, //
    },
    kapi::{
        nf::{
            conn::Dir,
            hook::{priority, Hook},
            skb::{HookSkb, PreRouting, Verdict},
            tcp::Tracking,
            track::{Probe, ProbeBuf, Session, Untracked}, //
        },
        sync::once::ReadOnce, //
    },
    state::NetState,
    track::{
        outcome::LookupMiss,
        tcp,
        udp, //
    },
};

impl From<Untracked> for LookupMiss {
    fn from(untracked: Untracked) -> Self {
        match untracked {
            Untracked::Protocol => Self::Protocol,
            Untracked::Options => Self::Options,
            Untracked::Fragment => Self::Fragment,
            Untracked::Malformed => Self::Malformed,
            Untracked::Checksum => Self::Checksum,
            Untracked::TcpFlags => Self::TcpFlags,
            Untracked::Gone => Self::Gone,
            Untracked::Unreplied => Self::Unreplied,
            Untracked::Unassured => Self::Unassured,
            Untracked::SeqAdjust => Self::SeqAdjust,
            Untracked::Clash => Self::Clash,
            Untracked::Offload => Self::Offload,
            Untracked::Helper => Self::Helper,
        }
    }
}

/// The hook.
pub(crate) struct Lookup;

impl Hook for Lookup {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::CONNTRACK - 1;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        // A netns in which nothing is tracked has no flows.
        if net.refs.flows.read_once() != 0 {
            let mut buf = ProbeBuf::new();
            if let Some(probe) = skb.probe(&mut buf) {
                let result = probe
                    .map_err(LookupMiss::from)
                    .and_then(|probe| lookup(&net, &probe));
                net.stats.count_lookup(result);
            }
        }
        skb.accept()
    }
}

#[inline(always)]
fn lookup(net: &ArcBorrow<'_, NetState>, probe: &Probe<'_, '_>) -> Result<(), LookupMiss> {
    let zone = original_zone(net, probe);
    let result = attach(net, probe, zone);
    if let (Err(_), Some(zone)) = (result, zone) {
        zone.count(Tally::Miss);
    }
    result
}

/// Attaches the packet to its connection, or returns the reason why it is left to conntrack.
#[inline(always)]
fn attach<'r>(
    net: &'r ArcBorrow<'_, NetState>,
    probe: &Probe<'_, 'r>,
    zone: Option<&'r Zone>,
) -> Result<(), LookupMiss> {
    let found = find(net, probe, zone)?;
    let timeout = track(&found, probe)?;
    probe.attach(found.conn, found.dir, timeout);
    found.zone.count(Tally::Hit);
    Ok(())
}

/// Returns the zone that the packet belongs to if it goes in the original direction, if that zone
/// is in use.
#[inline(always)]
pub(super) fn original_zone<'r>(net: &'r NetState, probe: &Probe<'_, 'r>) -> Option<&'r Zone> {
    net.flows
        .zones()
        .get(probe.zone(Dir::Original), probe.rcu())
}

/// Returns the flow of a packet whose [`original_zone`] is `zone`, or the reason why the packet is
/// left to conntrack. If the flow's connection is dead, the flow ends, so that conntrack finds room
/// and NAT the port when they process the packet.
#[inline(always)]
pub(super) fn find<'r>(
    net: &'r ArcBorrow<'_, NetState>,
    probe: &Probe<'_, 'r>,
    zone: Option<&'r Zone>,
) -> Result<Found<'r>, LookupMiss> {
    net.flows.by_tuple(probe, zone).map_err(|not_found| {
        if let NotFound::Gone(flow) = not_found {
            NetState::met_gone(*net, flow, probe.rcu());
        }
        LookupMiss::Unknown
    })
}

/// Tracks the packet as conntrack would. Returns the connection's new timeout, in jiffies.
#[inline(always)]
fn track(found: &Found<'_>, probe: &Probe<'_, '_>) -> Result<u32, LookupMiss> {
    match probe.begin(&found.conn)? {
        Session::Tcp(mut guard) => {
            let timeouts = guard.timeouts();
            let segment = probe.segment(found.dir);
            Ok(tcp::track(guard.tracking(), &segment, &timeouts)?)
        }
        Session::Udp(stream) => udp::track(&stream).ok_or(LookupMiss::Assuring),
    }
}

/// Predicts how conntrack would track the packet, without any change. Returns the connection's
/// new timeout, in jiffies, and its new TCP state.
pub(super) fn predict(
    found: &Found<'_>,
    probe: &Probe<'_, '_>,
) -> Result<(u32, Option<Tracking>), LookupMiss> {
    match probe.begin(&found.conn)? {
        Session::Tcp(mut guard) => {
            let timeouts = guard.timeouts();
            let mut copy = *guard.tracking();
            let timeout = tcp::track(&mut copy, &probe.segment(found.dir), &timeouts)?;
            Ok((timeout, Some(copy)))
        }
        Session::Udp(stream) => {
            let timeout = udp::track(&stream).ok_or(LookupMiss::Assuring)?;
            Ok((timeout, None))
        }
    }
}
