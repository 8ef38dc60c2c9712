// SPDX-License-Identifier: GPL-2.0

//! A flow: what we keep of a connection beside the connection itself.

pub(crate) mod handle;
pub(crate) mod table;
#[cfg(nfzr_kunit)]
mod tests;
pub(crate) mod zone;

use kernel::sync::{
    atomic::{Atomic, Relaxed},
    Arc, //
};

use crate::{
    kapi::{
        entry::registry::Entry,
        nf::conn::Dir, //
    },
    route::{
        direction::Direction,
        miss::Reason, //
    },
};

/// How many references we hold, counted where they are taken and given up: a flow holds one on its
/// connection, a slot one on its route. Both must come back to zero.
pub(crate) struct Held {
    /// Flows, and so references on connections.
    pub(crate) flows: Atomic<i64>,
    /// Slots, and so references on routes.
    pub(crate) slots: Atomic<i64>,
}

impl Held {
    /// Nothing held.
    pub(crate) const fn new() -> Self {
        Self {
            flows: Atomic::new(0),
            slots: Atomic::new(0),
        }
    }
}

/// The low 16 bits of jiffies.
fn stamp(jiffies: u32) -> i16 {
    // CAST: Cut off on purpose.
    jiffies as i16
}

/// What is remembered of a direction's packets.
struct Notes {
    /// Why a packet, or a slot, was last not served or not kept.
    last: Atomic<i8>,
    /// When a route was last tried: the low 16 bits of jiffies.
    tried: Atomic<i16>,
}

impl Notes {
    fn new(tried: i16) -> Self {
        Self {
            last: Atomic::new(Reason::Empty.as_raw()),
            tried: Atomic::new(tried),
        }
    }
}

/// The routes of a connection, one for each direction.
pub(crate) struct Flow {
    original: Direction,
    reply: Direction,
    original_notes: Notes,
    reply_notes: Notes,
    held: Arc<Held>,
}

impl Flow {
    /// A flow without routes, made at `jiffies`.
    pub(crate) fn new(held: Arc<Held>, jiffies: u32) -> Self {
        held.flows.add(1, Relaxed);
        let not_yet = stamp(jiffies.wrapping_sub(1));
        Self {
            original: Direction::new(),
            reply: Direction::new(),
            original_notes: Notes::new(not_yet),
            reply_notes: Notes::new(not_yet),
            held,
        }
    }

    /// The routes of a direction.
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

    /// Whether a direction may have a new route tried now: once a jiffy, since a lookup that is
    /// tried in vain costs more than none. A stamp that is 65536 jiffies old may say no for one.
    pub(crate) fn may_try(&self, dir: Dir, jiffies: u32) -> bool {
        let now = stamp(jiffies);
        self.notes(dir).tried.xchg(now, Relaxed) != now
    }

    /// Remembers why a direction's packet was not served, or its slot not kept.
    pub(crate) fn note(&self, dir: Dir, reason: Reason) {
        self.notes(dir).last.store(reason.as_raw(), Relaxed);
    }

    /// What [`Flow::note`] was last told.
    pub(crate) fn last(&self, dir: Dir) -> Reason {
        Reason::from_raw(self.notes(dir).last.load(Relaxed))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.held.flows.fetch_sub(1, Relaxed);
    }
}

// The budget: a flow and the live slots of both its directions in 256 bytes.
kernel::static_assert!(
    crate::kapi::mem::slab::Cache::<Entry<Flow>>::OBJECT_SIZE
        + 2 * crate::kapi::mem::slab::Cache::<crate::route::slot::Slot>::OBJECT_SIZE
        <= 256
);
