// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of tracking: predictions compared with conntrack's own result, and lookups of
//! packets in a zone's table.

use core::mem::MaybeUninit;

use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

use super::{random::Random, Fixture, SALT};
use crate::{
    flow::table::{FlowTable, NoFlow},
    kapi::{
        entry::lookup::LookupBuf,
        nf::{
            conn::{Conn, Dir},
            tcp::{Segment, Tracking},
            track::{Session, Untracked}, //
        },
        sync::time,
        tests::{
            conn,
            conn_refs,
            expire,
            handle_of,
            scribble,
            Options,
            TcpConn,
            TestPacket,
            ZoneDirs, //
        }, //
    },
    track::tcp, //
};

/// Returns a plain ACK without data.
fn acknowledgment(reply: bool) -> Segment {
    Segment {
        reply,
        flags: Segment::ACK,
        plain: true,
        win: 1,
        seq: 1,
        ack: 1,
        end: 1,
    }
}

/// Returns the predicted state and timeout of a packet's connection; `None` if the packet is left
/// to conntrack.
fn predict(flows: &FlowTable, packet: &TestPacket) -> Option<(Tracking, u32)> {
    packet.in_hook(|skb| {
        let mut buf = LookupBuf::new();
        let found = flows.look_up(skb, &mut buf)?.result.ok()?;
        let Ok(Session::Tcp(mut guard)) = found.begin() else {
            return None;
        };
        let mut copy = *guard.tracking();
        let timeout = tcp::track(&mut copy, &found.segment(), &guard.timeouts()).ok()?;
        Some((copy, timeout))
    })
}

/// Returns why a packet of the connection would be left to conntrack.
fn why(flows: &FlowTable, ct: &Conn) -> Result<Option<Untracked>> {
    let segment = acknowledgment(false);
    let packet = TestPacket::new(ct, &segment, Options::None)?;
    Ok(packet.in_hook(|skb| {
        let mut buf = LookupBuf::new();
        let looked = flows.look_up(skb, &mut buf);
        looked.and_then(|looked| looked.result.err())
    }))
}

/// Returns the number of the flow that a packet's lookup finds, and whether it is the reply
/// direction.
fn lookup(flows: &FlowTable, ct: &Conn, reply: bool) -> Result<Option<(u32, bool)>> {
    let segment = acknowledgment(reply);
    let packet = TestPacket::new(ct, &segment, Options::None)?;
    Ok(packet.in_hook(|skb| {
        let mut buf = LookupBuf::new();
        let found = flows.look_up(skb, &mut buf)?.result.ok()?;
        Some((found.entry().index(), found.dir() == Dir::Reply))
    }))
}

/// Returns the number of the flow to which the extension of a packet's connection leads.
fn led_to(flows: &FlowTable, carrier: &Conn, ct: &ARef<Conn>) -> Result<Option<u32>> {
    let packet = TestPacket::new(carrier, &acknowledgment(false), Options::None)?;
    packet.attach(ct.clone(), Dir::Original);
    Ok(packet.in_hook(|skb| {
        let mut buf = MaybeUninit::uninit();
        let (_, flow) = flows.of_packet(skb, 0, &mut buf)?;
        flow.map(|flow| flow.index())
    }))
}

#[kunit_tests(nfzr_conntrack_track)]
mod track_cases {
    use super::*;

    #[test]
    fn a_prediction_is_what_conntrack_does() -> Result {
        const PACKETS: u32 = 60_000;

        let (all, ct) = (Fixture::new()?, TcpConn::new(4000)?);
        all.make(&ct, None).map_err(|_| EINVAL)?;
        let mut random = Random::new();
        let (mut predicted, mut wrong) = (0, 0);
        let mut bases = [0, 0];
        for number in 0..PACKETS {
            if number % 4 == 0 {
                bases = [random.next(), random.next()];
                ct.set(&random.tracking(bases));
            }
            let before = ct.tcp().ok_or(EINVAL)?;
            let segment = random.segment(bases, &before);
            let packet = TestPacket::new(&ct, &segment, random.options())?;
            let dir = if segment.reply {
                Dir::Reply
            } else {
                Dir::Original
            };
            let Some((expected, timeout)) = predict(&all.flows, &packet) else {
                continue;
            };
            predicted += 1;
            let at = time::jiffies32();
            packet.conntrack();
            let passed = time::jiffies32().wrapping_sub(at);
            let after = ct.tcp().ok_or(EINVAL)?;
            let since = ct
                .expiry()
                .ok_or(EINVAL)?
                .wrapping_sub(timeout)
                .wrapping_sub(at);
            let attached = packet.in_hook(|skb| {
                skb.ct()
                    .is_some_and(|found| found.conn().id() == ct.id() && found.dir() == dir)
            });
            if after != expected || since > passed || !attached {
                wrong += 1;
                pr_err!("{before:?} {segment:?}: expected {expected:?} {timeout}, is {after:?}\n");
            }
        }
        pr_info!("kunit: {predicted} of {PACKETS} segments predicted\n");
        assert_eq!(wrong, 0);
        assert!(predicted > PACKETS / 10);
        Ok(())
    }

    #[test]
    fn what_is_unusual_about_a_connection_is_a_reason() -> Result {
        let (all, ct) = (Fixture::new()?, TcpConn::new(4001)?);
        all.make(&ct, None).map_err(|_| EINVAL)?;
        let mut reasons = KVec::new();
        reasons.push(why(&all.flows, &ct)?, GFP_KERNEL)?;
        // Cleared: SEEN_REPLY, ASSURED. Set below: SEQ_ADJUST, NAT_CLASH, OFFLOAD, HW_OFFLOAD.
        for bit in [1, 2] {
            ct.status(0, 1 << bit);
            reasons.push(why(&all.flows, &ct)?, GFP_KERNEL)?;
            ct.status(1 << bit, 0);
        }
        for bit in [6, 12, 14, 15] {
            ct.status(1 << bit, 0);
            reasons.push(why(&all.flows, &ct)?, GFP_KERNEL)?;
            ct.status(0, 1 << bit);
        }
        // Cleared: CONFIRMED.
        ct.status(0, 1 << 3);
        reasons.push(why(&all.flows, &ct)?, GFP_KERNEL)?;
        ct.status(1 << 3, 0);
        expire(&ct);
        reasons.push(why(&all.flows, &ct)?, GFP_KERNEL)?;
        let expected = [
            None,
            Some(Untracked::Unreplied),
            Some(Untracked::Unassured),
            Some(Untracked::SeqAdjust),
            Some(Untracked::Clash),
            Some(Untracked::Offload),
            Some(Untracked::Offload),
            Some(Untracked::Gone),
            Some(Untracked::Unknown),
        ];
        assert!(reasons.as_slice() == expected);
        Ok(())
    }

    #[test]
    fn a_packet_finds_its_flow_in_either_direction_until_the_connection_is_gone() -> Result {
        let (all, ct, other) = (Fixture::new()?, TcpConn::new(4002)?, TcpConn::new(4003)?);
        let nothing = lookup(&all.flows, &ct, false)?;
        let made = all.make(&ct, None).map_err(|_| EINVAL)?;
        let found = [
            lookup(&all.flows, &ct, false)?,
            lookup(&all.flows, &ct, true)?,
        ];
        let stranger = lookup(&all.flows, &other, false)?;
        expire(&ct);
        let expired = lookup(&all.flows, &ct, false)?;
        assert_eq!(nothing, None);
        assert_eq!(found, [Some((made, false)), Some((made, true))]);
        assert_eq!(stranger, None);
        assert_eq!(expired, None);
        Ok(())
    }

    #[test]
    fn a_packet_that_is_attached_has_a_reference_and_conntrack_passes_it_by() -> Result {
        let (all, ct) = (Fixture::new()?, TcpConn::new(4004)?);
        let segment = acknowledgment(true);
        let packet = TestPacket::new(&ct, &segment, Options::None)?;
        let before = (conn_refs(&ct), ct.tcp());
        packet.attach((&*ct).into(), Dir::Reply);
        let during = conn_refs(&ct);
        let known = packet.in_hook(|skb| all.flows.look_up(skb, &mut LookupBuf::new()).is_none());
        packet.conntrack();
        let after = (conn_refs(&ct), ct.tcp());
        let left = ct
            .expiry()
            .map(|expiry| expiry.wrapping_sub(time::jiffies32()));
        drop(packet);
        assert_eq!(during, before.0 + 1);
        assert!(known);
        assert!(after == (during, before.1));
        assert!(left.is_some_and(|left| left > 0 && left <= 10_000));
        assert_eq!(conn_refs(&ct), before.0);
        Ok(())
    }

    #[test]
    fn a_flush_ends_the_zones_connections() -> Result {
        let all = Fixture::new()?;
        let mut cts = KVec::new();
        for port in 5000..5200 {
            cts.push(TcpConn::new(port)?, GFP_KERNEL)?;
        }
        for ct in &cts {
            let mut tries = 0;
            while all.make(ct, None).is_err() && tries < 1000 {
                kernel::time::delay::fsleep(kernel::time::Delta::from_millis(1));
                tries += 1;
            }
        }
        let before = all.zone(0);
        let other = all.flows.flush(1);
        let flushed = all.flows.flush(0);
        let gone = cts.iter().filter(|ct| ct.is_gone()).count();
        assert_eq!(before, Some((200, 200)));
        assert_eq!((other, flushed, gone), (Ok(()), Ok(()), 200));
        assert_eq!(all.zone(0), Some((0, 200)));
        Ok(())
    }

    #[test]
    fn a_new_connections_handle_is_no_flows() -> Result {
        let (all, ct) = (Fixture::new()?, conn(9, 0, ZoneDirs::Both)?);
        scribble(&ct, all.flows.handle_of_count(1));
        let handle = handle_of(&ct);
        let found = all.find(&ct, Some(handle), Dir::Original);
        let made = all.make(&ct, Some(handle)).map_err(|_| EINVAL)?;
        assert_eq!(handle, SALT.count(1));
        assert_eq!(found, None);
        assert_eq!(
            all.find(&ct, Some(handle_of(&ct)), Dir::Original),
            Some(made)
        );
        Ok(())
    }

    #[test]
    fn a_flow_whose_handle_was_lost_is_found_again() -> Result {
        let (all, ct) = (Fixture::new()?, conn(10, 0, ZoneDirs::Both)?);
        let made = all.make(&ct, Some(0)).map_err(|_| EINVAL)?;
        scribble(&ct, SALT.count(200));
        let lost = all.find(&ct, Some(handle_of(&ct)), Dir::Original);
        let again = all.make(&ct, Some(handle_of(&ct)));
        let found = all.find(&ct, Some(handle_of(&ct)), Dir::Original);
        assert_eq!((lost, found), (None, Some(made)));
        assert!(again == Err(NoFlow::Busy));
        Ok(())
    }

    #[test]
    fn a_handle_leads_to_a_flow_until_the_flow_ends() -> Result {
        let (all, ct) = (Fixture::new()?, conn(11, 0, ZoneDirs::Both)?);
        let leads = || all.flows.leads_to_flow(handle_of(&ct));
        scribble(&ct, SALT.count(3));
        let before = leads();
        let made = all.make(&ct, Some(handle_of(&ct))).map_err(|_| EINVAL)?;
        let during = leads();
        let killed = all.kill(made);
        let after = leads();
        let again = all.make(&ct, Some(handle_of(&ct)));
        assert!(killed);
        assert_eq!((before, during, after), (false, true, false));
        assert!(again.is_ok());
        assert!(leads());
        Ok(())
    }

    #[test]
    fn a_packet_takes_its_own_connections_flow_only() -> Result {
        let (all, carrier) = (Fixture::new()?, TcpConn::new(4006)?);
        let both = ZoneDirs::Both;
        let (ct, other) = (conn(12, 0, both)?, conn(13, 0, both)?);
        let led = |ct| led_to(&all.flows, &carrier, ct);
        scribble(&ct, SALT.count(3));
        let before = led(&ct)?;
        let made = all.make(&ct, Some(handle_of(&ct))).map_err(|_| EINVAL)?;
        scribble(&other, handle_of(&ct));
        let (own, foreign) = (led(&ct)?, led(&other)?);
        scribble(&other, handle_of(&ct) ^ 1 << 63);
        let old_salt = led(&other)?;
        let killed = all.kill(made);
        scribble(&ct, SALT.index(made));
        let dead = led(&ct)?;
        assert!(killed);
        assert_eq!((before, own), (None, Some(made)));
        assert_eq!((foreign, old_salt, dead), (None, None, None));
        Ok(())
    }

    #[test]
    fn a_stolen_packet_is_freed_once() -> Result {
        let ct = TcpConn::new(4005)?;
        let packet = TestPacket::new(&ct, &acknowledgment(false), Options::None)?;
        packet.attach((&*ct).into(), Dir::Original);
        let during = conn_refs(&ct);
        let verdict = packet.steal();
        // `NF_STOLEN`.
        assert_eq!(verdict, 2);
        // The packet held a reference.
        assert_eq!(conn_refs(&ct), during - 1);
        Ok(())
    }
}
