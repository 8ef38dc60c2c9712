// SPDX-License-Identifier: GPL-2.0

//! The routes of one direction of a flow: the live routes, which serve packets, and the staged
//! route, which was attached to a packet that has not passed confirm yet.
//!
//! There are two live routes if the direction's packets are received by two devices: one for each.
//! While both are valid, packets that a third device receives have none.
//!
//! A staged route never serves a packet. It becomes a live one when a packet leaves by it that was
//! received by its device. An outdated live route is replaced without that, by one that leads the
//! same way. So with one live route, a packet that the rules drop evicts nothing. Neither does a
//! packet that is spoofed from another device, as long as the connection's own packets take another
//! route or are received by another device.
//!
//! Two live routes leave no room for a staged one. That takes the place of an outdated one, or of
//! its own device's.

use core::ptr;

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::{
    kapi::{
        mem::rcu::{RcuBox, RcuCell},
        net::{dst::DstId, prefix::Ends},
        nf::{
            conn::CtRef,
            packet::Unserved,
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
    /// A live route.
    first: RcuCell<Slot>,
    /// The staged route, or the live route of packets that another device receives.
    other: RcuCell<Slot>,
    hits: Atomic<i64>,
}

impl Direction {
    /// Creates a direction without routes.
    pub(crate) const fn new() -> Self {
        Self {
            first: RcuCell::new(),
            other: RcuCell::new(),
            hits: Atomic::new(0),
        }
    }

    /// Returns the live slot whose route a packet may take, apart from the kernel's own check of
    /// the route, or the reason why there is none.
    #[inline(always)]
    pub(crate) fn usable<'r>(
        &'r self,
        packet: &PacketKey,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Slot, Miss> {
        match self.of_device(packet.key.iif, rcu) {
            Some(slot) => slot.check(packet, changes, ends).map(|()| slot),
            None if self.live(rcu).next().is_some() => Err(Miss::Iif),
            None => Err(Miss::Empty),
        }
    }

    /// Attaches a live route to a packet of the connection `ct`. Fails if there is none that the
    /// packet may take, with a reason if that is an outdated route.
    #[inline(always)]
    pub(crate) fn serve<'r>(
        &'r self,
        skb: &HookSkb<'r, PreRouting>,
        ct: &CtRef<'_>,
        changes: &impl Changes,
    ) -> Result<(), Option<Miss>> {
        let first = self.first.load(skb.rcu());
        first
            .map_or(Err(None), |slot| self.serve_by(slot, skb, ct, changes))
            .or_else(|why| match self.second(skb.rcu()) {
                None => Err(why),
                Some(slot) => self.serve_by_second(slot, skb, ct, changes),
            })
    }

    #[inline(always)]
    fn serve_by<'r>(
        &self,
        slot: &'r Slot,
        skb: &HookSkb<'r, PreRouting>,
        ct: &CtRef<'_>,
        changes: &impl Changes,
    ) -> Result<(), Option<Miss>> {
        slot.check_stamp(changes, || ct.ends()).map_err(Some)?;
        let served = skb.serve(ct, slot.dst(), slot.key(), &self.hits);
        served.map_err(|why| (why == Unserved::Outdated).then_some(Miss::Obsolete))
    }

    /// As [`Self::serve_by`], for the second live route.
    #[cold]
    fn serve_by_second<'r>(
        &self,
        slot: &'r Slot,
        skb: &HookSkb<'r, PreRouting>,
        ct: &CtRef<'_>,
        changes: &impl Changes,
    ) -> Result<(), Option<Miss>> {
        self.serve_by(slot, skb, ct, changes)
    }

    /// Returns the live slot of the other cell.
    fn second<'r>(&'r self, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.other.load(rcu).filter(|slot| slot.is_second())
    }

    /// Returns the live slot for packets that a device receives.
    fn of_device<'r>(&'r self, iif: u32, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.live(rcu).find(|slot| slot.key().iif == iif)
    }

    /// Counts a packet as if it had been served.
    pub(crate) fn count_hit(&self) {
        self.hits.add(1, Relaxed);
    }

    /// Returns whether a route may be staged for packets that a device receives: not if there are
    /// two valid live routes for others.
    pub(crate) fn has_room(
        &self,
        iif: u32,
        changes: &impl Changes,
        ends: impl Fn() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> bool {
        let valid = |slot: &&Slot| slot.check_stamp(changes, &ends).is_ok();
        self.of_device(iif, rcu).is_some() || self.live(rcu).filter(valid).count() < 2
    }

    /// Makes the staged route's cell one whose route may be replaced by that of a device. If there
    /// are two live routes, that of this device goes, or else an outdated one; the other one moves
    /// to the first cell. Returns `false` if both are valid ones of other devices.
    fn make_room(
        &self,
        iif: u32,
        changes: &impl Changes,
        ends: impl Fn() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> bool {
        let Some(second) = self.second(rcu) else {
            return true;
        };
        let is_of_iif = |slot: &Slot| slot.key().iif == iif;
        let is_outdated = |slot: &Slot| slot.check_stamp(changes, &ends).is_err();
        let goes = |slot: &Slot| is_of_iif(slot) || (!is_of_iif(second) && is_outdated(slot));
        if self.first.load(rcu).is_none_or(goes) {
            if let Some(slot) = self.other.take_if(second, rcu) {
                slot.set_second(false);
                drop(self.first.swap(Some(slot)));
            }
            return true;
        }
        is_of_iif(second) || is_outdated(second)
    }

    /// Stages the route that a packet has. Returns `false` if there is no room for it: see
    /// [`Self::has_room`].
    pub(crate) fn stage(
        &self,
        slot: RcuBox<Slot>,
        changes: &impl Changes,
        ends: impl Fn() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> bool {
        let has_room = self.make_room(slot.key().iif, changes, ends, rcu);
        if has_room {
            drop(self.other.swap(Some(slot)));
        }
        has_room
    }

    /// Makes the staged route a live one if a packet that was received by `iif` leaves by it.
    /// Returns whether this call did.
    pub(crate) fn commit(
        &self,
        dst: DstId,
        iif: u32,
        changes: &impl Changes,
        ends: impl Fn() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> bool {
        let Some(staged) = self.staged(rcu) else {
            return false;
        };
        if dst != *staged.dst() || iif != staged.key().iif {
            return false;
        }
        let first = self.first.load(rcu);
        // Packets are served by the first route with less work, so an outdated one does not stay.
        if first
            .is_some_and(|slot| slot.key().iif != iif && slot.check_stamp(changes, ends).is_ok())
        {
            staged.set_second(true);
            return true;
        }
        let slot = self.other.take_if(staged, rcu);
        slot.map(|slot| drop(self.first.swap(Some(slot)))).is_some()
    }

    /// Returns the live slot whose route was chosen for packets like this one. It may be outdated.
    pub(crate) fn suitable<'r>(
        &'r self,
        packet: &PacketKey,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Slot> {
        self.of_device(packet.key.iif, rcu)
            .filter(|slot| slot.suits(packet))
    }

    /// Replaces an outdated live slot by one whose route leads the same way. If another CPU has
    /// replaced it already, drops the new one.
    pub(crate) fn replace(&self, old: &Slot, new: RcuBox<Slot>, rcu: &ReadSide<'_>) {
        // By its place, because a slot may be noted as the second one after it was moved.
        let is_first = self.first.load(rcu).is_some_and(|slot| ptr::eq(slot, old));
        let cell = if is_first { &self.first } else { &self.other };
        new.set_second(!is_first);
        // The result is the slot that is not used any more.
        drop(cell.replace_if(old, new, rcu));
    }

    /// Drops the staged slot, so that a packet of the live route does not commit it.
    pub(crate) fn unstage(&self, rcu: &ReadSide<'_>) {
        if let Some(staged) = self.staged(rcu) {
            drop(self.other.take_if(staged, rcu));
        }
    }

    /// Drops the routes for which `bad` returns a reason, and returns the reason of each.
    pub(crate) fn purge<'r>(
        &'r self,
        rcu: &'r ReadSide<'r>,
        bad: impl Fn(&Slot) -> Option<Miss> + 'r,
    ) -> impl Iterator<Item = Miss> + 'r {
        // In this order, because slots move from the other cell to the first.
        [&self.other, &self.first]
            .into_iter()
            .filter_map(move |cell| {
                let slot = cell.load(rcu)?;
                let why = bad(slot)?;
                cell.take_if(slot, rcu).map(|_| why)
            })
    }

    /// Returns the live routes.
    pub(crate) fn live<'r>(&'r self, rcu: &ReadSide<'r>) -> impl Iterator<Item = &'r Slot> {
        [self.first.load(rcu), self.second(rcu)]
            .into_iter()
            .flatten()
    }

    /// Returns the staged route.
    pub(crate) fn staged<'r>(&'r self, rcu: &ReadSide<'r>) -> Option<&'r Slot> {
        self.other.load(rcu).filter(|slot| !slot.is_second())
    }

    /// Returns how many packets live routes served.
    pub(crate) fn hits(&self) -> i64 {
        self.hits.load(Relaxed)
    }
}
