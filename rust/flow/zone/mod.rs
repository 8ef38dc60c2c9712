// SPDX-License-Identifier: GPL-2.0

//! Zones: the tables of a netns, one for each zone id in use, each with its limit and counters.
//!
//! A table can only be made in process context, but a zone's first packet may come in softirq. So
//! the module keeps a few made ones in stock, and refills it when one was taken.
//!
//! Locks, in this order: that of who configures zones or frees them (process context), the stock's,
//! the array's. Under the stock's nothing is freed.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        Mutex, //
    },
};

use crate::{
    flow::Flow,
    kapi::{
        entry::registry::Table,
        mem::array::{RcuArray, Removed},
        nf::{
            conncount::{Count, NotCounted},
            hook::State,
            packet::SkBuff, //
        },
        sync::{
            lock::SpinLockBh,
            percpu::{CounterSet, Counters},
            rcu::ReadSide, //
        },
    },
    named_enum::named_enum, //
};

named_enum! {
    /// What is counted of a zone.
    Tally {
        /// Packets that were found in the zone's table and given their connection.
        Hit = "hits",
        /// Packets of the zone that were left to conntrack.
        Miss = "misses",
        /// Flows that ever came.
        New = "new",
        /// New packets that were dropped for the limit's sake.
        Limited = "limited",
        /// Connections that were flushed.
        Flushed = "flushed",
        /// Flows of other connections that lookups met on their way.
        Met = "met",
    }
}

impl CounterSet for Tally {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        // CAST: The enum's own number.
        self as usize
    }
}

/// A zone of a netns.
pub(crate) struct Zone {
    /// Set once, before anyone can find the zone.
    id: Atomic<u32>,
    /// The flows with a direction in this zone.
    pub(crate) table: Table<Flow>,
    flows: Atomic<i64>,
    counters: Counters<Tally>,
    /// The garbage collector found it empty last time.
    idle: Atomic<bool>,
}

impl Zone {
    /// An empty zone, whose id is still to be set. Process context.
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                id: Atomic::new(0),
                table: Table::new()?,
                flows: Atomic::new(0),
                counters: Counters::new()?,
                idle: Atomic::new(false),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// The zone's id.
    pub(crate) fn id(&self) -> u16 {
        // CAST: It came from a `u16`.
        self.id.load(Relaxed) as u16
    }

    /// Flows with a direction in this zone, each counted once.
    pub(crate) fn flows(&self) -> i64 {
        self.flows.load(Relaxed)
    }

    /// The sum of a counter.
    pub(crate) fn tally(&self, counter: Tally) -> u64 {
        self.counters.sum(counter)
    }

    /// Counts one. Any context.
    pub(crate) fn count(&self, counter: Tally) {
        self.counters.inc(counter);
    }

    /// Counts what a lookup met. Any context.
    pub(super) fn count_met(&self, others: u32) {
        if others != 0 {
            self.counters.add(Tally::Met, others.into());
        }
    }

    pub(super) fn count_new(&self) {
        self.idle.store(false, Relaxed);
        self.count(Tally::New);
        self.flows.add(1, Relaxed);
    }

    pub(super) fn count_gone(&self) {
        self.flows.fetch_sub(1, Relaxed);
    }
}

/// A zone's limit.
#[pin_data]
pub(crate) struct Limit {
    /// How many connections the zone may have.
    max: Atomic<u32>,
    /// Those that came since the limit was set, or was made so much larger.
    #[pin]
    connections: Count,
    /// Those that came before it was made so much larger.
    older: Option<Arc<Limit>>,
}

impl Limit {
    const NONE: u32 = u32::MAX;

    /// One that lets everybody in, made for about so many connections. Process context.
    fn new(about: u32, older: Option<Arc<Limit>>) -> Result<Arc<Self>> {
        Arc::try_pin_init(
            try_pin_init!(Self {
                max: Atomic::new(Self::NONE),
                connections <- Count::new(about),
                older,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// How many connections the zone may have; `None`, for the moment that it has no limit yet or any
    /// more.
    pub(crate) fn max(&self) -> Option<u32> {
        let max = self.max.load(Relaxed);
        (max != Self::NONE).then_some(max)
    }

    /// How many there are; some may be gone.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.count().saturating_add(self.older())
    }

    fn older(&self) -> u32 {
        self.older.as_ref().map_or(0, |older| older.connections())
    }

    /// Whether the packet's new connection may come in, and counts it if so. Does not sleep.
    pub(crate) fn admit(&self, skb: &SkBuff, state: &State<'_>) -> Result<(), NotCounted> {
        let room = self.max.load(Relaxed).saturating_sub(self.older());
        self.connections.add(skb, state, room)
    }

    /// Forgets connections that are gone; whether there are others. Process context; sleeps.
    fn collect(&self) -> bool {
        if self.connections.count() != 0 {
            self.connections.collect();
        }
        let older = self.older.as_ref().is_some_and(|older| older.collect());
        self.connections.count() != 0 || older
    }
}

/// Zones in stock, ready to be given an id. One for the module.
#[pin_data]
pub(crate) struct Stock {
    #[pin]
    zones: SpinLockBh<KVec<Arc<Zone>>>,
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
        let zone = stock.pop()?;
        zone.id.store(id.into(), Relaxed);
        if let Err((_, zone)) = zones.insert(id.into(), zone) {
            // No memory, or one was configured just now. There is room, since the zone came from
            // there under the same lock.
            let _ = stock.push_within_capacity(zone);
        }
        zones.get(id.into(), rcu)
    }
}

/// The zones of a netns.
#[pin_data]
pub(crate) struct Zones {
    #[pin]
    zones: RcuArray<Zone>,
    /// The limits of those that have one: these zones are in use.
    #[pin]
    limits: RcuArray<Limit>,
    /// How many have one.
    limited: Atomic<i32>,
    /// Held by who configures a zone, and by who frees zones that are not configured.
    #[pin]
    control: Mutex<()>,
}

impl Zones {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            zones <- RcuArray::new(),
            limits <- RcuArray::new(),
            limited: Atomic::new(0),
            control <- new_mutex!((), "conntrack::zone::control"),
        })
    }

    /// The zone with an id, if it is in use. Any context.
    pub(crate) fn get<'r>(&'r self, id: u16, rcu: &ReadSide<'r>) -> Option<&'r Zone> {
        self.zones.get(id.into(), rcu)
    }

    /// The same, to be kept. To be dropped in process context.
    pub(super) fn get_arc(&self, id: u16) -> Option<Arc<Zone>> {
        let guard = kernel::sync::rcu::read_lock();
        self.zones.get_arc(id.into(), &ReadSide::of(&guard))
    }

    /// The first zone with the id `from` or a higher one. Any context.
    pub(crate) fn next<'r>(&'r self, from: u32, rcu: &ReadSide<'r>) -> Option<(u32, &'r Zone)> {
        self.zones.next(from, rcu)
    }

    /// Whether any zone has a limit. Any context.
    pub(crate) fn is_any_limited(&self) -> bool {
        self.limited.load(Relaxed) != 0
    }

    /// The limit of a zone, if it has one. Any context.
    pub(crate) fn limit<'r>(&'r self, id: u16, rcu: &ReadSide<'r>) -> Option<&'r Limit> {
        self.limits.get(id.into(), rcu)
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

    /// Sets the limits of zones in turn, all of them or, without memory, none. Process context;
    /// sleeps.
    pub(crate) fn set_max(
        &self,
        limits: impl Iterator<Item = (u16, Option<u32>)> + Clone,
    ) -> Result {
        let _control = self.control.lock();
        // First all that may fail, by which no zone has another limit yet.
        let result = limits
            .clone()
            .filter_map(|(id, max)| Some((id, max?)))
            .try_for_each(|(id, max)| self.make_limit(id, max));
        if result.is_ok() {
            for (id, max) in limits.clone() {
                if let Some(limit) = self.limit_arc(id) {
                    limit.max.store(max.unwrap_or(Limit::NONE), Relaxed);
                }
            }
        }
        let mut removed = KVec::new();
        for (id, _) in limits {
            if self
                .limit_arc(id)
                .is_some_and(|limit| limit.max().is_none())
            {
                self.limited.fetch_sub(1, Relaxed);
                if let Some(limit) = self.limits.remove(id.into()) {
                    // Without memory it is dropped here, by itself.
                    let _ = removed.push(limit, GFP_KERNEL);
                }
            }
        }
        Removed::drop_all(removed);
        result
    }

    fn limit_arc(&self, id: u16) -> Option<Arc<Limit>> {
        let guard = kernel::sync::rcu::read_lock();
        self.limits.get_arc(id.into(), &ReadSide::of(&guard))
    }

    /// Puts a zone in use, and has it have a limit that is made for about `max` connections, if only of
    /// [`Limit::NONE`]. Under `control`.
    fn make_limit(&self, id: u16, max: u32) -> Result {
        if self.get_arc(id).is_none() {
            let zone = Zone::new()?;
            zone.id.store(id.into(), Relaxed);
            match self.zones.insert(id.into(), zone) {
                Ok(()) => (),
                // A packet put one in use just now.
                Err((err, _)) if err == EBUSY => (),
                Err((err, _)) => return Err(err),
            }
        }
        match self.limit_arc(id) {
            None => {
                self.limits
                    .insert(id.into(), Limit::new(max, None)?)
                    .map_err(|(err, _)| err)?;
                self.limited.add(1, Relaxed);
            }
            Some(old) if !old.connections.fits(max) => {
                let new = Limit::new(max, Some(old.clone()))?;
                new.max.store(old.max.load(Relaxed), Relaxed);
                drop(self.limits.replace(id.into(), new));
            }
            Some(_) => (),
        }
        Ok(())
    }

    /// Frees the zones that were empty for two calls in a row and have no limit; how many are left
    /// that may become so, or have connections to be looked after. Process context; sleeps.
    pub(crate) fn collect(&self) -> usize {
        let _control = self.control.lock();
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
            let empty = zone.flows() == 0;
            if let Some(limit) = self.limits.get_arc(id, &rcu) {
                drop(guard);
                let busy = limit.collect() || !empty;
                left = left.saturating_add(busy.into());
                continue;
            }
            let idle = empty && zone.idle.xchg(true, Relaxed);
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
