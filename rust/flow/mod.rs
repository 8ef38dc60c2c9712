// SPDX-License-Identifier: GPL-2.0

//! Flows: the data that a netns keeps for each forwarded connection that has lasted, in tables by
//! zone.

mod extension;
pub(crate) mod handle;
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
        slot::Slot, //
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

/// If renewals serve no packet, one in so many packets renews. A power of 2.
const RENEWALS_IN_VAIN: i8 = 8;

/// Notes about a direction's packets.
struct Notes {
    /// The last reason why a packet was not served, or a slot was dropped.
    last: Atomic<i8>,
    /// When a route was last tried: the low 16 bits of jiffies.
    tried: Atomic<i16>,
    /// How many packets had been served at the last renewal: the low 16 bits.
    hits: Atomic<i16>,
    /// How many packets have found their route outdated since renewals serve none, modulo
    /// [`RENEWALS_IN_VAIN`].
    in_vain: Atomic<i8>,
}

impl Notes {
    fn new(tried: i16) -> Self {
        Self {
            last: Atomic::new(Miss::Empty.as_raw()),
            tried: Atomic::new(tried),
            hits: Atomic::new(0),
            in_vain: Atomic::new(0),
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

    /// Returns how many packets a direction has served since the last renewal. Wrong once in 65536
    /// packets.
    fn served(&self, dir: Dir) -> i16 {
        let before = self.notes(dir).hits.load(Relaxed);
        self.low_hits(dir).wrapping_sub(before)
    }

    /// Returns whether a direction's live routes have served enough packets to be renewed again at
    /// once.
    pub(crate) fn is_renewal_paid(&self, dir: Dir) -> bool {
        !(0..RENEWAL_PAYS).contains(&self.served(dir))
    }

    /// Notes that a live route of a direction is renewed.
    pub(crate) fn note_renewal(&self, dir: Dir) {
        let (hits, notes) = (self.low_hits(dir), self.notes(dir));
        if notes.hits.xchg(hits, Relaxed) != hits {
            notes.in_vain.store(0, Relaxed);
        }
    }

    /// Returns whether a packet leaves its outdated route outdated, because renewals are in vain:
    /// changes come faster than packets. Counts the packet.
    pub(crate) fn rests(&self, dir: Dir) -> bool {
        if self.served(dir) != 0 {
            return false;
        }
        let in_vain = &self.notes(dir).in_vain;
        let count = in_vain.load(Relaxed);
        in_vain.store(count.wrapping_add(1) & (RENEWALS_IN_VAIN - 1), Relaxed);
        count != 0
    }

    /// Notes why a direction's packet was not served, or why its slot was dropped.
    pub(crate) fn note(&self, dir: Dir, miss: Miss) {
        self.notes(dir).last.store(miss.as_raw(), Relaxed);
    }

    /// Returns the reason of the last [`Flow::note`].
    pub(crate) fn last(&self, dir: Dir) -> Miss {
        Miss::from_raw(self.notes(dir).last.load(Relaxed))
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
