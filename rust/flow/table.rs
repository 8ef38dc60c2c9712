// SPDX-License-Identifier: GPL-2.0

//! The flows of a netns: by handle, by tuple in their zones, and by number.

use kernel::prelude::*;

use crate::{
    flow::{
        handle::{Handle, Salt},
        zone::{Stock, Tally, Zone, Zones},
        Flow, //
    },
    kapi::{
        entry::{
            last_found::Recent,
            registry::{Entry, Registry}, //
        },
        mem::slab::Cache,
        nf::{
            conn::{Conn, Dir},
            track::Probe, //
        },
        sync::rcu::ReadSide, //
    },
};

/// Why a connection got no flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoFlow {
    /// No zone was in stock.
    Zone,
    /// Another CPU was making it, its tables are just being rebuilt, or there are too many of its tuple to
    /// be ended: a later packet gets it.
    Busy,
    /// No memory.
    Memory,
}

/// What flows, and their zones, are made of.
pub(crate) struct Supply<'a> {
    /// Memory of flows.
    pub(crate) flows: &'a Cache<Entry<Flow>>,
    /// Zones.
    pub(crate) zones: &'a Stock,
}

/// The flow that a packet belongs to.
pub(crate) struct Found<'r> {
    /// The flow.
    pub(crate) flow: &'r Entry<Flow>,
    /// Which way the packet goes.
    pub(crate) dir: Dir,
    /// The zone in whose table it was found.
    pub(crate) zone: &'r Zone,
}

/// All flows of a netns.
#[pin_data]
pub(crate) struct FlowTable {
    #[pin]
    registry: Registry<Flow>,
    #[pin]
    zones: Zones,
    salt: Salt,
}

impl FlowTable {
    /// An empty one.
    pub(crate) fn new(salt: Salt) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            registry <- Registry::new(),
            zones <- Zones::new(),
            salt,
        })
    }

    /// The zones.
    pub(crate) fn zones(&self) -> &Zones {
        &self.zones
    }

    /// What each CPU found last.
    pub(crate) fn recent(&self) -> &Recent<Flow> {
        self.registry.recent()
    }

    /// The handle of a connection that has no flow yet: no flow's.
    pub(crate) fn welcome(&self) -> u64 {
        self.salt.encode(0)
    }

    /// Whether a connection's extension has that handle.
    pub(crate) fn is_welcomed(&self, handle: Option<u64>) -> bool {
        handle == Some(self.welcome())
    }

    /// The flow of a connection. `handle` is what its extension holds, `None` if it has no
    /// extension: then, and when somebody else wrote it, the flow is looked up by tuple. Any
    /// context.
    #[inline]
    pub(crate) fn find<'r>(
        &'r self,
        ct: &Conn,
        handle: Option<u64>,
        dir: Dir,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Entry<Flow>> {
        let recent = self.recent().entry(ct, rcu);
        if recent.is_some() {
            return recent;
        }
        match handle.map(|handle| self.salt.decode(handle)) {
            Some(Handle::Empty) => None,
            Some(Handle::Index(index)) => self
                .registry
                .get(index, rcu)
                .filter(|entry| entry.is_of(ct)),
            Some(Handle::Foreign) | None => {
                let zone = self.zones.get(ct.zone(dir), rcu)?;
                zone.table.find(ct, dir, rcu)
            }
        }
    }

    /// The flow that a packet belongs to by its tuple and its zone: as `resolve_normal_ct()`, first
    /// by the zone of the original direction, which is `original` if it is in use, then by the reply's.
    /// Any context.
    #[inline(always)]
    pub(crate) fn lookup<'r>(
        &'r self,
        probe: &Probe,
        original: Option<&'r Zone>,
        rcu: &ReadSide<'r>,
    ) -> Option<Found<'r>> {
        let id = probe.zone(Dir::Original);
        let reply = probe.zone(Dir::Reply);
        original
            .and_then(|zone| self.lookup_in(zone, id, probe, rcu))
            .or_else(|| {
                (reply != id)
                    .then(|| self.lookup_in(self.zones.get(reply, rcu)?, reply, probe, rcu))
                    .flatten()
            })
    }

    #[inline(always)]
    fn lookup_in<'r>(
        &'r self,
        zone: &'r Zone,
        id: u16,
        probe: &Probe,
        rcu: &ReadSide<'r>,
    ) -> Option<Found<'r>> {
        let (found, others) = self.registry.lookup(&zone.table, probe, id, rcu);
        zone.count_met(others);
        found.map(|(flow, dir)| Found { flow, dir, zone })
    }

    /// Ends the connections whose zone is `id`, of those that have a flow; how many those were.
    /// Process context; sleeps.
    ///
    /// A walk may miss what lies beside a flow that it ends, so it is repeated until it ends none;
    /// what comes in meanwhile may be ended too.
    pub(crate) fn flush(&self, id: u16) -> usize {
        /// How often at the most: a zone that is full again each time is not waited for.
        const ROUNDS: usize = 16;

        let Some(zone) = self.zones.get_arc(id) else {
            return 0;
        };
        let mut flushed: usize = 0;
        for _ in 0..ROUNDS {
            let before = flushed;
            zone.table.walk(|flow, _dir, rcu| {
                let ct = flow.conn();
                // Another zone's connection may have one direction here.
                if ct.own_zone() == id && ct.delete() {
                    flushed = flushed.saturating_add(1);
                    zone.count(Tally::Flushed);
                    self.kill(flow, rcu);
                }
            });
            if flushed == before {
                break;
            }
        }
        flushed
    }

    /// Makes a connection's flow, in the place of those of connections that are gone and had its tuples,
    /// of which `ended` is told. Does not sleep.
    pub(crate) fn make<'r>(
        &'r self,
        ct: &Conn,
        handle: Option<u64>,
        flow: Flow,
        supply: Supply<'_>,
        ended: impl Fn(),
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Entry<Flow>, NoFlow> {
        let zone = |id| {
            self.zones
                .get_or_make(id, supply.zones, rcu)
                .ok_or(NoFlow::Zone)
        };
        let original = zone(ct.zone(Dir::Original))?;
        let reply = match ct.zone(Dir::Reply) {
            id if id == original.id() => original,
            id => zone(id)?,
        };
        let end = |gone: &Entry<Flow>| {
            if self.kill(gone, rcu) {
                ended();
            }
        };
        let tables = [&original.table, &reply.table];
        let entry = self
            .registry
            .insert(supply.flows, ct.into(), tables, flow, end, rcu)
            .map_err(|err| {
                if err == ENOMEM {
                    NoFlow::Memory
                } else {
                    NoFlow::Busy
                }
            })?;
        original.count_new();
        if reply.id() != original.id() {
            reply.count_new();
        }
        // What somebody else wrote stays; such a flow is found by its tuple.
        if handle.is_some_and(|handle| self.salt.decode(handle) != Handle::Foreign) {
            ct.set_handle(self.salt.encode(entry.index()));
        }
        Ok(entry)
    }

    /// Ends a flow; `true`: by this call. Any context.
    pub(crate) fn kill(&self, entry: &Entry<Flow>, rcu: &ReadSide<'_>) -> bool {
        if !self.registry.kill(entry, rcu) {
            return false;
        }
        let (original, reply) = (
            entry.conn().zone(Dir::Original),
            entry.conn().zone(Dir::Reply),
        );
        if let Some(zone) = self.zones.get(original, rcu) {
            zone.count_gone();
        }
        if reply != original {
            if let Some(zone) = self.zones.get(reply, rcu) {
                zone.count_gone();
            }
        }
        true
    }

    /// The flow with a number. Any context.
    pub(crate) fn get<'r>(&'r self, number: u32, rcu: &ReadSide<'r>) -> Option<&'r Entry<Flow>> {
        self.registry.get(number, rcu)
    }

    /// The first flow with the number `from` or a later one. Any context.
    pub(crate) fn next<'r>(
        &'r self,
        from: u32,
        rcu: &ReadSide<'r>,
    ) -> Option<(u32, &'r Entry<Flow>)> {
        self.registry.next(from, rcu)
    }

    /// Calls `f` with every flow; how many there were. Process context; lets others run between
    /// the flows.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Entry<Flow>, &ReadSide<'_>)) -> usize {
        let mut count: usize = 0;
        self.for_some(0, usize::MAX, |flow, rcu| {
            f(flow, rcu);
            count = count.saturating_add(1);
        });
        count
    }

    /// Calls `f` with the flows that have the number `from` or a later one, until `most` were looked at
    /// or a few more: where to go on, or `None`: there are no more. Context as for [`Self::for_each`].
    pub(crate) fn for_some(
        &self,
        mut from: u32,
        most: usize,
        mut f: impl FnMut(&Entry<Flow>, &ReadSide<'_>),
    ) -> Option<u32> {
        /// How many flows, or gaps between them, are looked at in one read-side critical section.
        const CHUNK: usize = 256;

        let mut looked: usize = 0;
        while looked < most {
            {
                let guard = kernel::sync::rcu::read_lock();
                let rcu = ReadSide::of(&guard);
                for _ in 0..CHUNK {
                    let (entry, next) = self.registry.scan(from, &rcu);
                    if let Some(entry) = entry {
                        f(entry, &rcu);
                    }
                    from = next?;
                }
            }
            looked = looked.saturating_add(CHUNK);
            crate::kapi::sync::time::cond_resched();
        }
        Some(from)
    }
}
