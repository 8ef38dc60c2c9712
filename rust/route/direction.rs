// SPDX-License-Identifier: GPL-2.0

//! The routes of one direction of a flow: the live route, which serves packets, and the staged
//! route, which was attached to a packet that has not passed confirm yet.
//!
//! A staged route never serves a packet. It becomes the live one when a packet leaves by it that
//! was received by its device. An outdated live route is replaced without that, by one that leads
//! the same way. So a packet that the rules drop evicts nothing. Neither does a packet that is
//! spoofed from another device, as long as the connection's own packets take another route or are
//! received by another device.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::{
    kapi::{
        mem::rcu::{RcuBox, RcuCell},
        net::{dst::DstId, prefix::Ends},
        nf::{
            conn::CtRef,
            skb::{HookSkb, PreRouting}, //
        },
        sync::rcu::ReadSide, //
    },
    route::{
        miss::Miss,
        slot::{Changes, PacketKey, Slot}, //
    },
};

/// The routes of a direction, and the number of packets that they served.
pub(crate) struct Direction {
    live: RcuCell<Slot>,
    staged: RcuCell<Slot>,
    hits: Atomic<i64>,
}

impl Direction {
    /// Creates a direction without routes.
    pub(crate) const fn new() -> Self {
        Self {
            live: RcuCell::new(),
            staged: RcuCell::new(),
            hits: Atomic::new(0),
        }
    }

    /// Returns the live slot if a packet may take its route, apart from the kernel's own
    /// check of the route, or the reason why there is none.
    #[inline(always)]
    pub(crate) fn usable<'r>(
        &'r self,
        packet: &PacketKey,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Slot, Miss> {
        let slot = self.live.load(rcu).ok_or(Miss::Empty)?;
        slot.check(packet, changes, ends)?;
        Ok(slot)
    }

    /// Attaches the live route to a packet of the connection `ct`. Returns `false` if there is none
    /// that the packet may take.
    #[inline(always)]
    pub(crate) fn serve<'r>(
        &'r self,
        skb: &HookSkb<'r, PreRouting>,
        ct: &CtRef<'_>,
        changes: &impl Changes,
    ) -> bool {
        let Some(slot) = self.live.load(skb.rcu()) else {
            return false;
        };
        slot.check_stamp(changes, || ct.ends()).is_ok()
            && skb.serve(ct, slot.dst(), slot.key(), &self.hits)
    }

    /// Counts a packet as if it had been served.
    pub(crate) fn count_hit(&self) {
        self.hits.add(1, Relaxed);
    }

    /// Stages the route that a packet has.
    pub(crate) fn stage(&self, slot: RcuBox<Slot>) {
        drop(self.staged.swap(Some(slot)));
    }

    /// Makes the staged route the live one if a packet that was received by `iif` leaves by it.
    /// Returns whether this call did.
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

    /// Returns the live slot if its route was chosen for packets like this one. It may be outdated.
    pub(crate) fn suitable<'r>(
        &'r self,
        packet: &PacketKey,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Slot> {
        self.live.load(rcu).filter(|slot| slot.suits(packet))
    }

    /// Replaces an outdated live slot by one whose route leads the same way. If another CPU has
    /// replaced it already, drops the new one.
    pub(crate) fn replace(&self, old: &Slot, new: RcuBox<Slot>, rcu: &ReadSide<'_>) {
        // The result is the slot that is not used any more.
        drop(self.live.replace_if(old, new, rcu));
    }

    /// Drops the staged slot, so that a packet of the live route does not commit it.
    pub(crate) fn unstage(&self, rcu: &ReadSide<'_>) {
        if self.staged.load(rcu).is_some() {
            drop(self.staged.swap(None));
        }
    }

    /// Drops the routes for which `bad` returns a reason, and returns the reason of each.
    pub(crate) fn purge<'r>(
        &'r self,
        rcu: &'r ReadSide<'r>,
        bad: impl Fn(&Slot) -> Option<Miss> + 'r,
    ) -> impl Iterator<Item = Miss> + 'r {
        [&self.live, &self.staged]
            .into_iter()
            .filter_map(move |cell| {
                let slot = cell.load(rcu)?;
                let why = bad(slot)?;
                cell.take_if(slot, rcu).map(|_| why)
            })
    }

    /// Returns the live route.
    pub(crate) fn live<'r>(&'r self, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.live.load(rcu)
    }

    /// Returns the staged route.
    pub(crate) fn staged<'r>(&'r self, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.staged.load(rcu)
    }

    /// Returns how many packets live routes served.
    pub(crate) fn hits(&self) -> i64 {
        self.hits.load(Relaxed)
    }
}
