// SPDX-License-Identifier: GPL-2.0

//! Passes: what becomes of the packets of a direction, as long as nothing has changed since one of
//! them was observed.

use kernel::sync::atomic::Atomic;

use crate::{
    kapi::{
        mem::array::RcuBoxArray,
        net::prefix::Ends,
        nf::jump::{self, Learned},
        sync::{
            held::Held,
            rcu::{GracePeriod, ReadSide}, //
        },
    },
    refs::RefCounts,
    route::{
        slot::{check_stamp, Changes},
        stamp::Stamp,
        stay::Stay, //
    },
};

impl From<jump::Stays> for Stay {
    fn from(stays: jump::Stays) -> Self {
        use jump::Stays;
        match stays {
            Stays::Unlearned => Self::Unlearned,
            Stays::Rules => Self::Rules,
            Stays::Ipsec => Self::Ipsec,
            Stays::Packet => Self::Packet,
            Stays::Entry => Self::Entry,
            Stays::Ttl => Self::Ttl,
            Stays::Mtu => Self::Mtu,
            Stays::CtMark => Self::CtMark,
            Stays::CtLabels => Self::CtLabels,
            Stays::Route => Self::Route,
            Stays::Device => Self::Device,
            Stays::Neighbour => Self::Neighbour,
            Stays::NoMemory => Self::NoMemory,
            Stays::Order => Self::Order,
            Stays::Events => Self::Events,
            Stays::Unassured => Self::Unassured,
        }
    }
}

/// The terms of a pass. It is never renewed: when it is outdated, the direction's next packet is
/// observed.
pub(crate) struct Terms {
    /// A [`Stamp`] from before the observed packet met rules, as old as its route. Only a change
    /// that cannot have changed the route replaces it.
    stamp: Atomic<u64>,
    /// When the packet was observed, in jiffies.
    learned: u32,
    /// The number of the firewall that the observed packet passed, or met.
    epoch: u32,
    /// If the rules drop such packets, the grace period after which it is certain.
    dropped: Option<GracePeriod>,
    _held: Held,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It leaves.
    Leaves,
    /// Rules drop it.
    Dropped,
}

/// A pass of a direction.
pub(crate) type Pass = Learned<Terms>;

/// The passes of a netns. A pass that is stored for a flow just when the flow ends may be at the
/// number of another flow for a moment.
pub(crate) type Passes = RcuBoxArray<Pass>;

impl Terms {
    /// Creates the terms of a pass. `seen` was made before the observed packet met rules; `route`
    /// is the stamp of its route, which is valid.
    pub(crate) fn new(
        fate: Fate,
        (seen, route): (Stamp, Stamp),
        epoch: u32,
        refs: &RefCounts,
    ) -> Self {
        Self {
            dropped: (fate == Fate::Dropped).then(GracePeriod::next),
            stamp: Atomic::new(seen.as_old_as(route).to_raw()),
            learned: seen.born(),
            epoch,
            _held: refs.slots.hold(),
        }
    }

    /// Returns whether the pass says that rules drop packets.
    pub(crate) fn is_drop(&self) -> bool {
        self.dropped.is_some()
    }

    /// Returns what becomes of a packet. Fails with [`Stay::Undecided`] if the observed packet may
    /// still be on its way through the rules.
    #[inline(always)]
    pub(crate) fn fate(&self) -> Result<Fate, Stay> {
        match self.dropped {
            None => Ok(Fate::Leaves),
            Some(grace) if grace.has_ended() => Ok(Fate::Dropped),
            Some(_) => Err(Stay::Undecided),
        }
    }

    /// Returns whether the packet was observed in this jiffy, and passed the firewall with this
    /// number.
    pub(crate) fn are_fresh(&self, epoch: u32, jiffies: u32) -> bool {
        self.epoch == epoch && self.learned == jiffies
    }
}

impl Pass {
    /// Returns whether packets may jump by the pass if the firewall has this number: no change may
    /// have changed the route. `ends` are the addresses of the connection's packets.
    #[inline(always)]
    pub(crate) fn check(
        &self,
        epoch: u32,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
    ) -> Result<(), Stay> {
        if self.terms().epoch != epoch {
            return Err(Stay::Rules);
        }
        check_stamp(&self.terms().stamp, self.dst(), changes, ends).map_err(|_| Stay::Route)
    }

    /// Returns whether the kernel does not consider the route valid any more.
    pub(crate) fn is_obsolete(
        &self,
        changes: &impl Changes,
        ends: impl FnOnce() -> Ends,
        rcu: &ReadSide<'_>,
    ) -> bool {
        // The route of an outdated stamp may still be the kernel's.
        let _ = check_stamp(&self.terms().stamp, self.dst(), changes, ends);
        !self.dst().is_valid(rcu)
    }
}
