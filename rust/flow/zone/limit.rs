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
        sync::{percpu::CounterSet, rcu::ReadSide}, //
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
    /// The counts of zones that were freed while the limit stayed, and of refused packets.
    saved: [Atomic<u64>; Tally::ALL.len()],
}

impl Limit {
    const NONE: u32 = u32::MAX;

    /// Creates a limit that admits every connection. Process context.
    pub(super) fn new(all: Arc<Seats>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                max: Atomic::new(Self::NONE),
                seats <- SeatCount::new(all),
                connections: ConnCount::new(),
                saved: [const { Atomic::new(0) }; Tally::ALL.len()],
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

    /// Adds to a counter. Any context.
    pub(super) fn count_many(&self, counter: Tally, times: u64) {
        if let Some(saved) = self.saved.get(counter.index()) {
            saved.add(times, Relaxed);
        }
    }

    /// Counts a new packet that was dropped because the limit was reached. Any context.
    pub(crate) fn count_refused(&self) {
        self.count_many(Tally::Limited, 1);
    }

    /// Returns a counter.
    pub(super) fn tally(&self, counter: Tally) -> u64 {
        self.saved
            .get(counter.index())
            .map_or(0, |saved| saved.load(Relaxed))
    }

    /// Returns whether any connection is counted.
    pub(super) fn is_used(&self) -> bool {
        self.seats.taken() != 0
    }
}
