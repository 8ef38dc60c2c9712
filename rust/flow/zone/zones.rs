// SPDX-License-Identifier: GPL-2.0

//! The zones of a netns.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::read_lock,
        Arc,
        Mutex, //
    },
};

use crate::{
    flow::zone::{
        limit::Limit,
        stock::Stock,
        Zone, //
    },
    kapi::{
        mem::array::{RcuArray, Removed},
        net::netns::NetHandle,
        nf::seats::Seats,
        sync::{once::ReadOnce, rcu::ReadSide}, //
    },
};

/// The zones of a netns.
#[pin_data]
pub(crate) struct Zones {
    #[pin]
    zones: RcuArray<Zone>,
    /// The limits. A zone with a limit is in use.
    #[pin]
    limits: RcuArray<Limit>,
    /// The seats of the connections that count against the limits.
    seats: Arc<Seats>,
    /// The number of limits.
    limited: Atomic<i32>,
    /// The zone whose limit is collected next.
    collects: Atomic<u32>,
    /// Held while a zone is configured, and while unconfigured zones are freed.
    #[pin]
    control: Mutex<()>,
    /// Held while connections are counted.
    #[pin]
    counting: Mutex<()>,
}

impl Zones {
    /// How many seats of limits the collector looks at in a call.
    const SEATS_PER_COLLECT: u32 = 16384;

    /// Creates an empty set of zones. Process context.
    pub(crate) fn new(net: NetHandle) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            zones <- RcuArray::new(),
            limits <- RcuArray::new(),
            seats: Arc::pin_init(Seats::new(net), GFP_KERNEL)?,
            limited: Atomic::new(0),
            collects: Atomic::new(0),
            control <- new_mutex!((), "flow::zone::control"),
            counting <- new_mutex!((), "flow::zone::counting"),
        })
    }

    /// Returns the zone with this id, if it is in use. Any context.
    pub(crate) fn get<'r>(&'r self, id: u16, rcu: &ReadSide<'r>) -> Option<&'r Zone> {
        self.zones.get(id.into(), rcu)
    }

    /// Returns a reference on the zone with this id. The reference must be dropped in process
    /// context.
    pub(in crate::flow) fn get_arc(&self, id: u16) -> Option<Arc<Zone>> {
        let guard = read_lock();
        self.zones.get_arc(id.into(), &ReadSide::of(&guard))
    }

    /// Returns the first zone with the id `from` or higher. Any context.
    pub(crate) fn next<'r>(&'r self, from: u32, rcu: &ReadSide<'r>) -> Option<(u32, &'r Zone)> {
        self.zones.next(from, rcu)
    }

    /// Returns whether any zone has a limit. Any context.
    #[inline(always)]
    pub(crate) fn is_any_limited(&self) -> bool {
        self.limited.read_once() != 0
    }

    /// Returns the limit of a zone, if it has one. Any context.
    pub(crate) fn limit<'r>(&'r self, id: u16, rcu: &ReadSide<'r>) -> Option<&'r Limit> {
        self.limits.get(id.into(), rcu)
    }

    /// Returns the zone with this id, and puts one in use if there is none. Returns `None` if the
    /// stock or the memory is used up. Does not sleep.
    pub(in crate::flow) fn get_or_make<'r>(
        &'r self,
        id: u16,
        stock: &Stock,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Zone> {
        self.get(id, rcu)
            .or_else(|| stock.put_in_use(&self.zones, id, rcu))
    }

    /// Counts the connections of each zone that is in use, for [`Zone::connections`]. Walks
    /// conntrack's whole hash table. Process context; sleeps.
    pub(crate) fn count_connections(&self) {
        let _counting = self.counting.lock();
        self.for_each(Zone::begin_count);
        self.seats.net().for_each_conn(|conn, rcu| {
            if let Some(zone) = self.get(conn.own_zone(), rcu) {
                zone.count_connection();
            }
        });
        self.for_each(Zone::end_count);
    }

    fn for_each(&self, f: impl Fn(&Zone)) {
        let mut from = 0;
        loop {
            let guard = read_lock();
            let Some((id, zone)) = self.next(from, &ReadSide::of(&guard)) else {
                break;
            };
            f(zone);
            from = id.saturating_add(1);
        }
    }

    /// Sets the limits of zones in turn. Sets all of them or, on an error, none. `enforce` makes
    /// packets pass the limits; it is called before a zone gets its first limit. Process context;
    /// sleeps.
    pub(crate) fn set_max(
        &self,
        limits: impl Iterator<Item = (u16, Option<u32>)> + Clone,
        enforce: impl FnOnce() -> Result,
    ) -> Result {
        let _control = self.control.lock();
        // First the steps that may fail. They do not change the limit of any zone.
        let mut made = false;
        let result = limits
            .clone()
            .filter_map(|(id, max)| Some((id, max?)))
            .try_for_each(|(id, _)| {
                made |= self.make_limit(id)?;
                Ok(())
            })
            .and_then(|()| if made { enforce() } else { Ok(()) });
        if result.is_ok() {
            if made {
                self.count_present();
            }
            for (id, max) in limits.clone() {
                if let Some(limit) = self.limit_arc(id) {
                    limit.set_max(max);
                }
            }
        }
        let mut removed = KVVec::new();
        for (id, _) in limits {
            if self
                .limit_arc(id)
                .is_some_and(|limit| limit.max().is_none())
            {
                self.limited.fetch_sub(1, Relaxed);
                if let Some(limit) = self.limits.remove(id.into()) {
                    // Without memory for the list, the limit is dropped here by itself.
                    let _ = removed.push(limit, GFP_KERNEL_ACCOUNT);
                }
            }
        }
        Removed::drop_all(removed);
        result
    }

    /// Makes the limits count the connections that exist. Those that are confirmed meanwhile pass
    /// the limits' hooks, which count them. Process context; sleeps.
    pub(crate) fn count_present(&self) {
        self.seats.net().for_each_conn(|conn, rcu| {
            if let Some(limit) = self.limit(conn.own_zone(), rcu) {
                // Without memory, the connection's next packet counts it.
                let _ = limit.count(conn, rcu);
            }
        });
    }

    fn limit_arc(&self, id: u16) -> Option<Arc<Limit>> {
        let guard = read_lock();
        self.limits.get_arc(id.into(), &ReadSide::of(&guard))
    }

    /// Puts a zone in use, and gives it a limit that admits every connection. Returns whether it
    /// had none. Under `control`.
    fn make_limit(&self, id: u16) -> Result<bool> {
        if self.limit_arc(id).is_some() {
            return Ok(false);
        }
        if self.get_arc(id).is_none() {
            let zone = Zone::new()?;
            zone.id.store(id.into(), Relaxed);
            match self.zones.insert(id.into(), zone) {
                Ok(()) => (),
                // A packet put a zone in use meanwhile.
                Err((err, _)) if err == EBUSY => (),
                Err((err, _)) => return Err(err),
            }
        }
        self.limits
            .insert(id.into(), Limit::new(self.seats.clone())?)
            .map_err(|(err, _)| err)?;
        self.limited.add(1, Relaxed);
        Ok(true)
    }

    /// Frees the zones without a limit that were empty in two calls in a row, and the seats of some
    /// ended connections. Returns how many zones are left that may become free, or that have seats.
    /// Process context; sleeps.
    pub(crate) fn collect(&self) -> usize {
        let _control = self.control.lock();
        self.collect_seats();
        let mut left: usize = 0;
        let mut closed = KVVec::new();
        let mut from = 0;
        loop {
            let guard = read_lock();
            let rcu = ReadSide::of(&guard);
            let Some((id, zone)) = self.next(from, &rcu) else {
                break;
            };
            from = id.saturating_add(1);
            let empty = zone.flows() == 0;
            if let Some(limit) = self.limits.get(id, &rcu) {
                left = left.saturating_add((limit.is_used() || !empty).into());
                continue;
            }
            let idle = empty && zone.idle.xchg(true, Relaxed);
            if !idle || !zone.table.close() {
                left = left.saturating_add(1);
                continue;
            }
            drop(guard);
            if let Some(removed) = self.zones.remove(id) {
                // Without memory for the list, the zone is dropped here by itself.
                let _ = closed.push(removed, GFP_KERNEL_ACCOUNT);
            }
        }
        Removed::drop_all(closed);
        left
    }

    /// Frees the seats of ended connections among [`Self::SEATS_PER_COLLECT`], beginning in the
    /// zone in which the last call ended. Under `control`, so that no limit is removed.
    fn collect_seats(&self) {
        let mut left = Self::SEATS_PER_COLLECT;
        let (start, mut from, mut wrapped) = (self.collects.load(Relaxed), None, false);
        while left != 0 {
            let next = {
                let guard = read_lock();
                let rcu = ReadSide::of(&guard);
                let next = self.limits.next(from.unwrap_or(start), &rcu);
                next.and_then(|(id, _)| Some((id, self.limits.get_arc(id, &rcu)?)))
            };
            match next {
                Some((id, _)) if wrapped && id >= start => break,
                Some((id, limit)) => {
                    left = left.saturating_sub(limit.collect(left).saturating_add(1));
                    from = Some(id.saturating_add(1));
                }
                None if wrapped => break,
                None => (from, wrapped) = (Some(0), true),
            }
        }
        self.collects.store(from.unwrap_or(0), Relaxed);
    }
}
