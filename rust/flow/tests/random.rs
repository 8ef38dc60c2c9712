// SPDX-License-Identifier: GPL-2.0

//! Random TCP states and segments, close to the bounds of the windows.

use kernel::prelude::*;

use crate::kapi::{
    nf::tcp::{Peer, Segment, Tracking},
    sync::time,
    tests::Options, //
};

/// Marsaglia's xorshift: reproducible from its seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        let seed = time::random_u32();
        pr_info!("kunit: seed {seed}\n");
        Self(u64::from(seed) << 1 | 1)
    }

    pub(super) fn next(&mut self) -> u32 {
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
    pub(super) fn tracking(&mut self, bases: [u32; 2]) -> Tracking {
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
    pub(super) fn segment(&mut self, bases: [u32; 2], last: &Tracking) -> Segment {
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

    pub(super) fn options(&mut self) -> Options {
        match self.below(16) {
            0 => Options::Sack,
            1 => Options::OtherAndSack,
            2 | 3 => Options::Other,
            4..8 => Options::TimeStamp,
            _ => Options::None,
        }
    }
}
