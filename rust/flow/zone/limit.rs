// SPDX-License-Identifier: GPL-2.0

//! The limit of a zone: how many conntrack entries it may occupy.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

use crate::{
    flow::zone::{ConnCount, Tally},
    kapi::{
        nf::{
            conn::{Conn, CtRef},
            seats::{NoSeat, SeatCount, Seats}, //
        },
        sync::{
            percpu::{CounterSet, Counters},
            rcu::ReadSide, //
        },
    },
};

/// A zone's limit.
#[pin_data]
pub(crate) struct Limit {
    /// The maximum number of entries, or [`Limit::NONE`].
    max: Atomic<u32>,
    /// The seats of the zone's entries.
    #[pin]
    seats: SeatCount,
    pub(super) connections: ConnCount,
    /// The counts of zones that were freed while the limit stayed.
    saved: [Atomic<u64>; Tally::ALL.len()],
    refused: Counters<Refused>,
}

/// New packets that were dropped because the limit was reached.
#[derive(Clone, Copy)]
struct Refused;

impl CounterSet for Refused {
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }
}

impl Limit {
    const NONE: u32 = u32::MAX;

    /// Creates a limit that admits every connection. Process context.
    pub(super) fn new(all: Arc<Seats>) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                max: Atomic::new(Self::NONE),
                seats <- SeatCount::new(all),
                connections: ConnCount::new(),
                saved: [const { Atomic::new(0) }; Tally::ALL.len()],
                refused: Counters::new()?,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns the maximum number of entries. `None` while the limit is being set or removed.
    pub(crate) fn max(&self) -> Option<u32> {
        let max = self.max.load(Relaxed);
        (max != Self::NONE).then_some(max)
    }

    /// Sets the maximum number of entries; `None` admits every connection.
    pub(super) fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(Self::NONE), Relaxed);
    }

    /// Counts a new connection, which conntrack is about to confirm, if the limit admits it. Does
    /// not sleep.
    pub(crate) fn admit(&self, ct: &CtRef<'_>, rcu: &ReadSide<'_>) -> Result<(), NoSeat> {
        self.seats.admit(ct, self.max.load(Relaxed), rcu)
    }

    /// Counts a connection that conntrack has confirmed, unless it is counted. Does not sleep.
    pub(crate) fn count(&self, conn: &Conn, rcu: &ReadSide<'_>) -> Result<(), NoSeat> {
        self.seats.seat(conn, rcu)
    }

    /// Removes ended connections from the count, looking at `most`. Returns how many it looked at.
    /// Process context; lets other tasks run.
    pub(super) fn collect(&self, most: u32) -> u32 {
        self.seats.collect(most)
    }

    /// Adds to a counter the count of a zone that is freed. Any context.
    pub(super) fn save(&self, counter: Tally, times: u64) {
        if let Some(saved) = self.saved.get(counter.index()) {
            saved.add(times, Relaxed);
        }
    }

    /// Counts a new packet that was dropped because the limit was reached. Any context.
    pub(crate) fn count_refused(&self) {
        self.refused.inc(Refused);
    }

    /// Returns what the limit keeps of a counter of its zone.
    pub(super) fn tally(&self, counter: Tally) -> u64 {
        let saved = self.saved.get(counter.index());
        let saved = saved.map_or(0, |saved| saved.load(Relaxed));
        match counter {
            Tally::Limited => saved.saturating_add(self.refused.sum(Refused)),
            _ => saved,
        }
    }

    /// Returns whether any connection is counted.
    pub(super) fn is_used(&self) -> bool {
        self.seats.taken() != 0
    }
}
