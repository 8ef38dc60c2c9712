// SPDX-License-Identifier: GPL-2.0

//! The routes of one direction of a flow: the live one, which serves packets, and the staged one,
//! which a packet was given and has not yet carried through confirm.
//!
//! A staged route never serves a packet. It becomes the live one when a packet leaves by it that
//! came in by its device: so what a packet was given that the rules then dropped, or that was
//! spoofed from another device, evicts nothing as long as the true ones go another way or come in
//! by another device.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::{
    kapi::{
        net::dst::DstId,
        nf::{
            hook::State,
            packet::SkBuff, //
        },
        sync::rcu::{RcuBox, RcuCell, ReadSide}, //
    },
    route::{
        key::Key,
        miss::Reason,
        slot::{Now, Slot}, //
    },
};

/// The routes of a direction, and how many packets they served.
pub(crate) struct Direction {
    live: RcuCell<Slot>,
    staged: RcuCell<Slot>,
    hits: Atomic<i64>,
}

impl Direction {
    /// No routes.
    pub(crate) const fn new() -> Self {
        Self {
            live: RcuCell::new(),
            staged: RcuCell::new(),
            hits: Atomic::new(0),
        }
    }

    /// Gives a packet the live route, or says why not. Without `give` it only counts as if it did.
    #[inline(always)]
    pub(crate) fn consume<'r>(
        &'r self,
        skb: &SkBuff,
        key: &Key,
        now: Now,
        give: bool,
        state: &State<'r>,
    ) -> Result<(), Reason> {
        let rcu = state.rcu();
        let slot = self.live.load(rcu).ok_or(Reason::Empty)?;
        slot.check(key, now)?;
        let valid = if give {
            skb.use_route(slot.dst(), state)
        } else {
            slot.dst().is_valid(rcu)
        };
        if !valid {
            return Err(Reason::Obsolete);
        }
        self.hits.add(1, Relaxed);
        Ok(())
    }

    /// Keeps a route that a packet was given.
    pub(crate) fn stage(&self, slot: RcuBox<Slot>) {
        drop(self.staged.swap(Some(slot)));
    }

    /// Makes the staged route the live one if a packet that came in by `iif` leaves by it; `true`:
    /// by this call.
    pub(crate) fn commit(&self, dst: DstId, iif: u32, rcu: &ReadSide<'_>) -> bool {
        let Some(staged) = self.staged.load(rcu) else {
            return false;
        };
        if dst != *staged.dst() || iif != staged.key().iif {
            return false;
        }
        let Some(slot) = self.staged.take_if(staged, rcu) else {
            return false;
        };
        drop(self.live.swap(Some(slot)));
        true
    }

    /// Drops the routes that `bad` has something against; what that was, for each.
    pub(crate) fn purge<'r>(
        &'r self,
        rcu: &'r ReadSide<'r>,
        bad: impl Fn(&Slot) -> Option<Reason> + 'r,
    ) -> impl Iterator<Item = Reason> + 'r {
        [&self.live, &self.staged]
            .into_iter()
            .filter_map(move |cell| {
                let slot = cell.load(rcu)?;
                let why = bad(slot)?;
                cell.take_if(slot, rcu).map(|_| why)
            })
    }

    /// The live route.
    pub(crate) fn live<'r>(&'r self, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.live.load(rcu)
    }

    /// The staged route.
    pub(crate) fn staged<'r>(&'r self, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.staged.load(rcu)
    }

    /// How many packets live routes served.
    pub(crate) fn hits(&self) -> i64 {
        self.hits.load(Relaxed)
    }
}
