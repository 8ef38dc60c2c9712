// SPDX-License-Identifier: GPL-2.0

//! Just before conntrack: finds the packet's connection in its zone's table.
//!
//! A packet that conntrack would plainly accept is tracked here and attached to its connection, and
//! conntrack skips it. Every other packet is left to conntrack.

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::{Found, Trail},
        zone::Tally, //
    },
    kapi::{
        entry::lookup::LookupBuf,
        nf::{
            conn::Dir,
            hook::{priority, Hook},
            skb::{HookSkb, PreRouting, Verdict},
            tcp::Tracking,
            track::{Session, Untracked}, //
        },
        sync::percpu::OneCounter,
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
            Untracked::Unknown => Self::Unknown,
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
        if net.flows.has_any() {
            lookup(net, &skb);
        }
        skb.accept()
    }
}

/// Looks up a packet, and attaches it to its connection or leaves it to conntrack.
#[inline(always)]
fn lookup(net: ArcBorrow<'_, NetState>, skb: &HookSkb<'_, PreRouting>) {
    let mut buf = LookupBuf::new();
    let Some(looked) = net.flows.look_up(skb, &mut buf) else {
        return;
    };
    let result = match looked.result {
        Ok(found) => attach(&net, found),
        Err(untracked) => Err(untracked.into()),
    };
    if let Err(miss) = result {
        leave(net, skb, &looked.trail, miss);
    }
}

/// Attaches the packet to its connection and counts it, or returns the reason why it is left to
/// conntrack.
#[inline(always)]
fn attach(net: &NetState, found: Found<'_, '_>) -> Result<(), LookupMiss> {
    let timeout = track(&found)?;
    let hits = hits_of(net, &found);
    found.attach(timeout, hits);
    Ok(())
}

/// Returns the counters of packets that were attached.
#[inline(always)]
pub(super) fn hits_of<'r>(net: &'r NetState, found: &Found<'_, 'r>) -> [OneCounter<'r>; 2] {
    [found.zone().counter(Tally::Hit), net.stats.lookup_hits()]
}

/// Leaves a packet to conntrack, and counts it.
#[cold]
pub(super) fn leave(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    trail: &Trail<'_, '_>,
    miss: LookupMiss,
) {
    end_gone(net, skb, trail, miss);
    if let Some(zone) = trail.zone(Dir::Original) {
        zone.count(Tally::Miss);
    }
    net.stats.count_lookup(Err(miss));
}

/// Ends the flow of a dead connection that an unknown packet met, so that conntrack finds room and
/// NAT the port when they process the packet.
pub(super) fn end_gone(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, PreRouting>,
    trail: &Trail<'_, '_>,
    miss: LookupMiss,
) {
    if miss == LookupMiss::Unknown {
        if let Some(flow) = trail.gone() {
            NetState::met_gone(net, flow, skb.rcu());
        }
    }
}

/// Tracks the packet as conntrack would. Returns the connection's new timeout, in jiffies.
#[inline(always)]
pub(super) fn track<At>(found: &Found<'_, '_, At>) -> Result<u32, LookupMiss> {
    match found.begin()? {
        Session::Tcp(mut guard) => {
            let timeouts = guard.timeouts();
            let segment = found.segment();
            Ok(tcp::track(guard.tracking(), &segment, &timeouts)?)
        }
        Session::Udp(stream) => udp::track(&stream).ok_or(LookupMiss::Assuring),
    }
}

/// Predicts how conntrack would track the packet, without any change. Returns the connection's
/// new timeout, in jiffies, and its new TCP state.
pub(super) fn predict(found: &Found<'_, '_>) -> Result<(u32, Option<Tracking>), LookupMiss> {
    match found.begin()? {
        Session::Tcp(mut guard) => {
            let timeouts = guard.timeouts();
            let mut copy = *guard.tracking();
            let timeout = tcp::track(&mut copy, &found.segment(), &timeouts)?;
            Ok((timeout, Some(copy)))
        }
        Session::Udp(stream) => {
            let timeout = udp::track(&stream).ok_or(LookupMiss::Assuring)?;
            Ok((timeout, None))
        }
    }
}
