// SPDX-License-Identifier: GPL-2.0

//! TCP tracking by prediction, in examples: each bound at its edge and one beyond it, and each
//! field that a segment changes. The numbers were derived by hand from `tcp_in_window()`.

use crate::{
    kapi::nf::tcp::{Peer, Segment, Timeouts, Tracking},
    track::tcp::{track, TcpMiss}, //
};

const TIMEOUTS: Timeouts = Timeouts {
    established: 1000,
    retrans: 30,
    unack: 60,
    max_retrans: 3,
};

/// The client has sent up to 1000, the server up to 5000; their windows are 10,000 and 20,000
/// bytes.
fn established() -> Tracking {
    Tracking {
        seen: [
            Peer {
                end: 1000,
                max_end: 21_000,
                max_win: 10_000,
                max_ack: 5000,
                scale: 0,
                flags: Peer::SACK_PERM | Peer::MAXACK_SET,
            },
            Peer {
                end: 5000,
                max_end: 15_000,
                max_win: 20_000,
                max_ack: 1000,
                scale: 0,
                flags: Peer::SACK_PERM | Peer::MAXACK_SET,
            },
        ],
        state: Tracking::ESTABLISHED,
        last_index: 0,
        ..Tracking::default()
    }
}

/// A segment of the client: `len` bytes from `seq` on; it acknowledges all of the server's data.
fn data(seq: u32, len: u32) -> Segment {
    Segment {
        reply: false,
        flags: Segment::ACK,
        plain: true,
        win: 10_000,
        seq,
        ack: 5000,
        end: seq.wrapping_add(len),
    }
}

fn tracked(segment: &Segment) -> Result<(Tracking, u32), TcpMiss> {
    let mut tracking = established();
    track(&mut tracking, segment, &TIMEOUTS).map(|timeout| (tracking, timeout))
}

#[test]
fn data_moves_its_senders_end_and_waits_for_its_acknowledgment() {
    let (after, timeout) = tracked(&data(1000, 500)).unwrap();
    let [client, server] = after.seen;
    assert_eq!(client.end, 1500);
    assert_eq!(
        client.flags & Peer::DATA_UNACKNOWLEDGED,
        Peer::DATA_UNACKNOWLEDGED
    );
    assert_eq!(client.max_end, 21_000);
    assert_eq!(client.max_win, 10_000);
    // The window that the client advertises: 5000 + 10,000.
    assert_eq!(server.max_end, 15_000);
    assert_eq!(server.max_win, 20_000);
    assert_eq!(timeout, TIMEOUTS.unack);
    assert_eq!(
        (
            after.last_dir,
            after.last_seq,
            after.last_ack,
            after.last_end,
            after.last_win
        ),
        (0, 1000, 5000, 1500, 10_000)
    );
    assert_eq!((after.retrans, after.last_index), (0, Tracking::ACK_SET));
}

#[test]
fn an_acknowledgment_of_all_ends_the_wait() {
    let mut tracking = established();
    track(&mut tracking, &data(1000, 500), &TIMEOUTS).unwrap();
    let ack = Segment {
        reply: true,
        flags: Segment::ACK,
        plain: true,
        win: 20_000,
        seq: 5000,
        ack: 1500,
        end: 5000,
    };
    let timeout = track(&mut tracking, &ack, &TIMEOUTS).unwrap();
    let [client, server] = tracking.seen;
    assert_eq!(timeout, TIMEOUTS.established);
    assert_eq!(client.flags & Peer::DATA_UNACKNOWLEDGED, 0);
    assert_eq!(client.max_end, 21_500);
    assert_eq!(server.max_ack, 1500);
    assert_eq!(tracking.last_dir, 1);
}

#[test]
fn an_acknowledgment_of_a_part_does_not() {
    let mut tracking = established();
    track(&mut tracking, &data(1000, 500), &TIMEOUTS).unwrap();
    let ack = Segment {
        reply: true,
        ack: 1499,
        ..data(5000, 0)
    };
    assert_eq!(track(&mut tracking, &ack, &TIMEOUTS), Ok(TIMEOUTS.unack));
}

#[test]
fn a_window_is_scaled_by_its_senders_scale() {
    let mut tracking = established();
    tracking.seen[0].scale = 7;
    track(&mut tracking, &data(1000, 0), &TIMEOUTS).unwrap();
    let [client, server] = tracking.seen;
    assert_eq!(client.max_win, 10_000 << 7);
    assert_eq!(server.max_end, 5000 + (10_000 << 7));
}

#[test]
fn the_largest_scale_is_tracked_and_a_larger_one_is_not() {
    let mut tracking = established();
    tracking.seen[0].scale = 14;
    assert!(track(&mut tracking, &data(1000, 0), &TIMEOUTS).is_ok());
    assert_eq!(tracking.seen[0].max_win, 10_000 << 14);
    tracking.seen[0].scale = 15;
    assert_eq!(
        track(&mut tracking, &data(1000, 0), &TIMEOUTS),
        Err(TcpMiss::State)
    );
}

#[test]
fn a_closed_window_lets_one_byte_through_and_shortens_the_timeout() {
    let mut tracking = established();
    tracking.seen[1].max_end = 5000;
    let closed = Segment {
        win: 0,
        ..data(1000, 0)
    };
    let timeout = track(&mut tracking, &closed, &TIMEOUTS).unwrap();
    assert_eq!(tracking.seen[1].max_end, 5001);
    assert_eq!(timeout, TIMEOUTS.retrans);
    assert_eq!(tracking.last_win, 0);
}

#[test]
fn a_window_that_shrinks_takes_nothing_back() {
    let mut tracking = established();
    tracking.seen[1].max_end = 15_001;
    track(&mut tracking, &data(1000, 0), &TIMEOUTS).unwrap();
    assert_eq!(tracking.seen[1].max_end, 15_001);
    let less = Segment {
        win: 9,
        ..data(1000, 0)
    };
    track(&mut tracking, &less, &TIMEOUTS).unwrap();
    assert_eq!(tracking.seen[0].max_win, 10_000);
}

#[test]
fn data_that_ends_behind_the_window_widens_it() {
    // It begins at the edge, so it counts as inside the window.
    let (after, _) = tracked(&data(21_000, 100)).unwrap();
    assert_eq!(after.seen[1].max_win, 20_100);
    assert_eq!(after.seen[0].max_end, 21_000);
}

#[test]
fn the_upper_bound_of_data_is_the_end_of_the_window() {
    assert!(tracked(&data(21_000, 0)).is_ok());
    assert_eq!(tracked(&data(21_001, 0)), Err(TcpMiss::Window));
}

#[test]
fn the_lower_bound_of_data_is_a_window_behind() {
    // 1000 - 20,000: the bound applies to the segment's end only.
    assert!(tracked(&data(1000u32.wrapping_sub(20_000), 0)).is_ok());
    assert_eq!(
        tracked(&data(1000u32.wrapping_sub(20_001), 0)),
        Err(TcpMiss::Window)
    );
    assert!(tracked(&data(1000u32.wrapping_sub(20_001), 1)).is_ok());
}

#[test]
fn the_upper_bound_of_acknowledgments_is_what_was_sent() {
    let ack = |ack| {
        tracked(&Segment {
            ack,
            ..data(1000, 0)
        })
    };
    assert!(ack(5000).is_ok());
    assert_eq!(ack(5001), Err(TcpMiss::Window));
}

#[test]
fn the_lower_bound_of_acknowledgments_is_66_000_or_a_larger_window_behind() {
    let at = |max_win, back: u32| {
        let mut tracking = established();
        tracking.seen[0].max_win = max_win;
        let ack = 5000u32.wrapping_sub(back);
        track(
            &mut tracking,
            &Segment {
                ack,
                ..data(1000, 0)
            },
            &TIMEOUTS,
        )
    };
    assert!(at(10_000, 66_000).is_ok());
    assert_eq!(at(10_000, 66_001), Err(TcpMiss::Window));
    assert!(at(70_000, 70_000).is_ok());
    assert_eq!(at(70_000, 70_001), Err(TcpMiss::Window));
}

#[test]
fn an_old_acknowledgment_does_not_lower_the_highest() {
    let mut tracking = established();
    let old = Segment {
        ack: 4000,
        ..data(1000, 0)
    };
    track(&mut tracking, &old, &TIMEOUTS).unwrap();
    assert_eq!(tracking.seen[0].max_ack, 5000);
    tracking.seen[0].flags &= !Peer::MAXACK_SET;
    track(&mut tracking, &old, &TIMEOUTS).unwrap();
    assert_eq!(tracking.seen[0].max_ack, 4000);
    assert_eq!(tracking.seen[0].flags & Peer::MAXACK_SET, Peer::MAXACK_SET);
}

#[test]
fn repeated_segments_are_counted_and_shorten_the_timeout() {
    let mut tracking = established();
    let ack = data(1000, 0);
    let timeouts: Vec<_> = (0..5)
        .map(|_| {
            (
                track(&mut tracking, &ack, &TIMEOUTS).unwrap(),
                tracking.retrans,
            )
        })
        .collect();
    assert_eq!(
        timeouts,
        [(1000, 0), (1000, 1), (1000, 2), (30, 3), (30, 4)]
    );
    let other = Segment { win: 10_001, ..ack };
    assert_eq!(track(&mut tracking, &other, &TIMEOUTS), Ok(1000));
    assert_eq!(tracking.retrans, 0);
}

#[test]
fn the_count_of_repeated_segments_wraps() {
    let mut tracking = established();
    let ack = data(1000, 0);
    track(&mut tracking, &ack, &TIMEOUTS).unwrap();
    tracking.retrans = u8::MAX;
    assert_eq!(track(&mut tracking, &ack, &TIMEOUTS), Ok(1000));
    assert_eq!(tracking.retrans, 0);
}

#[test]
fn each_part_of_a_segment_makes_it_another() {
    let first = data(1000, 10);
    let others = [
        Segment { seq: 999, ..first },
        Segment { ack: 4999, ..first },
        Segment { end: 1011, ..first },
        Segment { win: 1, ..first },
    ];
    for other in others {
        let mut tracking = established();
        track(&mut tracking, &first, &TIMEOUTS).unwrap();
        track(&mut tracking, &first, &TIMEOUTS).unwrap();
        assert_eq!(tracking.retrans, 1);
        track(&mut tracking, &other, &TIMEOUTS).unwrap();
        assert_eq!(tracking.retrans, 0);
    }
}

#[test]
fn a_shorter_timeout_that_was_configured_is_not_lengthened() {
    let short = Timeouts {
        established: 10,
        ..TIMEOUTS
    };
    let mut tracking = established();
    assert_eq!(track(&mut tracking, &data(1000, 500), &short), Ok(10));
    let closed = Segment {
        win: 0,
        ..data(1000, 0)
    };
    assert_eq!(track(&mut tracking, &closed, &short), Ok(10));
    tracking.retrans = 200;
    assert_eq!(track(&mut tracking, &closed, &short), Ok(10));
}

#[test]
fn other_packets_are_the_kernels() {
    for flags in 0..=u8::MAX {
        let plain = flags & 0x17 == Segment::ACK;
        let result = tracked(&Segment {
            flags,
            ..data(1000, 0)
        });
        assert_eq!(result.is_ok(), plain, "{flags:#x}");
    }
    for state in 0..=u8::MAX {
        let mut tracking = established();
        tracking.state = state;
        let result = track(&mut tracking, &data(1000, 0), &TIMEOUTS);
        assert_eq!(result.is_ok(), state == Tracking::ESTABLISHED, "{state}");
    }
    for peer in 0..2 {
        let mut tracking = established();
        tracking.seen[peer].max_win = 0;
        assert_eq!(
            track(&mut tracking, &data(1000, 0), &TIMEOUTS),
            Err(TcpMiss::State)
        );
    }
}

#[test]
fn options_matter_to_who_takes_selective_acknowledgments() {
    let options = Segment {
        plain: false,
        ..data(1000, 0)
    };
    assert_eq!(tracked(&options), Err(TcpMiss::Options));
    let mut tracking = established();
    tracking.seen[1].flags &= !Peer::SACK_PERM;
    assert!(track(&mut tracking, &options, &TIMEOUTS).is_ok());
    tracking.seen[1].flags |= Peer::SACK_PERM;
    tracking.seen[0].flags &= !Peer::SACK_PERM;
    assert_eq!(
        track(&mut tracking, &options, &TIMEOUTS),
        Err(TcpMiss::Options)
    );
}
