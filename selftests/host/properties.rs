// SPDX-License-Identifier: GPL-2.0

//! Properties that hold for any input from packets, clocks and other modules, tried on many inputs.

use proptest::prelude::*;

use crate::{
    flow::handle::{Handle, Salt, MAX_INDEX},
    kapi::nf::{
        key::Key,
        tcp::{Peer, Segment, Timeouts, Tracking},
        udp::Stream, //
    },
    keys,
    netns::command::commands,
    route::{
        key::difference,
        miss::Miss,
        stamp::{Facts, Stamp}, //
    },
    track::{tcp, udp}, //
};

const CASES: u32 = 20_000;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        // The failing input is printed; no file is written beside the sources.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Numbers, with edge values more frequent than by chance.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => any::<u32>(),
        1 => prop_oneof![Just(0), Just(1), Just(i32::MAX as u32), Just(1 << 31), Just(u32::MAX)],
        1 => 0..16u32,
    ]
}

fn key() -> impl Strategy<Value = Key> {
    (0..3u32, 0..3u32, 0..3u32, 0..3u32, 0..3u32).prop_map(
        |(iif, mark, dscp, flowlabel, source_check)| {
            keys::new(iif, mark, dscp << 2, flowlabel, source_check)
        },
    )
}

/// Returns a number near another one, where the bounds of a window are.
fn near(base: u32, (kind, off): (u8, i32)) -> u32 {
    let off = match kind % 9 {
        0..4 => off % 4,
        4..8 => off % 70_000,
        _ => off,
    };
    base.wrapping_add(off as u32)
}

/// A connection's state, and a segment that may fit it.
fn connection() -> impl Strategy<Value = (Tracking, Segment)> {
    (
        (number(), number()),
        proptest::array::uniform9(any::<(u8, i32)>()),
        proptest::array::uniform2(any::<(u8, u8)>()),
        proptest::array::uniform2(number()),
        any::<(bool, bool, bool, u16, u8, u8, u8)>(),
    )
        .prop_map(
            |((ours, theirs), [a, b, c, d, e, f, g, h, i], looks, wins, rest)| {
                let (reply, plain, repeated, win, retrans, odd, oddness) = rest;
                let [(sender_scale, sender_flags), (receiver_scale, receiver_flags)] = looks;
                let [sender_win, receiver_win] = wins;
                let sender = Peer {
                    end: near(ours, a),
                    max_end: near(ours, b),
                    max_win: sender_win,
                    max_ack: near(theirs, c),
                    scale: sender_scale % 16,
                    flags: sender_flags,
                };
                let receiver = Peer {
                    end: near(theirs, d),
                    max_end: near(theirs, e),
                    max_win: receiver_win,
                    max_ack: near(ours, f),
                    scale: receiver_scale % 16,
                    flags: receiver_flags,
                };
                let segment = Segment {
                    reply,
                    flags: if odd % 16 == 0 { oddness } else { Segment::ACK },
                    plain,
                    win: if odd % 16 == 1 { 0 } else { win },
                    seq: near(ours, g),
                    ack: near(theirs, h),
                    end: near(ours, i),
                };
                let mut tracking = Tracking {
                    seen: if reply {
                        [receiver, sender]
                    } else {
                        [sender, receiver]
                    },
                    state: if odd % 16 == 2 {
                        oddness
                    } else {
                        Tracking::ESTABLISHED
                    },
                    retrans,
                    ..Tracking::default()
                };
                if repeated {
                    tracking.last_dir = reply.into();
                    tracking.last_seq = segment.seq;
                    tracking.last_ack = segment.ack;
                    tracking.last_end = segment.end;
                    tracking.last_win = segment.win;
                }
                (tracking, segment)
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    (0..6u32, 0..6u32, 0..6u32, any::<u8>()).prop_map(
        |(established, retrans, unack, max_retrans)| Timeouts {
            established,
            retrans,
            unack,
            max_retrans,
        },
    )
}

/// Returns the same connection with other initial sequence numbers.
fn shifted(mut tracking: Tracking, by: [u32; 2]) -> Tracking {
    let [original, reply] = by;
    let last_is_reply = tracking.last_dir != 0;
    for (peer, ours, theirs) in [(0, original, reply), (1, reply, original)] {
        let peer = &mut tracking.seen[peer];
        peer.end = peer.end.wrapping_add(ours);
        peer.max_end = peer.max_end.wrapping_add(ours);
        peer.max_ack = peer.max_ack.wrapping_add(theirs);
    }
    let (ours, theirs) = if last_is_reply {
        (reply, original)
    } else {
        (original, reply)
    };
    tracking.last_seq = tracking.last_seq.wrapping_add(ours);
    tracking.last_end = tracking.last_end.wrapping_add(ours);
    tracking.last_ack = tracking.last_ack.wrapping_add(theirs);
    tracking
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_segment_that_is_missed_changes_nothing(
        (before, segment) in connection(), timeouts in timeouts(),
    ) {
        let mut after = before;
        if tcp::track(&mut after, &segment, &timeouts).is_err() {
            prop_assert_eq!(before, after);
        } else {
            prop_assert_eq!(after.state, Tracking::ESTABLISHED);
            prop_assert_eq!(after.last_index, Tracking::ACK_SET);
        }
    }

    #[test]
    fn where_sequence_numbers_begin_does_not_matter(
        (before, segment) in connection(), timeouts in timeouts(),
        original in number(), reply in number(),
    ) {
        let (mut here, mut there) = (before, shifted(before, [original, reply]));
        let (ours, theirs) = if segment.reply { (reply, original) } else { (original, reply) };
        let moved = Segment {
            seq: segment.seq.wrapping_add(ours),
            end: segment.end.wrapping_add(ours),
            ack: segment.ack.wrapping_add(theirs),
            ..segment
        };
        let one = tcp::track(&mut here, &segment, &timeouts);
        let other = tcp::track(&mut there, &moved, &timeouts);
        prop_assert_eq!(one, other);
        prop_assert_eq!(shifted(here, [original, reply]), there);
    }

    #[test]
    fn both_directions_are_alike((before, segment) in connection(), timeouts in timeouts()) {
        let mirrored = |mut tracking: Tracking| {
            tracking.seen.swap(0, 1);
            tracking.last_dir ^= 1;
            tracking
        };
        let (mut here, mut there) = (before, mirrored(before));
        let turned = Segment { reply: !segment.reply, ..segment };
        let one = tcp::track(&mut here, &segment, &timeouts);
        let other = tcp::track(&mut there, &turned, &timeouts);
        prop_assert_eq!(one, other);
        prop_assert_eq!(mirrored(here), there);
    }

    #[test]
    fn the_timeout_is_one_of_three_and_never_longer_than_established(
        (mut tracking, segment) in connection(), timeouts in timeouts(),
    ) {
        if let Ok(timeout) = tcp::track(&mut tracking, &segment, &timeouts) {
            prop_assert!([timeouts.established, timeouts.retrans, timeouts.unack].contains(&timeout));
            prop_assert!(timeout <= timeouts.established);
        }
    }

    #[test]
    fn a_udp_stream_begins_after_its_time(
        since in any::<u64>(), passed in -5..5i64, assured in any::<bool>(),
    ) {
        let stream = Stream {
            now: since.wrapping_add(passed as u64), since, assured, unreplied: 1, replied: 2,
        };
        let expected = if passed <= 0 { Some(1) } else { assured.then_some(2) };
        prop_assert_eq!(udp::track(&stream), expected);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(
            commands(&text).count(),
            text.strip_suffix(b"\n").unwrap_or(&text).split(|&byte| byte == b'\n').count()
        );
    }

    #[test]
    fn a_command_is_read_as_it_was_written(
        zone in any::<u16>(), max in 0..=i32::MAX as u32, blanks in "[ \t]{1,3}",
    ) {
        let text = format!("zone{blanks}{zone}{blanks}max{blanks}{max}\n");
        let read: Vec<_> = commands(text.as_bytes()).collect();
        let expected = crate::netns::command::Command {
            zone, action: crate::netns::command::Action::Max(Some(max)),
        };
        prop_assert_eq!(read, [Ok(expected)]);
    }

    #[test]
    fn a_handle_gives_back_the_number_that_it_was_made_of(
        random in number(), index in 1..=MAX_INDEX, count: u8,
    ) {
        let salt = Salt::new(random);
        prop_assert_eq!(salt.decode(salt.index(index)), Handle::Index(index));
        prop_assert_eq!(salt.decode(salt.count(count)), Handle::Count(count));
    }

    #[test]
    fn nothing_but_its_handle_leads_to_a_number(
        random in number(), high in number(), low in number(),
    ) {
        let salt = Salt::new(random);
        let handle = u64::from(high) << 32 | u64::from(low);
        if let Handle::Index(index) = salt.decode(handle) {
            prop_assert_eq!(salt.index(index), handle);
            prop_assert!((1..=MAX_INDEX).contains(&index));
        }
    }

    #[test]
    fn two_interface_indices_lead_to_no_number(
        random in number(), first in 0..=i32::MAX, second in 0..=i32::MAX,
    ) {
        let handle = u64::from(first as u32) << 32 | u64::from(second as u32);
        let read = Salt::new(random).decode(handle);
        prop_assert_eq!(read, if handle == 0 { Handle::Count(0) } else { Handle::Foreign });
    }

    #[test]
    fn a_handle_of_another_salt_leads_to_no_number(
        ours in number(), theirs in number(), index in 1..=MAX_INDEX, count: u8,
    ) {
        let (ours, theirs) = (Salt::new(ours), Salt::new(theirs));
        prop_assume!(ours != theirs);
        prop_assert_eq!(ours.decode(theirs.index(index)), Handle::Count(0));
        prop_assert_eq!(ours.decode(theirs.count(count)), Handle::Count(0));
    }

    #[test]
    fn a_handle_that_lost_a_bit_leads_nowhere_else(
        random in number(), index in 1..=MAX_INDEX, bit in 31..64u32,
    ) {
        let salt = Salt::new(random);
        let spoilt = salt.index(index) ^ 1 << bit;
        prop_assert!(!matches!(salt.decode(spoilt), Handle::Index(_)));
    }

    #[test]
    fn keys_differ_when_and_only_when_they_are_not_equal(one in key(), other in key()) {
        prop_assert_eq!(difference(&one, &other, false).is_none(), one == other);
        let same = Key { rest: one.rest & Key::CLASS | other.rest & !Key::CLASS, ..other };
        prop_assert_eq!(difference(&one, &other, true).is_none(), one == same);
        for any in [false, true] {
            prop_assert_eq!(difference(&one, &other, any), difference(&other, &one, any));
        }
    }

    #[test]
    fn the_difference_is_a_part_that_differs(one in key(), other in key()) {
        let differs = match difference(&one, &other, false) {
            None => true,
            Some(Miss::Iif) => one.iif != other.iif,
            Some(Miss::Mark) => one.mark != other.mark,
            Some(Miss::Dscp) => one.dscp() != other.dscp(),
            Some(Miss::Flowlabel) => one.flowlabel() != other.flowlabel(),
            Some(Miss::SourceCheck) => {
                one != other && one.dscp() == other.dscp() && one.flowlabel() == other.flowlabel()
            }
            Some(_) => false,
        };
        prop_assert!(differs);
    }

    #[test]
    fn age_is_what_passed_whatever_the_clock_shows(
        born in number(), passed in number(), max_age in number(),
    ) {
        let at = |jiffies| Facts { jiffies, generation: 1, cause: 0, max_age };
        let checked = Stamp::new(&at(born)).check(&at(born.wrapping_add(passed)));
        prop_assert_eq!(checked == Err(Miss::Aged), passed >= max_age);
    }

    #[test]
    fn any_byte_is_a_reason(raw in any::<i8>()) {
        let reason = Miss::from_raw(raw);
        let known = usize::try_from(raw).is_ok_and(|raw| raw < Miss::COUNT);
        prop_assert_eq!(reason.as_raw() == raw, known);
    }
}
