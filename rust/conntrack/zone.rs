// SPDX-License-Identifier: GPL-2.0

//! Zones: the tables of a netns, one for each zone id in use.
//!
//! A table can only be made in process context, but a zone's first packet may come in softirq. So
//! the module keeps a few made ones in stock, and refills it when one was taken.
//!
//! Locks, in this order: the stock's, the XArray's. Under the stock's nothing is freed.

#![deny(unsafe_code)]

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

use crate::{
    conntrack::flow::Flow,
    kapi::{
        lock::SpinLockBh,
        rcu::ReadSide,
        registry::Table,
        xarray::{RcuArray, Removed}, //
    },
};

/// A zone of a netns.
pub(crate) struct Zone {
    id: u16,
    /// The flows with a direction in this zone.
    pub(crate) table: Table<Flow>,
    flows: Atomic<i64>,
    new: Atomic<i64>,
    /// The garbage collector found it empty last time.
    idle: Atomic<bool>,
}

impl Zone {
    /// An empty zone, whose id is still to be set. Process context.
    fn new() -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                id: 0,
                table: Table::new()?,
                flows: Atomic::new(0),
                new: Atomic::new(0),
                idle: Atomic::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    /// The zone's id.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// Flows with a direction in this zone, each counted once.
    pub(crate) fn flows(&self) -> i64 {
        self.flows.load(Relaxed)
    }

    /// Flows that ever came.
    pub(crate) fn arrivals(&self) -> i64 {
        self.new.load(Relaxed)
    }

    pub(super) fn count_new(&self) {
        self.idle.store(false, Relaxed);
        self.new.add(1, Relaxed);
        self.flows.add(1, Relaxed);
    }

    pub(super) fn count_gone(&self) {
        self.flows.fetch_sub(1, Relaxed);
    }
}

/// Zones in stock, ready to be given an id. One for the module.
#[pin_data]
pub(crate) struct Stock {
    #[pin]
    zones: SpinLockBh<KVec<KBox<Zone>>>,
    /// Somebody took one, or found none.
    asked: Atomic<bool>,
}

impl Stock {
    /// How many zones are kept ready.
    const SIZE: usize = 32;

    /// An empty stock. Process context.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            zones <- SpinLockBh::new(
                KVec::with_capacity(Self::SIZE, GFP_KERNEL)?,
                c"conntrack::zone::Stock",
                kernel::static_lock_class!(),
            ),
            asked: Atomic::new(false),
        })
    }

    /// Fills it up. Process context.
    pub(crate) fn refill(&self) -> Result {
        while self.zones.lock().len() < Self::SIZE {
            let zone = Zone::new()?;
            let full = self.zones.lock().push_within_capacity(zone);
            if full.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Whether it was asked for a zone since this was called last, and so should be refilled.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Relaxed) && self.asked.xchg(false, Relaxed)
    }

    /// Puts a zone from the stock in use under an id that has none. Does not sleep.
    fn put_in_use<'r>(
        &self,
        zones: &'r RcuArray<Zone>,
        id: u16,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Zone> {
        let mut stock = self.zones.lock();
        if let Some(zone) = zones.get(id.into(), rcu) {
            return Some(zone);
        }
        self.asked.store(true, Relaxed);
        let mut zone = stock.pop()?;
        zone.id = id;
        if let Err((_, zone)) = zones.insert(id.into(), zone) {
            // No memory. There is room, since the zone came from there under the same lock.
            let _ = stock.push_within_capacity(zone);
            return None;
        }
        zones.get(id.into(), rcu)
    }
}

/// The zones of a netns.
#[pin_data]
pub(crate) struct Zones {
    #[pin]
    zones: RcuArray<Zone>,
}

impl Zones {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            zones <- RcuArray::new(),
        })
    }

    /// The zone with an id, if it is in use. Any context.
    pub(crate) fn get<'r>(&'r self, id: u16, rcu: &ReadSide<'r>) -> Option<&'r Zone> {
        self.zones.get(id.into(), rcu)
    }

    /// The first zone with the id `from` or a higher one. Any context.
    pub(crate) fn next<'r>(&'r self, from: u32, rcu: &ReadSide<'r>) -> Option<(u32, &'r Zone)> {
        self.zones.next(from, rcu)
    }

    /// The zone with an id, put in use if need be; `None`: the stock or the memory is used up.
    /// Does not sleep.
    pub(super) fn get_or_make<'r>(
        &'r self,
        id: u16,
        stock: &Stock,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Zone> {
        self.get(id, rcu)
            .or_else(|| stock.put_in_use(&self.zones, id, rcu))
    }

    /// Frees the zones that were empty for two calls in a row; how many are left. Process context;
    /// sleeps.
    pub(crate) fn collect(&self) -> usize {
        let mut left: usize = 0;
        let mut closed = KVec::new();
        let mut from = 0;
        loop {
            let guard = kernel::sync::rcu::read_lock();
            let rcu = ReadSide::of(&guard);
            let Some((id, zone)) = self.next(from, &rcu) else {
                break;
            };
            from = id.saturating_add(1);
            let idle = zone.flows() == 0 && zone.idle.xchg(true, Relaxed);
            if !idle || !zone.table.close() {
                left = left.saturating_add(1);
                continue;
            }
            drop(guard);
            if let Some(removed) = self.zones.remove(id) {
                // Without memory it is dropped here, by itself.
                let _ = closed.push(removed, GFP_KERNEL);
            }
        }
        Removed::drop_all(closed);
        left
    }
}
