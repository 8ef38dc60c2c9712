// SPDX-License-Identifier: GPL-2.0

//! Flows: the data that a netns keeps for each forwarded connection that has lasted, in tables by
//! zone.

mod extension;
pub(crate) mod handle;
pub(crate) mod passes;
pub(crate) mod table;
#[cfg(nfzr_kunit)]
mod tests;
mod walk;
pub(crate) mod zone;

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::{
    kapi::{
        entry::Entry,
        mem::slab::Cache,
        nf::conn::Dir,
        sync::rcu::ReadSide, //
    },
    route::{
        direction::Direction,
        miss::Miss,
        slot::Slot,
        stay::Stay, //
    },
};

/// Returns the low 16 bits of jiffies.
fn low_jiffies(jiffies: u32) -> i16 {
    // CAST: Truncated on purpose.
    jiffies as i16
}

/// How many packets a renewed route must serve before its renewal has saved more than it cost, if
/// there are no rules.
const RENEWAL_PAYS: i16 = 3;

/// If two renewals in a row serve no packet, so many packets renew nothing. Unless the limit of one
/// try a jiffy parts them, the two are of packets in a row: if only each nth packet meets a change,
/// one of them serves the next packet.
const PACKETS_AT_REST: i8 = 15;

/// In place of a number of packets at rest: one renewal was in vain.
const ONE_IN_VAIN: i8 = -1;

/// Notes about a direction's packets.
struct Notes {
    /// The last reason why a packet was not served, or a slot was dropped.
    last: Atomic<i8>,
    /// When a route was last tried: the low 16 bits of jiffies.
    tried: Atomic<i16>,
    /// How many packets had been served when a renewal was last tried: the low 16 bits.
    hits: Atomic<i16>,
    /// How many packets leave an outdated route outdated, or [`ONE_IN_VAIN`].
    resting: Atomic<i8>,
    /// The last reason why a packet did not jump.
    stay: Atomic<i8>,
}

impl Notes {
    fn new(tried: i16) -> Self {
        Self {
            last: Atomic::new(Miss::Empty.as_raw()),
            tried: Atomic::new(tried),
            hits: Atomic::new(0),
            resting: Atomic::new(0),
            stay: Atomic::new(Stay::Unlearned.as_raw()),
        }
    }
}

/// The routes of a connection, one for each direction.
pub(crate) struct Flow {
    original: Direction,
    reply: Direction,
    original_notes: Notes,
    reply_notes: Notes,
}

impl Flow {
    /// Creates a flow without routes at the time `jiffies`.
    pub(crate) fn new(jiffies: u32) -> Self {
        let not_yet = low_jiffies(jiffies.wrapping_sub(1));
        Self {
            original: Direction::new(),
            reply: Direction::new(),
            original_notes: Notes::new(not_yet),
            reply_notes: Notes::new(not_yet),
        }
    }

    /// Returns the routes of a direction.
    pub(crate) fn direction(&self, dir: Dir) -> &Direction {
        match dir {
            Dir::Original => &self.original,
            Dir::Reply => &self.reply,
        }
    }

    fn notes(&self, dir: Dir) -> &Notes {
        match dir {
            Dir::Original => &self.original_notes,
            Dir::Reply => &self.reply_notes,
        }
    }

    /// Returns whether a direction may try a new route now, and notes the try. A direction may try
    /// once per jiffy, because a lookup in vain costs more than none. If the last try was a
    /// multiple of 65536 jiffies ago, one try is refused.
    pub(crate) fn may_try(&self, dir: Dir, jiffies: u32) -> bool {
        let now = low_jiffies(jiffies);
        self.notes(dir).tried.xchg(now, Relaxed) != now
    }

    /// Returns the low 16 bits of the number of packets that a direction has served.
    fn low_hits(&self, dir: Dir) -> i16 {
        // CAST: Truncated on purpose.
        self.direction(dir).hits() as i16
    }

    /// Returns how many packets a direction has served since a renewal was last tried. Wrong once
    /// in 65536 packets.
    fn served(&self, dir: Dir) -> i16 {
        let before = self.notes(dir).hits.load(Relaxed);
        self.low_hits(dir).wrapping_sub(before)
    }

    /// Returns whether a direction's live routes have served enough packets to be renewed again at
    /// once.
    pub(crate) fn is_renewal_paid(&self, dir: Dir) -> bool {
        !(0..RENEWAL_PAYS).contains(&self.served(dir))
    }

    /// Notes that a renewal of a direction's route is tried. Returns whether a packet was served
    /// since the last try.
    pub(crate) fn try_renewal(&self, dir: Dir) -> bool {
        let hits = self.low_hits(dir);
        self.notes(dir).hits.xchg(hits, Relaxed) != hits
    }

    /// Notes that a direction's route was renewed, and whether the try before had served a packet.
    pub(crate) fn note_renewal(&self, dir: Dir, has_served: bool) {
        let resting = &self.notes(dir).resting;
        let next = match (has_served, resting.load(Relaxed)) {
            (true, _) => 0,
            (false, ONE_IN_VAIN) => PACKETS_AT_REST,
            (false, _) => ONE_IN_VAIN,
        };
        resting.store(next, Relaxed);
    }

    /// Returns whether a packet leaves its outdated route outdated, because renewed routes served
    /// none: routes change, or age, faster than packets come. Counts the packet.
    pub(crate) fn rests(&self, dir: Dir) -> bool {
        let resting = &self.notes(dir).resting;
        let left = resting.load(Relaxed);
        if left <= 0 || self.served(dir) != 0 {
            return false;
        }
        resting.store(left.saturating_sub(1), Relaxed);
        true
    }

    /// Notes why a direction's packet was not served, or why its slot was dropped.
    pub(crate) fn note(&self, dir: Dir, miss: Miss) {
        self.notes(dir).last.store(miss.as_raw(), Relaxed);
    }

    /// Returns the reason of the last [`Flow::note`].
    pub(crate) fn last(&self, dir: Dir) -> Miss {
        Miss::from_raw(self.notes(dir).last.load(Relaxed))
    }

    /// Notes why a direction's packet did not jump.
    pub(crate) fn note_stay(&self, dir: Dir, stay: Stay) {
        self.notes(dir).stay.store(stay.as_raw(), Relaxed);
    }

    /// Returns the reason of the last [`Flow::note_stay`].
    pub(crate) fn last_stay(&self, dir: Dir) -> Stay {
        Stay::from_raw(self.notes(dir).stay.load(Relaxed))
    }

    /// Drops the routes for which `bad` returns a reason, and notes the reasons. Returns how many
    /// routes were dropped.
    pub(crate) fn purge(
        &self,
        rcu: &ReadSide<'_>,
        bad: impl Fn(Dir, &Slot) -> Option<Miss>,
    ) -> usize {
        let mut dropped: usize = 0;
        for dir in Dir::ALL {
            for why in self.direction(dir).purge(rcu, |slot| bad(dir, slot)) {
                self.note(dir, why);
                dropped = dropped.saturating_add(1);
            }
        }
        dropped
    }
}

// The budget: a flow and one live slot of each direction take at most 256 bytes.
kernel::static_assert!(Cache::<Entry<Flow>>::OBJECT_SIZE + 2 * Cache::<Slot>::OBJECT_SIZE <= 256);
