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
        sync::rcu::ReadSide, //
    },
};

/// The zones of a netns.
#[pin_data]
pub(crate) struct Zones {
    net: NetHandle,
    #[pin]
    zones: RcuArray<Zone>,
    /// The limits. A zone with a limit is in use.
    #[pin]
    limits: RcuArray<Limit>,
    /// The number of limits.
    limited: Atomic<i32>,
    /// Held while a zone is configured, and while unconfigured zones are freed.
    #[pin]
    control: Mutex<()>,
}

impl Zones {
    /// Creates an empty set of zones.
    pub(crate) fn new(net: NetHandle) -> impl PinInit<Self> {
        pin_init!(Self {
            net,
            zones <- RcuArray::new(),
            limits <- RcuArray::new(),
            limited: Atomic::new(0),
            control <- new_mutex!((), "flow::zone::control"),
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
    pub(crate) fn is_any_limited(&self) -> bool {
        self.limited.load(Relaxed) != 0
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

    /// Sets the limits of zones in turn. Sets all of them or, without memory, none. Process
    /// context; sleeps.
    pub(crate) fn set_max(
        &self,
        limits: impl Iterator<Item = (u16, Option<u32>)> + Clone,
    ) -> Result {
        let _control = self.control.lock();
        // First the steps that may fail. They do not change the limit of any zone.
        let result = limits
            .clone()
            .filter_map(|(id, max)| Some((id, max?)))
            .try_for_each(|(id, max)| self.make_limit(id, max));
        if result.is_ok() {
            for (id, max) in limits.clone() {
                if let Some(limit) = self.limit_arc(id) {
                    limit.set_max(max);
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
                    // Without memory for the list, the limit is dropped here by itself.
                    let _ = removed.push(limit, GFP_KERNEL);
                }
            }
        }
        Removed::drop_all(removed);
        result
    }

    fn limit_arc(&self, id: u16) -> Option<Arc<Limit>> {
        let guard = read_lock();
        self.limits.get_arc(id.into(), &ReadSide::of(&guard))
    }

    /// Puts a zone in use, and gives it a limit that is sized for about `max` connections but
    /// admits every connection. Under `control`.
    fn make_limit(&self, id: u16, max: u32) -> Result {
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
        match self.limit_arc(id) {
            None => {
                self.limits
                    .insert(id.into(), Limit::new(self.net, max, None)?)
                    .map_err(|(err, _)| err)?;
                self.limited.add(1, Relaxed);
            }
            Some(old) if !old.fits(max) => {
                let new = Limit::new(self.net, max, Some(old.clone()))?;
                new.set_max(old.max());
                drop(self.limits.replace(id.into(), new));
            }
            Some(_) => (),
        }
        Ok(())
    }

    /// Frees the zones without a limit that were empty in two calls in a row. Returns how many
    /// zones are left that may become free, or that have connections to be collected. Process
    /// context; sleeps.
    pub(crate) fn collect(&self) -> usize {
        let _control = self.control.lock();
        let mut left: usize = 0;
        let mut closed = KVec::new();
        let mut from = 0;
        loop {
            let guard = read_lock();
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
                // Without memory for the list, the zone is dropped here by itself.
                let _ = closed.push(removed, GFP_KERNEL);
            }
        }
        Removed::drop_all(closed);
        left
    }
}
