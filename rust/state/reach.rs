// SPDX-License-Identifier: GPL-2.0

//! Which changes may have changed the route between two addresses.
//!
//! A change of an IPv4 route to a prefix can only change the routes of packets whose destination,
//! or whose source (which `rp_filter` looks up), is in the prefix. Such a change is noted in the
//! cell of its prefix, every other one for a whole family.
//!
//! The kernel also changes routes without an event: a route behind another one of its prefix, a
//! sysctl. Then it only bumps its genid. So each bump since a route's lookup must be explained by a
//! change that was noted. Only a new route surely bumps the genid, once. The *expected* genid is
//! the one up to which each bump was that of a new route, or was noted as a change of all.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed, Release}, //
};

use crate::{
    kapi::{
        net::{
            dst::Dst,
            family::Family,
            netns::NetHandle,
            prefix::{self, Ends, Prefix}, //
        },
        sync::once::ReadOnce, //
    },
    route::stamp::Stamp,
};

/// What a change may have changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All routes.
    All,
    /// All routes of a family.
    Family(Family),
    /// IPv4 routes from or to a prefix.
    Prefix(Prefix),
}

/// The changes of a netns. Each is noted by its generation, which the caller has not published yet.
/// The functions that note one are called by one CPU at a time.
pub(super) struct ChangeMap {
    net: NetHandle,
    /// The last change that may have changed all routes of IPv4, and of IPv6.
    all: [Atomic<u32>; 2],
    /// The last change of a route to each prefix: see [`Prefix::cell`].
    cells: KVec<Atomic<u32>>,
    /// The expected genid of IPv4.
    expected: Atomic<u32>,
}

impl ChangeMap {
    /// Creates the changes of a netns in which nothing has changed yet. Process context.
    pub(super) fn new(net: NetHandle) -> Result<Self> {
        let mut cells = KVec::with_capacity(prefix::CELLS, GFP_KERNEL)?;
        for _ in 0..prefix::CELLS {
            cells.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self {
            all: [const { Atomic::new(0) }; 2],
            cells,
            expected: Atomic::new(net.genid4()),
            net,
        })
    }

    /// Notes a change. One of a prefix must be announced under RTNL, as the kernel announces those
    /// of IPv4.
    pub(super) fn note(&self, reach: Reach, generation: u32) {
        self.keep_old(generation);
        match reach {
            Reach::All => self.note_all(generation),
            Reach::Family(family) => self.note_family(family, generation),
            Reach::Prefix(prefix) => {
                // The changes before this one are done, so that their bumps are made.
                let genid = self.net.genid4();
                self.note_prefix(prefix, generation, genid == self.expected.load(Relaxed));
                self.note_expected(genid);
            }
        }
    }

    /// Notes that a route was set, and that the kernel has bumped its genid for it if it is new.
    /// Under RTNL.
    pub(super) fn note_set(&self, prefix: Option<Prefix>, is_new: bool, generation: u32) {
        let genid = self.net.genid4();
        let own = u32::from(is_new);
        let is_expected = genid == self.expected.load(Relaxed).wrapping_add(own);
        match prefix {
            Some(prefix) => self.note_prefix(prefix, generation, is_expected),
            None => self.note_family(Family::Ipv4, generation),
        }
        self.note_expected(genid);
    }

    /// Generations wrap, so that a change would seem to be to come once there were 2^31 others.
    /// Moves the oldest up: those of families, and of one cell after the other.
    fn keep_old(&self, generation: u32) {
        const OLD: u32 = 1 << 30;
        let next = usize::try_from(generation).map_or(0, |number| number % prefix::CELLS);
        for change in Iterator::chain(self.all.iter(), self.cells.get(next)) {
            if generation.wrapping_sub(change.load(Relaxed)) > OLD {
                change.store(generation.wrapping_sub(OLD), Relaxed);
            }
        }
    }

    fn note_all(&self, generation: u32) {
        for all in &self.all {
            all.store(generation, Relaxed);
        }
    }

    fn note_family(&self, family: Family, generation: u32) {
        if let Some(all) = self.all.get(family.index()) {
            all.store(generation, Relaxed);
        }
    }

    /// Notes a change of a route to a prefix, and of all routes if bumps are not explained.
    fn note_prefix(&self, prefix: Prefix, generation: u32, is_explained: bool) {
        match prefix.cell().and_then(|cell| self.cells.get(cell)) {
            Some(cell) if is_explained => cell.store(generation, Relaxed),
            _ => self.note_family(Family::Ipv4, generation),
        }
    }

    fn note_expected(&self, genid: u32) {
        // ORDERING: Release, pairs with `spare`: a CPU that expects the genid sees the changes that
        // explain it.
        self.expected.store(genid, Release);
    }

    /// Returns the genid up to which no change can have changed a route since it had this stamp: if
    /// no change that was noted reaches it, and each bump since is explained.
    pub(super) fn spare(
        &self,
        stamp: &Stamp,
        dst: &Dst,
        ends: impl FnOnce() -> Ends,
    ) -> Option<u32> {
        let family = dst.family();
        let of_family = self.all.get(family.index());
        let since = |change: &Atomic<u32>| stamp.precedes(change.read_once());
        // In most cases, if a route is not spared, this is why.
        if of_family.is_none_or(since) {
            return None;
        }
        if family == Family::Ipv6 {
            return Some(dst.genid());
        }
        // ORDERING: Acquire, pairs with `note_expected`.
        let expected = self.expected.read_acquire();
        let now = self.net.genid4();
        if now != expected && now != dst.genid() {
            return None;
        }
        let Ends { to, from } = ends();
        let cells = [prefix::cells_of(to), prefix::cells_of(from)];
        let mut cells = cells.as_flattened().iter();
        let changed = cells.any(|&cell| self.cells.get(cell).is_none_or(since));
        // Again, because the changes that explain the genid may have been noted meanwhile.
        (!changed && !of_family.is_none_or(since)).then_some(now)
    }
}
