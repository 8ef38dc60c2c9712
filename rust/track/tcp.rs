// SPDX-License-Identifier: GPL-2.0

//! TCP tracking by prediction: a predictable segment leaves its connection, to the bit, in the
//! state that `nf_conntrack_tcp_packet()` would leave. All other segments are left to the kernel.
//!
//! A predictable segment belongs to an established connection of which both sides are known. It
//! carries ACK and neither SYN, FIN nor RST, and lies within all four bounds of `tcp_in_window()`.
//! The idea is Van Jacobson's header prediction. Names and order are those of the C functions.
//!
//! Pure: also built and tested on the host.

use crate::kapi::nf::tcp::{Peer, Segment, Timeouts, Tracking};

/// Why a segment is left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpMiss {
    /// The segment has SYN, FIN or RST, or no ACK.
    Flags,
    /// The connection is not established, or one side is unknown.
    State,
    /// The segment has selective acknowledgments, or its options cannot be read.
    Options,
    /// The segment is outside one of the bounds.
    Window,
}

/// `MAXACKWINCONST`: the lower bound on how far acknowledgments may lag behind, in bytes.
const MAX_ACK_WINDOW: u32 = 66_000;

/// `TCP_MAX_WSCALE`.
const MAX_SCALE: u8 = 14;

/// Compares sequence numbers, which wrap; mirrors `before()`.
fn before(one: u32, other: u32) -> bool {
    // CAST: Deliberate: the sign of the difference decides.
    (one.wrapping_sub(other) as i32) < 0
}

fn after(one: u32, other: u32) -> bool {
    before(other, one)
}

/// Tracks a segment and returns the connection's new timeout, in jiffies. A miss changes nothing.
pub(crate) fn track(
    tracking: &mut Tracking,
    segment: &Segment,
    timeouts: &Timeouts,
) -> Result<u32, TcpMiss> {
    const CONTROL: u8 = Segment::FIN | Segment::SYN | Segment::RST | Segment::ACK;
    if segment.flags & CONTROL != Segment::ACK {
        return Err(TcpMiss::Flags);
    }
    let [original, reply] = &mut tracking.seen;
    let (sender, receiver) = if segment.reply {
        (reply, original)
    } else {
        (original, reply)
    };
    if tracking.state != Tracking::ESTABLISHED
        || sender.max_win == 0
        || receiver.max_win == 0
        || sender.scale > MAX_SCALE
    {
        return Err(TcpMiss::State);
    }
    // `tcp_sack()` reads the options only if the receiver permits selective acknowledgments.
    if receiver.flags & Peer::SACK_PERM != 0 && !segment.plain {
        return Err(TcpMiss::Options);
    }
    if !in_window(sender, receiver, segment) {
        return Err(TcpMiss::Window);
    }
    update(sender, receiver, segment);
    let last = (
        tracking.last_dir,
        tracking.last_seq,
        tracking.last_ack,
        tracking.last_end,
        tracking.last_win,
    );
    let this = (
        u8::from(segment.reply),
        segment.seq,
        segment.ack,
        segment.end,
        segment.win,
    );
    if last == this {
        tracking.retrans = tracking.retrans.wrapping_add(1);
    } else {
        (
            tracking.last_dir,
            tracking.last_seq,
            tracking.last_ack,
            tracking.last_end,
            tracking.last_win,
        ) = this;
        tracking.retrans = 0;
    }
    tracking.last_index = Tracking::ACK_SET;
    Ok(timeout(tracking, timeouts))
}

/// Checks the four bounds of `tcp_in_window()`.
fn in_window(sender: &Peer, receiver: &Peer, segment: &Segment) -> bool {
    let max_lag = sender.max_win.max(MAX_ACK_WINDOW);
    let below = |end: u32, room: u32| end.wrapping_sub(room).wrapping_sub(1);
    before(segment.seq, sender.max_end.wrapping_add(1))
        && before(segment.ack, receiver.end.wrapping_add(1))
        && after(segment.end, below(sender.end, receiver.max_win))
        && after(segment.ack, below(receiver.end, max_lag))
}

/// Updates both sides as `tcp_in_window()` does for a segment within the bounds.
fn update(sender: &mut Peer, receiver: &mut Peer, segment: &Segment) {
    let win = u32::from(segment.win).wrapping_shl(sender.scale.into());
    sender.max_win = sender.max_win.max(win);
    if after(segment.end, sender.end) {
        sender.end = segment.end;
        sender.flags |= Peer::DATA_UNACKNOWLEDGED;
    }
    if sender.flags & Peer::MAXACK_SET == 0 {
        sender.max_ack = segment.ack;
        sender.flags |= Peer::MAXACK_SET;
    } else if after(segment.ack, sender.max_ack) {
        sender.max_ack = segment.ack;
    }
    if after(segment.end, sender.max_end) {
        let more = segment.end.wrapping_sub(sender.max_end);
        receiver.max_win = receiver.max_win.wrapping_add(more);
    }
    let edge = segment.ack.wrapping_add(win);
    if after(edge, receiver.max_end.wrapping_sub(1)) {
        receiver.max_end = if win == 0 { edge.wrapping_add(1) } else { edge };
    }
    if segment.ack == receiver.end {
        receiver.flags &= !Peer::DATA_UNACKNOWLEDGED;
    }
}

/// Returns the timeout that `nf_conntrack_tcp_packet()` would pick.
fn timeout(tracking: &Tracking, timeouts: &Timeouts) -> u32 {
    let [original, reply] = &tracking.seen;
    let unacknowledged = (original.flags | reply.flags) & Peer::DATA_UNACKNOWLEDGED != 0;
    if tracking.retrans >= timeouts.max_retrans && timeouts.established > timeouts.retrans {
        timeouts.retrans
    } else if unacknowledged && timeouts.established > timeouts.unack {
        timeouts.unack
    } else if tracking.last_win == 0 && timeouts.established > timeouts.retrans {
        timeouts.retrans
    } else {
        timeouts.established
    }
}
