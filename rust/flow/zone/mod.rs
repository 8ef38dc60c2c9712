// SPDX-License-Identifier: GPL-2.0

//! Zones: the tables of a netns, one for each zone id in use, each with its counters.
//!
//! Locks, in this order: `control` of [`zones::Zones`] (process context), the lock of
//! [`stock::Stock`]. Nothing is freed under the latter.

pub(crate) mod info;
pub(crate) mod limit;
pub(crate) mod stock;
pub(crate) mod zones;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

use crate::{
    flow::Flow,
    kapi::{
        entry::table::Tabled,
        sync::percpu::{CounterSet, Counters, OneCounter}, //
    },
    named_enum::named_enum, //
};

named_enum! {
    /// The counters of a zone.
    Tally {
        /// Packets that were found in the zone's table and attached to their connection.
        Hit = "hits",
        /// Packets of the zone that were looked up and left to conntrack.
        Miss = "misses",
        /// Flows that were created.
        New = "new",
        /// New packets that were dropped because the limit was reached.
        Limited = "limited",
        /// Connections that were flushed.
        Flushed = "flushed",
        /// Non-matching entries that lookups compared: the length of the table's chains.
        Met = "met",
    }
}

impl CounterSet for Tally {
    const COUNT: usize = Self::COUNT;

    fn index(self) -> usize {
        // CAST: The variant's number.
        self as usize
    }
}

/// A number of connections that is counted now and then.
struct ConnCount {
    /// The result of the last count.
    last: Atomic<u32>,
    /// What the present count has found.
    found: Atomic<u32>,
}

impl ConnCount {
    fn new() -> Self {
        Self {
            last: Atomic::new(0),
            found: Atomic::new(0),
        }
    }

    fn begin(&self) {
        self.found.store(0, Relaxed);
    }

    fn add(&self) {
        self.found.add(1, Relaxed);
    }

    fn end(&self) {
        self.last.store(self.found.load(Relaxed), Relaxed);
    }

    fn last(&self) -> u32 {
        self.last.load(Relaxed)
    }
}

/// A zone of a netns that has flows, or had some a moment ago. Its table has the flows with a
/// direction in the zone.
pub(crate) type Zone = Tabled<Flow, ZoneData>;

/// What a zone has besides its table.
pub(crate) struct ZoneData {
    /// Set once, before the zone is published.
    id: Atomic<u32>,
    counters: Counters<Tally>,
    /// Not in the cache line that each packet reads.
    written: KBox<Written>,
}

/// What changes with each flow.
struct Written {
    flows: Atomic<i64>,
    connections: ConnCount,
    /// Whether the collector found the zone empty last time.
    idle: Atomic<bool>,
}

impl Zone {
    /// Creates an empty zone, whose id must be set before it is published. Process context.
    fn make() -> Result<Arc<Self>> {
        let written = Written {
            flows: Atomic::new(0),
            connections: ConnCount::new(),
            idle: Atomic::new(false),
        };
        let data = ZoneData {
            id: Atomic::new(0),
            counters: Counters::new()?,
            written: KBox::new(written, GFP_KERNEL_ACCOUNT)?,
        };
        Ok(Arc::new(Self::new(data)?, GFP_KERNEL_ACCOUNT)?)
    }

    /// Returns the zone's id.
    pub(crate) fn id(&self) -> u16 {
        // CAST: The id came from a `u16`.
        self.id.load(Relaxed) as u16
    }

    /// Returns how many flows have a direction in this zone. A flow with both counts once.
    pub(crate) fn flows(&self) -> i64 {
        self.written.flows.load(Relaxed)
    }

    /// Returns the sum of a counter.
    pub(crate) fn tally(&self, counter: Tally) -> u64 {
        self.counters.sum(counter)
    }

    /// Returns a counter, for a helper that increments it.
    #[inline(always)]
    pub(crate) fn counter(&self, counter: Tally) -> OneCounter<'_> {
        self.counters.one(counter)
    }

    /// Increments a counter. Any context.
    pub(crate) fn count(&self, counter: Tally) {
        self.counters.inc(counter);
    }

    /// Counts the non-matching entries of a lookup. Any context.
    pub(super) fn count_met(&self, others: u32) {
        self.counters.add(Tally::Met, others.into());
    }

    pub(super) fn count_new(&self) {
        self.written.idle.store(false, Relaxed);
        self.count(Tally::New);
        self.written.flows.add(1, Relaxed);
    }

    pub(super) fn count_gone(&self) {
        self.written.flows.fetch_sub(1, Relaxed);
    }
}
