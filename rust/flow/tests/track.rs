// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of tracking: predictions compared with conntrack's own result, and lookups of
//! packets in a zone's table.

use kernel::prelude::*;

use super::{Fixture, SALT};
use crate::{
    flow::table::FlowTable,
    kapi::{
        nf::{
            conn::{Conn, Dir},
            hook::State,
            packet::SkBuff,
            tcp::{Peer, Segment, Tracking},
            track::{Probe, Protocol, Untracked}, //
        },
        sync::time,
        tests::{conn_refs, expire, handle_of, Options, TcpConn, TestPacket}, //
    },
    track::{
        outcome::Outcome,
        tcp, //
    },
};

/// Marsaglia's xorshift: reproducible from its seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = time::random_u32();
        pr_info!("kunit: seed {seed}\n");
        Self(u64::from(seed) << 1 | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // CAST: Takes the upper half, whose bits are better distributed.
        (self.0 >> 32) as u32
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    /// Returns a number near another one, where the bounds of a window are.
    fn near(&mut self, base: u32) -> u32 {
        let reach = match self.below(8) {
            0..4 => 3,
            4..7 => 70_000,
            _ => return self.next(),
        };
        base.wrapping_add(self.below(2 * reach + 1))
            .wrapping_sub(reach)
    }

    fn window(&mut self) -> u32 {
        match self.below(8) {
            0 => self.below(3),
            1..6 => self.below(200_000),
            _ => self.next(),
        }
    }

    fn peer(&mut self, ours: u32, theirs: u32) -> Peer {
        Peer {
            end: self.near(ours),
            max_end: self.near(ours),
            max_win: self.window(),
            max_ack: self.near(theirs),
            scale: self.below(15) as u8,
            flags: self.next() as u8,
        }
    }

    /// Returns a tracking state around two sequence numbers.
    fn tracking(&mut self, bases: [u32; 2]) -> Tracking {
        let [original, reply] = bases;
        Tracking {
            seen: [self.peer(original, reply), self.peer(reply, original)],
            state: Tracking::ESTABLISHED,
            last_dir: self.below(2) as u8,
            retrans: self.below(8) as u8,
            last_index: self.below(6) as u8,
            last_seq: self.near(original),
            last_ack: self.near(reply),
            last_end: self.near(original),
            last_win: self.next() as u16,
            last_wscale: self.below(15) as u8,
            last_flags: self.next() as u8,
        }
    }

    /// Returns a segment that may fit the state; in one of four cases the last one again.
    fn segment(&mut self, bases: [u32; 2], last: &Tracking) -> Segment {
        if self.below(4) == 0 {
            return Segment {
                reply: last.last_dir != 0,
                flags: Segment::ACK,
                plain: true,
                win: last.last_win,
                seq: last.last_seq,
                ack: last.last_ack,
                end: last.last_seq.wrapping_add(self.below(3) * 100),
            };
        }
        let reply = self.below(2) != 0;
        if self.below(2) == 0 {
            return self.fitting(reply, last);
        }
        let [original, answer] = bases;
        let (ours, theirs) = if reply {
            (answer, original)
        } else {
            (original, answer)
        };
        let seq = self.near(ours);
        Segment {
            reply,
            // ACK and flags that conntrack ignores; sometimes also flags that it looks at.
            flags: match self.below(16) {
                0 => self.next() as u8,
                _ => {
                    Segment::ACK
                        | (self.next() as u8 & !(Segment::SYN | Segment::FIN | Segment::RST))
                }
            },
            plain: true,
            win: if self.below(8) == 0 {
                0
            } else {
                self.next() as u16
            },
            seq,
            ack: self.near(theirs),
            end: seq.wrapping_add(self.below(1500)),
        }
    }

    /// Returns a segment within the windows, or just outside.
    fn fitting(&mut self, reply: bool, tracking: &Tracking) -> Segment {
        let [original, answer] = tracking.seen;
        let (sender, receiver) = if reply {
            (answer, original)
        } else {
            (original, answer)
        };
        let seq = sender.max_end.wrapping_add(1).wrapping_sub(self.below(3));
        let back = receiver.max_win.min(60_000).max(1);
        let end = sender.end.wrapping_add(3).wrapping_sub(self.below(back));
        let len = end.wrapping_sub(seq);
        Segment {
            reply,
            flags: Segment::ACK,
            plain: true,
            win: self.next() as u16,
            seq,
            ack: receiver
                .end
                .wrapping_add(1)
                .wrapping_sub(self.below(70_000)),
            end: seq.wrapping_add(if len < 2000 { len } else { 0 }),
        }
    }

    fn options(&mut self) -> Options {
        match self.below(8) {
            0 => Options::Sack,
            1..4 => Options::TimeStamp,
            _ => Options::None,
        }
    }
}

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
fn predict(ct: &Conn, packet: &TestPacket, dir: Dir) -> Option<(Tracking, u32)> {
    packet.in_hook(|skb, state| {
        let probe = read(skb, state)?;
        let Ok(Protocol::Tcp(mut guard)) = skb.begin(ct, &probe, state) else {
            return None;
        };
        let mut copy = *guard.tracking();
        let timeout = tcp::track(&mut copy, &probe.segment(dir), &guard.timeouts()).ok()?;
        Some((copy, timeout))
    })
}

/// Returns why a packet of the connection would be left to conntrack.
fn why(ct: &Conn) -> Result<Option<Outcome>> {
    let segment = acknowledgment(false);
    let packet = TestPacket::new(ct, &segment, Options::None)?;
    Ok(packet.in_hook(|skb, state| {
        let probe = read(skb, state)?;
        let untracked = skb.begin(ct, &probe, state).err();
        untracked.map(|why: Untracked| Outcome::from_untracked(why.index()))
    }))
}

/// Returns the number of the flow that a packet's lookup finds, and whether it is the reply
/// direction.
fn lookup(flows: &FlowTable, ct: &Conn, reply: bool) -> Result<Option<(u32, bool)>> {
    let segment = acknowledgment(reply);
    let packet = TestPacket::new(ct, &segment, Options::None)?;
    Ok(packet.in_hook(|skb, state| {
        let probe = read(skb, state)?;
        let zone = flows.zones().get(probe.zone(Dir::Original), state.rcu());
        let found = flows.lookup(&probe, zone, state.rcu())?;
        Some((found.flow.index(), found.dir == Dir::Reply))
    }))
}

/// Returns what the lookup reads from a packet.
fn read(skb: &SkBuff, state: &State<'_>) -> Option<Probe> {
    let mut probe = Probe::new();
    skb.probe(&mut probe, state).then_some(probe)
}

#[kunit_tests(nfzr_conntrack_track)]
mod track_cases {
    use super::*;

    #[test]
    fn a_prediction_is_what_conntrack_does() -> Result {
        const PACKETS: u32 = 60_000;

        let ct = TcpConn::new(4000)?;
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
            let Some((expected, timeout)) = predict(&ct, &packet, dir) else {
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
            let attached = packet.in_hook(|skb, state| {
                skb.attached(state)
                    .is_some_and(|attached| attached.ct.id() == ct.id() && attached.dir == dir)
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
        let ct = TcpConn::new(4001)?;
        let mut reasons = KVec::new();
        reasons.push(why(&ct)?, GFP_KERNEL)?;
        // Cleared: SEEN_REPLY, ASSURED. Set below: SEQ_ADJUST, NAT_CLASH, OFFLOAD, HW_OFFLOAD.
        for bit in [1, 2] {
            ct.status(0, 1 << bit);
            reasons.push(why(&ct)?, GFP_KERNEL)?;
            ct.status(1 << bit, 0);
        }
        for bit in [6, 12, 14, 15] {
            ct.status(1 << bit, 0);
            reasons.push(why(&ct)?, GFP_KERNEL)?;
            ct.status(0, 1 << bit);
        }
        expire(&ct);
        reasons.push(why(&ct)?, GFP_KERNEL)?;
        let expected = [
            None,
            Some(Outcome::Unreplied),
            Some(Outcome::Unassured),
            Some(Outcome::SeqAdjust),
            Some(Outcome::Clash),
            Some(Outcome::Offload),
            Some(Outcome::Offload),
            Some(Outcome::Gone),
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
        let ct = TcpConn::new(4004)?;
        let segment = acknowledgment(true);
        let packet = TestPacket::new(&ct, &segment, Options::None)?;
        let before = (conn_refs(&ct), ct.tcp());
        packet.in_hook(|skb, _| skb.attach(&ct, Dir::Reply, 10_000));
        let during = conn_refs(&ct);
        let known = packet.in_hook(|skb, state| read(skb, state).is_none());
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
        assert_eq!((other, flushed, gone), (0, 200, 200));
        assert_eq!(all.zone(0), Some((0, 200)));
        Ok(())
    }

    #[test]
    fn a_new_connections_handle_is_no_flows() -> Result {
        let (all, ct) = (
            Fixture::new()?,
            super::super::conn(9, 0, super::super::ZoneDirs::Both)?,
        );
        super::super::scribble(&ct, all.flows.welcome());
        let handle = handle_of(&ct);
        let welcomed = [Some(handle), Some(0), None].map(|handle| all.flows.is_welcomed(handle));
        let found = all.find(&ct, Some(handle), Dir::Original);
        let made = all.make(&ct, Some(handle)).map_err(|_| EINVAL)?;
        assert_eq!(handle, SALT.encode(0));
        assert_eq!(welcomed, [true, false, false]);
        assert_eq!(found, None);
        assert_eq!(
            all.find(&ct, Some(handle_of(&ct)), Dir::Original),
            Some(made)
        );
        Ok(())
    }
}
