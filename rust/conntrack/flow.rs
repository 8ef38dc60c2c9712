// SPDX-License-Identifier: GPL-2.0

//! A flow: what we keep of a connection beside the connection itself.

#![deny(unsafe_code)]

use kernel::sync::{
    atomic::{Atomic, Relaxed},
    Arc, //
};

use crate::{
    kapi::{conntrack::Dir, registry::Entry},
    route::{direction::Direction, reason::Reason}, //
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

/// The routes of a connection, one for each direction.
pub(crate) struct Flow {
    original: Direction,
    reply: Direction,
    last_original: Atomic<i8>,
    last_reply: Atomic<i8>,
    held: Arc<Held>,
}

impl Flow {
    /// A flow without routes.
    pub(crate) fn new(held: Arc<Held>) -> Self {
        held.flows.add(1, Relaxed);
        Self {
            original: Direction::new(),
            reply: Direction::new(),
            last_original: Atomic::new(Reason::Empty.as_raw()),
            last_reply: Atomic::new(Reason::Empty.as_raw()),
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

    fn last_of(&self, dir: Dir) -> &Atomic<i8> {
        match dir {
            Dir::Original => &self.last_original,
            Dir::Reply => &self.last_reply,
        }
    }

    /// Remembers why a direction's last packet or slot came to what it did.
    pub(crate) fn note(&self, dir: Dir, reason: Reason) {
        self.last_of(dir).store(reason.as_raw(), Relaxed);
    }

    /// What [`Flow::note`] was last told.
    pub(crate) fn last(&self, dir: Dir) -> Reason {
        Reason::from_raw(self.last_of(dir).load(Relaxed))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.held.flows.fetch_sub(1, Relaxed);
    }
}

// The budget: a flow and the live slots of both its directions in 256 bytes.
kernel::static_assert!(
    crate::kapi::slab::Cache::<Entry<Flow>>::OBJECT_SIZE
        + 2 * crate::kapi::slab::Cache::<crate::route::slot::Slot>::OBJECT_SIZE
        <= 256
);
