// SPDX-License-Identifier: GPL-2.0

//! Slots: cached routes, with the conditions under which they serve packets.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::{
    kapi::{
        net::{dst::Dst, prefix::Ends},
        nf::{
            key::Key,
            packet::{Chosen, Route, Unfit}, //
        },
        sync::{held::Held, once::ReadOnce, rcu::ReadSide}, //
    },
    refs::RefCounts,
    route::{
        key,
        miss::Miss,
        stamp::{Facts, Stamp}, //
    },
};

impl From<Unfit> for Miss {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Options => Self::Options,
            Unfit::Fragment => Self::Fragment,
            Unfit::NotHost => Self::NotHost,
            Unfit::Socket => Self::Socket,
            Unfit::Secpath => Self::Secpath,
            Unfit::Bridge => Self::Bridge,
            Unfit::HasDst => Self::HasDst,
            Unfit::L3mdev => Self::L3mdev,
            Unfit::Related => Self::Related,
            Unfit::Rewritten => Self::Rewritten,
            Unfit::Scope => Self::Scope,
            Unfit::NoRoute => Self::NoRoute,
            Unfit::NotUnicast => Self::NotUnicast,
            Unfit::SameDevice => Self::SameDevice,
            Unfit::Lwtunnel => Self::Lwtunnel,
            Unfit::Pmtu => Self::Pmtu,
            Unfit::Uncached => Self::Uncached,
            Unfit::Multipath => Self::Multipath,
            Unfit::Rules => Self::Rules,
            Unfit::Gone => Self::Gone,
        }
    }
}

/// The key of a packet, and the hash by which the kernel may choose its nexthop.
#[derive(Clone, Copy)]
pub(crate) struct PacketKey {
    /// The key.
    pub(crate) key: Key,
    /// The hash; never 0. Other hashes may have the same value.
    pub(crate) path_hash: u16,
}

/// The changes of a netns.
pub(crate) trait Changes {
    /// Returns the facts that stamps are checked against. To be called before a lookup.
    fn facts(&self) -> Facts;

    /// Returns the genid up to which no change can have changed a route since it had this stamp, or
    /// `None` if one may have. `ends` are the addresses of its packets, if it is of IPv4. To be
    /// called after [`Self::facts`], and after the stamp is read.
    fn spare(&self, stamp: &Stamp, dst: &Dst, ends: impl FnOnce() -> Ends) -> Option<u32>;
}

/// Returns whether a route's stamp is valid, or the reason why not. `ends` are the addresses of the
/// connection's packets. The facts are read after the stamp, because another CPU may renew it, and
/// no stamp may be younger than its facts.
#[inline(always)]
pub(super) fn check_stamp(
    stamp: &Atomic<u64>,
    dst: &Dst,
    changes: &impl Changes,
    ends: impl FnOnce() -> Ends,
) -> Result<(), Miss> {
    let read = Stamp::from_raw(stamp.read_once());
    match read.check(&changes.facts()) {
        Ok(()) => Ok(()),
        Err(_) => spare(stamp, read, dst, changes, ends),
    }
}

/// Makes an outdated stamp valid if no change after it can have changed the route. Fails with the
/// reason why it stays outdated.
#[cold]
fn spare(
    stamp: &Atomic<u64>,
    read: Stamp,
    dst: &Dst,
    changes: &impl Changes,
    ends: impl FnOnce() -> Ends,
) -> Result<(), Miss> {
    let facts = changes.facts();
    read.check(&facts).or_else(|miss| {
        let renewed = read.spared(&facts);
        renewed.check(&facts).map_err(|_| miss)?;
        let genid = changes.spare(&read, dst, ends).ok_or(miss)?;
        dst.set_genid(genid);
        stamp.store(renewed.to_raw(), Relaxed);
        Ok(())
    })
}

/// A cached route. Once it is published, only three things change: whether it is the second one of
/// its direction ([`Self::is_second`]), the stamp and the genid. The stamp and the genid change
/// when a later lookup chooses the same route, or when all changes since are known not to have
/// changed it. They are written one after the other, so a reader may see those of two writers. What
/// they are compared with only grows. If a reader finds both current, they were so before the
/// writer that read its values last looked the route up, or checked the changes. So that proves the
/// route.
pub(crate) struct Slot {
    dst: Dst,
    key: Key,
    /// The index of the sending device, and [`Self::SECOND`].
    oif: Atomic<u32>,
    /// A [`Stamp`].
    stamp: Atomic<u64>,
    _held: Held,
}

impl Slot {
    /// Set in `oif` if the slot is the second live one. Indices of devices are less than this.
    const SECOND: u32 = 1 << 31;

    /// Creates a slot for the route that the kernel chose for a packet with `key`. `stamp` was
    /// taken before the lookup.
    pub(crate) fn new(route: Route, key: Key, stamp: Stamp, refs: &RefCounts) -> Self {
        Self {
            dst: route.dst,
            key,
            oif: Atomic::new(route.oif),
            stamp: Atomic::new(stamp.to_raw()),
            _held: refs.slots.hold(),
        }
    }

    /// Returns whether a packet may take the route, apart from the kernel's own check of the route,
    /// or the reason why not.
    #[inline(always)]
    pub(crate) fn check(
        &self,
        packet: &PacketKey,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
    ) -> Result<(), Miss> {
        match self.difference(packet) {
            Some(miss) => Err(miss),
            None => self.check_stamp(changes, ends),
        }
    }

    /// As [`check_stamp`], for the slot's stamp.
    #[inline(always)]
    pub(crate) fn check_stamp(
        &self,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
    ) -> Result<(), Miss> {
        check_stamp(&self.stamp, &self.dst, changes, ends)
    }

    /// Returns whether the route was chosen for packets like this one.
    pub(crate) fn suits(&self, packet: &PacketKey) -> bool {
        self.difference(packet).is_none()
    }

    /// Returns why the route was not chosen for packets like this one.
    fn difference(&self, packet: &PacketKey) -> Option<Miss> {
        let of_key = key::difference(&self.key, &packet.key, self.dst.is_for_any_dscp());
        of_key.or_else(|| (!self.dst.suits(packet.path_hash)).then_some(Miss::Multipath))
    }

    /// Makes the route valid again if it is the one that the kernel chose for a packet that it
    /// suits. `stamp` was taken before that lookup. Returns whether it is.
    pub(crate) fn renew(&self, chosen: &Chosen<'_>, stamp: Stamp) -> bool {
        let is_same = chosen.renew(&self.dst);
        if is_same {
            self.stamp.store(stamp.to_raw(), Relaxed);
        }
        is_same
    }

    /// Returns whether a packet with the slot's own key would be served, or the reason why not.
    pub(crate) fn check_now(
        &self,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> Result<(), Miss> {
        self.check_stamp(changes, ends)?;
        self.dst.is_valid(rcu).then_some(()).ok_or(Miss::Obsolete)
    }

    /// Returns the reason why the kernel does not consider the route valid any more, if it does
    /// not.
    pub(crate) fn obsolete(
        &self,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> Option<Miss> {
        let changed = self.check_stamp(changes, ends).err();
        let valid = self.dst.is_valid(rcu);
        (!valid).then(|| changed.unwrap_or(Miss::Obsolete))
    }

    /// Returns the route.
    pub(crate) fn dst(&self) -> &Dst {
        &self.dst
    }

    /// Returns the key of the packet that the route was chosen for.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the index of the sending device.
    pub(crate) fn oif(&self) -> u32 {
        self.oif.load(Relaxed) & !Self::SECOND
    }

    /// Returns whether the slot is the live one of a cell that staged ones use, too.
    #[inline(always)]
    pub(crate) fn is_second(&self) -> bool {
        self.oif.load(Relaxed) & Self::SECOND != 0
    }

    /// Notes whether the slot is the live one of a cell that staged ones use, too.
    pub(crate) fn set_second(&self, is_second: bool) {
        let mark = if is_second { Self::SECOND } else { 0 };
        self.oif.store(self.oif() | mark, Relaxed);
    }

    /// Returns the indices of the devices by which the slot's packets are received and sent.
    pub(crate) fn devices(&self) -> [u32; 2] {
        [self.key.iif, self.oif()]
    }

    /// Returns when the route was looked up last.
    #[inline(always)]
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_raw(self.stamp.read_once())
    }
}
