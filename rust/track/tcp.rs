// SPDX-License-Identifier: GPL-2.0

//! TCP tracking by prediction: what `nf_conntrack_tcp_packet()` would leave of a connection after a
//! segment that fits what was seen before, to the bit. All others are the kernel's.
//!
//! Such a segment belongs to an established connection of which both sides are known, carries ACK
//! and neither SYN, FIN nor RST, and lies within all four bounds of `tcp_in_window()`; the idea is
//! Van Jacobson's header prediction. Names and order are those of the C functions.
//!
//! Pure: also built and tested on the host.

use crate::kapi::nf::tcp::{Peer, Segment, Timeouts, Tracking};

/// Why a segment is the kernel's to track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// SYN, FIN or RST, or no ACK.
    Flags,
    /// The connection is not established, or one side is unknown.
    State,
    /// Options that may be selective acknowledgments.
    Options,
    /// Outside of a bound.
    Window,
}

/// `MAXACKWINCONST`: how far acknowledgments may lag behind at the least, in bytes.
const MAX_ACK_WINDOW: u32 = 66_000;

/// `TCP_MAX_WSCALE`.
const MAX_SCALE: u8 = 14;

/// `before()` of sequence numbers, which wrap.
fn before(one: u32, other: u32) -> bool {
    // CAST: The difference's sign, on purpose.
    (one.wrapping_sub(other) as i32) < 0
}

fn after(one: u32, other: u32) -> bool {
    before(other, one)
}

/// Tracks a segment: the timeout that the connection gets, in jiffies. On a miss nothing changes.
pub(crate) fn track(
    tracking: &mut Tracking,
    segment: &Segment,
    timeouts: &Timeouts,
) -> Result<u32, Miss> {
    const CONTROL: u8 = Segment::FIN | Segment::SYN | Segment::RST | Segment::ACK;
    if segment.flags & CONTROL != Segment::ACK {
        return Err(Miss::Flags);
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
        return Err(Miss::State);
    }
    // Only then are they looked at: `tcp_sack()`.
    if receiver.flags & Peer::SACK_PERM != 0 && !segment.plain {
        return Err(Miss::Options);
    }
    if !in_window(sender, receiver, segment) {
        return Err(Miss::Window);
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

/// The four bounds of `tcp_in_window()`.
fn in_window(sender: &Peer, receiver: &Peer, segment: &Segment) -> bool {
    let max_lag = sender.max_win.max(MAX_ACK_WINDOW);
    let below = |end: u32, room: u32| end.wrapping_sub(room).wrapping_sub(1);
    before(segment.seq, sender.max_end.wrapping_add(1))
        && before(segment.ack, receiver.end.wrapping_add(1))
        && after(segment.end, below(sender.end, receiver.max_win))
        && after(segment.ack, below(receiver.end, max_lag))
}

/// What `tcp_in_window()` then changes of both sides.
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

/// The timeout that `nf_conntrack_tcp_packet()` picks in the end.
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
