// SPDX-License-Identifier: GPL-2.0

//! The flows of a netns: by connection, by tuple in their zones, and by number.

use core::{cell::Cell, mem::MaybeUninit};

use kernel::{
    prelude::*,
    sync::{
        atomic::{self, Atomic, Relaxed},
        barrier::{smp_mb, Full},
        Arc, //
    },
};

use crate::{
    flow::{
        handle::{self, Handle, Salt},
        zone::{
            stock::Stock,
            zones::Zones,
            Tally,
            Zone,
            ZoneData, //
        },
        Flow, //
    },
    kapi::{
        entry::{
            jump,
            lookup::{self, LookupBuf},
            registry::{NewEntry, Registry},
            Entry, //
        },
        mem::slab::Cache,
        net::netns::NetHandle,
        nf::{
            conn::{Conn, CtRef, Dir},
            skb::{HookSkb, PreRouting}, //
        },
        sync::{once::ReadOnce, rcu::ReadSide}, //
    },
    refs::RefCounts,
    route::pass::{Passes, Terms}, //
};

/// The reason why a connection got no flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoFlow {
    /// The stock of zones is empty.
    Zone,
    /// Another CPU is creating the flow, a table is being rebuilt, or too many dead connections
    /// with the tuple would have to be removed. A later packet creates the flow.
    Busy,
    /// There is no memory.
    Memory,
}

impl From<Error> for NoFlow {
    /// For the errors of [`Registry::insert`].
    fn from(err: Error) -> Self {
        if err == ENOMEM {
            Self::Memory
        } else {
            Self::Busy
        }
    }
}

/// The memory that flows and their zones are made of.
pub(crate) struct Allocators<'a> {
    /// The cache of flows.
    pub(crate) flows: &'a Cache<Entry<Flow>>,
    /// The stock of zones.
    pub(crate) zones: &'a Stock,
}

/// A new flow.
pub(crate) struct Made<'r> {
    /// The flow, or why there is none.
    pub(crate) flow: Result<&'r Entry<Flow>, NoFlow>,
    /// How many flows of dead connections with the same tuple were removed for it.
    pub(crate) ended: u32,
}

/// The result of a packet's lookup.
pub(crate) type Looked<'p, 'r> = lookup::Looked<'p, 'r, Flow, ZoneData>;

/// What a packet's lookup met.
pub(crate) type Trail<'p, 'r> = lookup::Trail<'p, 'r, Flow, ZoneData>;

/// The flow that a packet belongs to.
pub(crate) type Found<'p, 'r, At = PreRouting> = lookup::Found<'p, 'r, Flow, ZoneData, At>;

/// [`jump::LookedToJump`], of flows.
pub(crate) type LookedToJump<'p, 'b, 'r> = jump::LookedToJump<'p, 'b, 'r, Flow, ZoneData, Terms>;

/// [`jump::LookedAtIngress`], of flows.
pub(crate) type LookedAtIngress<'p, 'b, 'r> =
    jump::LookedAtIngress<'p, 'b, 'r, Flow, ZoneData, Terms>;

/// [`jump::FoundToJump`], of flows.
pub(crate) type FoundToJump<'p, 'b, 'r, At = PreRouting> =
    jump::FoundToJump<'p, 'b, 'r, Flow, ZoneData, Terms, At>;

/// What is known of a connection without a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlearned {
    /// The number of its packets that were counted.
    Count(u8),
    /// It had a flow.
    Lost,
    /// Its packets cannot be counted: it has no extension, or another module wrote it.
    Uncounted,
}

/// All flows of a netns.
#[pin_data]
pub(crate) struct FlowTable {
    #[pin]
    pub(super) registry: Registry<Flow>,
    #[pin]
    pub(super) passes: Passes,
    #[pin]
    pub(super) zones: Zones,
    pub(super) salt: Salt,
    refs: Arc<RefCounts>,
    /// Whether there may be flows. Packets look here, because the count of flows changes with each
    /// flow, and this seldom changes.
    any: Atomic<bool>,
}

impl FlowTable {
    /// Creates an empty table for a netns.
    pub(crate) fn new(
        net: NetHandle,
        salt: Salt,
        refs: Arc<RefCounts>,
    ) -> impl PinInit<Self, Error> {
        const { assert!(Registry::<Flow>::MAX_INDEX <= handle::MAX_INDEX) };
        try_pin_init!(Self {
            registry <- Registry::new(),
            passes <- Passes::new(),
            zones <- Zones::new(net),
            salt,
            refs,
            any: Atomic::new(false),
        })
    }

    /// Returns whether there may be flows. Any context.
    #[inline(always)]
    pub(crate) fn has_any(&self) -> bool {
        self.any.read_once()
    }

    /// Makes [`Self::has_any`] return `false` if there are no flows. Returns whether there are. Any
    /// context.
    pub(crate) fn note_none(&self) -> bool {
        let has_some = || self.refs.flows.load(Relaxed) != 0;
        if !has_some() && self.any.load(Relaxed) {
            self.any.store(false, Relaxed);
            // ORDERING: Full, pairs with the full addition in `note_one`: if another CPU has seen
            // the flag set, this one sees its flow.
            smp_mb(Full);
            if has_some() {
                self.any.store(true, Relaxed);
            }
        }
        has_some()
    }

    /// Counts a flow that is about to be made.
    fn note_one(&self) {
        // ORDERING: Full, see `note_none`.
        self.refs.flows.fetch_add(1, atomic::Full);
        if !self.any.load(Relaxed) {
            self.any.store(true, Relaxed);
        }
    }

    /// Returns the zones.
    pub(crate) fn zones(&self) -> &Zones {
        &self.zones
    }

    /// Reads a packet's connection into `buf`, and returns it with its flow if the extension leads
    /// there. If the packet is one of the first `learn_after`, counts it. Any context.
    #[inline(always)]
    pub(crate) fn of_packet<'p, 'b, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        learn_after: u8,
        buf: &'b mut MaybeUninit<CtRef<'p>>,
    ) -> Option<(&'b CtRef<'p>, Option<&'r Entry<Flow>>)> {
        let counts = (self.handle_of_count(0), learn_after);
        self.registry
            .of_packet(skb, counts, self.salt.index(0), buf)
    }

    /// Returns the flow of a packet's connection, or what is known of a connection without one. If
    /// the connection has no extension, or another module wrote to it, the flow is looked up by
    /// tuple. Any context.
    #[inline(always)]
    pub(crate) fn of_conn<'r>(
        &'r self,
        ct: &CtRef<'_>,
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Entry<Flow>, Unlearned> {
        match ct.handle().map(|handle| self.salt.decode(handle)) {
            Some(Handle::Count(count)) => Err(Unlearned::Count(count)),
            Some(Handle::Index(index)) => self.by_index(index, ct, rcu).ok_or(Unlearned::Lost),
            Some(Handle::Foreign) | None => self.of_conn_by_tuple(ct, rcu),
        }
    }

    #[inline(always)]
    pub(super) fn by_index<'r>(
        &'r self,
        index: u32,
        ct: &CtRef<'_>,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Entry<Flow>> {
        let entry = self.registry.get(index, rcu);
        entry.filter(|entry| entry.is_of(ct.conn()))
    }

    #[cold]
    pub(crate) fn of_conn_by_tuple<'r>(
        &'r self,
        ct: &CtRef<'_>,
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Entry<Flow>, Unlearned> {
        self.zones
            .get(ct.conn().zone(ct.dir()), rcu)
            .and_then(|zone| zone.table.find(ct.conn(), ct.dir(), rcu))
            .ok_or(Unlearned::Uncounted)
    }

    /// Looks up the flow that a packet belongs to by its tuple and its zone. Returns `None` if
    /// the packet has a connection, is untracked or comes from br_netfilter. Any context.
    #[inline(always)]
    pub(crate) fn look_up<'p, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'p mut LookupBuf,
    ) -> Option<Looked<'p, 'r>> {
        let looked = self.zones.look_up(skb, buf)?;
        Self::count_met(&looked.trail);
        Some(looked)
    }

    /// Counts the entries that a lookup met, and that did not match.
    #[inline(always)]
    pub(super) fn count_met(trail: &Trail<'_, '_>) {
        for dir in Dir::ALL {
            if trail.met(dir) != 0 {
                Self::count_met_by(trail, dir);
            }
        }
    }

    #[cold]
    fn count_met_by(trail: &Trail<'_, '_>, dir: Dir) {
        if let Some(zone) = trail.zone(dir) {
            zone.count_met(trail.met(dir));
        }
    }

    /// Deletes the connections of zone `id` that have a flow. Connections that are created
    /// meanwhile may be deleted too. Process context; sleeps.
    ///
    /// A walk may miss entries beside one that it removes. It is therefore repeated until it
    /// removes none.
    ///
    /// Errors, after some connections were deleted: `EINTR`, a fatal signal; `EAGAIN`, the table
    /// grew or filled up again too often.
    pub(crate) fn flush(&self, id: u16) -> Result {
        /// The maximum number of walks, for a zone that fills up again each time.
        const ROUNDS: usize = 16;

        let Some(zone) = self.zones.get_arc(id) else {
            return Ok(());
        };
        for _ in 0..ROUNDS {
            let mut flushed = false;
            zone.table.walk(|flow, rcu| {
                let Some(conn) = flow.conn_ref(rcu) else {
                    return;
                };
                // A connection of another zone may have one direction here.
                if conn.own_zone() == id && conn.delete() {
                    flushed = true;
                    zone.count(Tally::Flushed);
                    self.kill(flow, rcu);
                }
            })?;
            if !flushed {
                return Ok(());
            }
        }
        Err(EAGAIN)
    }

    /// Creates a connection's flow. Flows of dead connections with the same tuple are removed. Does
    /// not sleep.
    pub(crate) fn make<'r>(
        &'r self,
        ct: &CtRef<'_>,
        flow: Flow,
        from: &Allocators<'_>,
        rcu: &ReadSide<'r>,
    ) -> Made<'r> {
        let ended = Cell::new(0u32);
        let end = |gone: &Entry<Flow>| {
            if self.kill(gone, rcu) {
                ended.set(ended.get().saturating_add(1));
            }
        };
        let tables = self.zones_of(ct.conn(), from.zones, rcu);
        let flow = tables.and_then(|[original, reply]| {
            let new = NewEntry {
                ct: ct.conn().into(),
                tables: [&original.table, &reply.table],
                value: flow,
            };
            // Counted first, because another CPU may remove the flow at once.
            self.note_one();
            let inserted = self.registry.insert(from.flows, new, end, rcu);
            let entry = inserted.inspect_err(|&err| {
                self.uncount();
                if err == EEXIST {
                    self.point_again(ct, rcu);
                }
            })?;
            original.count_new();
            if reply.id() != original.id() {
                reply.count_new();
            }
            self.point_to(ct, entry, rcu);
            Ok(entry)
        });
        Made {
            flow,
            ended: ended.get(),
        }
    }

    /// Returns the zones of both directions of a connection, and puts them in use.
    fn zones_of<'r>(
        &'r self,
        conn: &Conn,
        stock: &Stock,
        rcu: &ReadSide<'r>,
    ) -> Result<[&'r Zone; 2], NoFlow> {
        let zone = |id| self.zones.get_or_make(id, stock, rcu).ok_or(NoFlow::Zone);
        let original = zone(conn.zone(Dir::Original))?;
        let reply = match conn.zone(Dir::Reply) {
            id if id == original.id() => original,
            id => zone(id)?,
        };
        Ok([original, reply])
    }

    /// Removes a flow, and gives its reference on the connection back. Returns whether this call
    /// did. Any context, but not under a spinlock.
    pub(crate) fn kill(&self, entry: &Entry<Flow>, rcu: &ReadSide<'_>) -> bool {
        let Some(conn) = entry.conn_ref(rcu) else {
            return false;
        };
        // Read before, because the entry may be freed.
        let index = entry.index();
        if !self.registry.kill(entry, rcu) {
            return false;
        }
        self.drop_passes(entry, rcu, |_, _| true);
        self.uncount();
        // The connection may live on, even if it has expired. Another flow of it may have the same
        // number already: then the packet that would make a flow for it finds that one.
        self.forget(&conn, index);
        let [original, reply] = Dir::ALL.map(|dir| conn.zone(dir));
        let both = [Some(original), (reply != original).then_some(reply)];
        for zone in both.into_iter().flatten() {
            if let Some(zone) = self.zones.get(zone, rcu) {
                zone.count_gone();
            }
        }
        true
    }

    fn uncount(&self) {
        self.refs.flows.fetch_sub(1, Relaxed);
    }
}
