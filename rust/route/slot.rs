// SPDX-License-Identifier: GPL-2.0

//! A slot: one cached route, with all that says for which packets and how long it is good.

use kernel::sync::{atomic::Relaxed, Arc};

use crate::{
    flow::Held,
    kapi::{
        net::dst::Dst,
        nf::packet::Route,
        sync::rcu::ReadSide, //
    },
    route::{
        key::{aged, Key},
        miss::Reason, //
    },
};

/// A cached route. Not changed once it is published.
pub(crate) struct Slot {
    dst: Dst,
    held: Arc<Held>,
    key: Key,
    oif: u32,
    generation: u32,
    born: u32,
}

/// What a slot is measured against.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    /// Jiffies, the low 32 bits.
    pub(crate) jiffies: u32,
    /// The netns' generation: how often something happened that may change routes.
    pub(crate) generation: u32,
    /// What happened last of these: a [`Reason`], as it is kept, since few packets ask.
    pub(crate) cause: i8,
    /// In jiffies.
    pub(crate) max_age: u32,
}

impl Slot {
    /// A slot for the route that the kernel chose for a packet with `key`. `now` was taken before
    /// the lookup: what happens meanwhile makes the slot old.
    pub(crate) fn new(route: Route, key: Key, now: Now, held: Arc<Held>) -> Self {
        held.slots.add(1, Relaxed);
        Self {
            dst: route.dst,
            held,
            key,
            oif: route.oif,
            generation: now.generation,
            born: now.jiffies,
        }
    }

    /// Whether a packet with `key` may have the route, if the kernel still holds it for valid.
    #[inline(always)]
    pub(crate) fn check(&self, key: &Key, now: Now) -> Result<(), Reason> {
        self.key
            .difference(key)
            .or_else(|| self.expired(now))
            .map_or(Ok(()), Err)
    }

    fn expired(&self, now: Now) -> Option<Reason> {
        if self.generation != now.generation {
            Some(Reason::from_raw(now.cause))
        } else if aged(self.born, now.jiffies, now.max_age) {
            Some(Reason::Aged)
        } else {
            None
        }
    }

    /// Why a packet with the slot's own key would not be served; `None`: it would.
    pub(crate) fn stale(&self, now: Now, rcu: &ReadSide<'_>) -> Option<Reason> {
        self.expired(now)
            .or_else(|| (!self.dst.is_valid(rcu)).then_some(Reason::Obsolete))
    }

    /// Why the kernel does not hold the route for valid any more, if it does not.
    pub(crate) fn obsolete(&self, now: Now, rcu: &ReadSide<'_>) -> Option<Reason> {
        if self.dst.is_valid(rcu) {
            None
        } else if self.generation != now.generation {
            Some(Reason::from_raw(now.cause))
        } else {
            Some(Reason::Obsolete)
        }
    }

    /// The route.
    pub(crate) fn dst(&self) -> &Dst {
        &self.dst
    }

    /// What the route was chosen by.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Index of the sending device.
    pub(crate) fn oif(&self) -> u32 {
        self.oif
    }

    /// Whether the slot has to do with a device.
    pub(crate) fn is_on(&self, ifindex: u32) -> bool {
        self.oif == ifindex || self.key.iif == ifindex
    }

    /// Jiffies, the low 32 bits, just before the lookup.
    pub(crate) fn born(&self) -> u32 {
        self.born
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.held.slots.fetch_sub(1, Relaxed);
    }
}
