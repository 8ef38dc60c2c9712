// SPDX-License-Identifier: GPL-2.0

//! What is known about a zone, from its table and from its limit.

use crate::{
    flow::zone::{limit::Limit, ConnCount, Tally, Zone},
    kapi::sync::percpu::CounterSet, //
};

/// What is known about a zone that has flows or a limit, or had flows a moment ago.
pub(crate) struct ZoneInfo<'r> {
    pub(super) zone: Option<&'r Zone>,
    pub(super) limit: Option<&'r Limit>,
    /// The counts that the limit keeps.
    pub(super) saved: [u64; Tally::ALL.len()],
}

impl ZoneInfo<'_> {
    /// Returns how many flows have a direction in the zone. A flow with both counts once.
    pub(crate) fn flows(&self) -> i64 {
        self.zone.map_or(0, Zone::flows)
    }

    /// Returns how many buckets the zone's table has.
    pub(crate) fn buckets(&self) -> u32 {
        self.zone.map_or(0, |zone| zone.table.buckets())
    }

    /// Returns the limit, if there is one.
    pub(crate) fn max(&self) -> Option<u32> {
        self.limit?.max()
    }

    /// Returns how many connections of the zone conntrack has, as of the last
    /// [`zones::Zones::count_connections`].
    pub(crate) fn connections(&self) -> u32 {
        let zone = self.zone.map(|zone| &zone.written.connections);
        let limit = self.limit.map(|limit| &limit.connections);
        limit.or(zone).map_or(0, ConnCount::last)
    }

    /// Returns the sum of a counter.
    pub(crate) fn tally(&self, counter: Tally) -> u64 {
        let zone = self.zone.map_or(0, |zone| zone.tally(counter));
        let saved = self.saved.get(counter.index()).copied().unwrap_or(0);
        zone.saturating_add(saved)
    }
}
