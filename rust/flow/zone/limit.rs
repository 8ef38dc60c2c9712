// SPDX-License-Identifier: GPL-2.0

//! The limit of a zone: how many conntrack entries it may occupy.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

use crate::kapi::{
    nf::{
        conn::{Conn, CtRef},
        seats::{NoSeat, SeatCount, Seats}, //
    },
    sync::rcu::ReadSide, //
};

/// A zone's limit.
#[pin_data]
pub(crate) struct Limit {
    /// The maximum number of entries, or [`Limit::NONE`].
    max: Atomic<u32>,
    /// The seats of the zone's entries.
    #[pin]
    seats: SeatCount,
}

impl Limit {
    const NONE: u32 = u32::MAX;

    /// Creates a limit that admits every connection. Process context.
    pub(super) fn new(all: Arc<Seats>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                max: Atomic::new(Self::NONE),
                seats <- SeatCount::new(all),
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

    /// Returns whether any connection is counted.
    pub(super) fn is_used(&self) -> bool {
        self.seats.taken() != 0
    }
}
