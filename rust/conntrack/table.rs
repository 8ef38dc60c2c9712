// SPDX-License-Identifier: GPL-2.0

//! The flows of a netns: by handle, by tuple in their zones, and by number.

#![deny(unsafe_code)]

use kernel::prelude::*;

use crate::{
    conntrack::{
        flow::Flow,
        handle::{Handle, Salt},
        zone::{Stock, Zones}, //
    },
    kapi::{
        conntrack::{Conn, Dir},
        rcu::ReadSide,
        registry::{Entry, Registry},
        slab::Cache, //
    },
};

/// Why a connection got no flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoFlow {
    /// No zone was in stock.
    Zone,
    /// Another CPU was making it, or its tables are just being rebuilt: a later packet gets it.
    Busy,
    /// No memory.
    Memory,
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
    pub(crate) fn new(salt: Salt) -> impl PinInit<Self> {
        pin_init!(Self {
            registry <- Registry::new(),
            zones <- Zones::new(),
            salt,
        })
    }

    /// The zones.
    pub(crate) fn zones(&self) -> &Zones {
        &self.zones
    }

    /// The flow of a connection. `handle` is what its extension holds, `None` if it has no
    /// extension: then, and when somebody else wrote it, the flow is looked up by tuple. Any
    /// context.
    pub(crate) fn find<'r>(
        &'r self,
        ct: &Conn,
        handle: Option<u64>,
        dir: Dir,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Entry<Flow>> {
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

    /// Makes a connection's flow. Does not sleep.
    pub(crate) fn make<'r>(
        &'r self,
        ct: &Conn,
        handle: Option<u64>,
        flow: Flow,
        cache: &Cache<Entry<Flow>>,
        stock: &Stock,
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Entry<Flow>, NoFlow> {
        let original = self.zones.get_or_make(ct.zone(Dir::Original), stock, rcu);
        let reply = self.zones.get_or_make(ct.zone(Dir::Reply), stock, rcu);
        let (Some(original), Some(reply)) = (original, reply) else {
            return Err(NoFlow::Zone);
        };
        let entry = self
            .registry
            .insert(cache, ct.into(), [&original.table, &reply.table], flow, rcu)
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
        /// How many flows are looked at in one read-side critical section.
        const CHUNK: usize = 256;

        let mut count: usize = 0;
        let mut from = 0;
        loop {
            {
                let guard = kernel::sync::rcu::read_lock();
                let rcu = ReadSide::of(&guard);
                for _ in 0..CHUNK {
                    let Some((index, entry)) = self.next(from, &rcu) else {
                        return count;
                    };
                    f(entry, &rcu);
                    count = count.saturating_add(1);
                    from = index.saturating_add(1);
                }
            }
            crate::kapi::time::cond_resched();
        }
    }
}
