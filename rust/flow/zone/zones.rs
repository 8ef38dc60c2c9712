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
    flow::{
        zone::{
            info::ZoneInfo,
            limit::Limit,
            stock::Stock,
            ConnCount,
            Tally,
            Zone,
            ZoneData, //
        },
        Flow, //
    },
    kapi::{
        entry::{
            jump::{LookedAtIngress, LookedToJump},
            lookup::{Looked, LookupBuf}, //
        },
        mem::array::{RcuArray, Removed},
        net::netns::NetHandle,
        nf::{
            ruleset::Ruleset,
            seats::Seats,
            skb::{HookSkb, Ingress, PreRouting}, //
        },
        sync::{
            once::ReadOnce,
            rcu::ReadSide,
            time, //
        },
    },
    route::pass::{Passes, Terms},
};

/// The zones of a netns.
#[pin_data]
pub(crate) struct Zones {
    #[pin]
    zones: RcuArray<Zone>,
    /// The limits, also of zones that are not in use.
    #[pin]
    limits: RcuArray<Limit>,
    /// The seats of the connections that count against the limits.
    seats: Arc<Seats>,
    /// The number of limits.
    limited: Atomic<i32>,
    /// The zone whose limit is collected next.
    collects: Atomic<u32>,
    /// Held while limits are set or removed, and while zones are freed.
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

    /// Looks up a packet in the tables of its zones. Returns `None` if the packet has a
    /// connection, is untracked or comes from br_netfilter.
    #[inline(always)]
    pub(in crate::flow) fn look_up<'p, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'p mut LookupBuf,
    ) -> Option<Looked<'p, 'r, Flow, ZoneData>> {
        self.zones.look_up(skb, buf)
    }

    /// As [`Self::look_up`], of a packet that may jump by one of `passes`. `ruleset` is the
    /// firewall that was recorded last.
    #[inline(always)]
    pub(in crate::flow) fn look_up_to_jump<'p, 'b, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'b mut LookupBuf,
        passes: &'r Passes,
        ruleset: Option<&'r Ruleset>,
    ) -> Option<LookedToJump<'p, 'b, 'r, Flow, ZoneData, Terms>> {
        self.zones.look_up_to_jump(skb, buf, passes, ruleset)
    }

    /// Looks up a packet at ingress that may jump by one of `passes`, in the default zone.
    #[inline(always)]
    pub(in crate::flow) fn look_up_at_ingress<'p, 'b, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, Ingress>,
        buf: &'b mut LookupBuf,
        passes: &'r Passes,
        rulesets: [Option<&'r Ruleset>; 2],
    ) -> LookedAtIngress<'p, 'b, 'r, Flow, ZoneData, Terms> {
        self.zones.look_up_at_ingress(skb, buf, passes, rulesets)
    }

    /// Returns a reference on the zone with this id. The reference must be dropped in process
    /// context.
    pub(in crate::flow) fn get_arc(&self, id: u16) -> Option<Arc<Zone>> {
        let guard = read_lock();
        self.zones.get_arc(id.into(), &ReadSide::of(&guard))
    }

    /// Returns the id of the first zone that is in use or has a limit, `from` or higher. Any
    /// context.
    pub(crate) fn next(&self, from: u32, rcu: &ReadSide<'_>) -> Option<u32> {
        // Looks further and further, so that neither array is scanned far beyond the result.
        let (mut from, mut places) = (from, 64u32);
        loop {
            let (zone, is_zone) = self.zones.scan(from, places, rcu);
            let (limit, is_limit) = self.limits.scan(from, places, rcu);
            match (is_zone, is_limit) {
                (true, true) => return Some(zone.min(limit)),
                (true, false) => return Some(zone),
                (false, true) => return Some(limit),
                (false, false) if zone.min(limit) == u32::MAX => return None,
                (false, false) => from = zone.min(limit),
            }
            places = places.saturating_mul(2);
        }
    }

    /// Returns what is known about a zone that is in use or has a limit. Any context.
    pub(crate) fn info<'r>(&'r self, id: u16, rcu: &ReadSide<'r>) -> Option<ZoneInfo<'r>> {
        // In this order: a limit gets the counts of a zone after the zone was removed, so none
        // is seen twice.
        let limit = self.limit(id, rcu);
        let mut saved = [0; Tally::ALL.len()];
        for (saved, &tally) in saved.iter_mut().zip(Tally::ALL) {
            *saved = limit.map_or(0, |limit| limit.tally(tally));
        }
        let zone = self.get(id, rcu);
        (zone.is_some() || limit.is_some()).then_some(ZoneInfo { zone, limit, saved })
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

    /// Counts the connections of each zone that is in use or has a limit, for
    /// [`ZoneInfo::connections`]. Walks conntrack's whole hash table. Process context; sleeps.
    pub(crate) fn count_connections(&self) {
        let _counting = self.counting.lock();
        self.for_each_count(ConnCount::begin);
        self.seats.net().for_each_conn(|conn, rcu| {
            let id = conn.own_zone();
            if let Some(limit) = self.limit(id, rcu) {
                limit.connections.add();
            } else if let Some(zone) = self.get(id, rcu) {
                zone.written.connections.add();
            }
        });
        self.for_each_count(ConnCount::end);
    }

    fn for_each_count(&self, f: impl Fn(&ConnCount)) {
        let mut from = 0;
        loop {
            let guard = read_lock();
            let rcu = ReadSide::of(&guard);
            let Some(id) = self.next(from, &rcu) else {
                break;
            };
            if let Some(zone) = self.zones.get(id, &rcu) {
                f(&zone.written.connections);
            }
            if let Some(limit) = self.limits.get(id, &rcu) {
                f(&limit.connections);
            }
            from = id.saturating_add(1);
            drop(guard);
            time::cond_resched();
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
                time::cond_resched();
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
                time::cond_resched();
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
                    self.give_counts_back(id, &limit);
                    // Without memory for the list, the limit is dropped here by itself.
                    let _ = removed.push(limit, GFP_KERNEL_ACCOUNT);
                }
            }
            time::cond_resched();
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

    /// Gives a zone a limit that admits every connection. Returns whether it had none. Under
    /// `control`.
    fn make_limit(&self, id: u16) -> Result<bool> {
        if self.limit_arc(id).is_some() {
            return Ok(false);
        }
        self.limits
            .insert(id.into(), Limit::new(self.seats.clone())?)
            .map_err(|(err, _)| err)?;
        self.limited.add(1, Relaxed);
        Ok(true)
    }

    /// Frees the zones that were empty in two calls in a row, and the seats of some ended
    /// connections. The limit of a zone stays, and keeps the zone's counts. Returns how many zones
    /// are left that may become free, or that have seats. Process context; sleeps.
    pub(crate) fn collect(&self) -> usize {
        let _control = self.control.lock();
        self.collect_seats();
        let mut left: usize = 0;
        let mut closed = KVVec::new();
        let mut from = 0;
        loop {
            time::cond_resched();
            let guard = read_lock();
            let rcu = ReadSide::of(&guard);
            let Some(id) = self.next(from, &rcu) else {
                break;
            };
            from = id.saturating_add(1);
            let has_seats = self.limits.get(id, &rcu).is_some_and(Limit::is_used);
            left = left.saturating_add(has_seats.into());
            let Some(zone) = self.zones.get(id, &rcu) else {
                continue;
            };
            let idle = zone.flows() == 0 && zone.written.idle.xchg(true, Relaxed);
            if !idle || !zone.table.close() {
                left = left.saturating_add(1);
                continue;
            }
            drop(guard);
            if let Some(removed) = self.zones.remove(id) {
                self.save_counts(id, &removed);
                // Without memory for the list, the zone is dropped here by itself.
                let _ = closed.push(removed, GFP_KERNEL_ACCOUNT);
            }
        }
        Removed::drop_all(closed);
        left
    }

    /// Adds the counts that a removed limit kept to those of its zone, if that is in use again.
    fn give_counts_back(&self, id: u16, limit: &Limit) {
        let guard = read_lock();
        if let Some(zone) = self.get(id, &ReadSide::of(&guard)) {
            for &tally in Tally::ALL {
                zone.counters.add(tally, limit.tally(tally));
            }
        }
    }

    /// Adds the counts of a removed zone to those that its limit keeps.
    fn save_counts(&self, id: u32, zone: &Zone) {
        let guard = read_lock();
        if let Some(limit) = self.limits.get(id, &ReadSide::of(&guard)) {
            for &tally in Tally::ALL {
                limit.save(tally, zone.tally(tally));
            }
        }
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
