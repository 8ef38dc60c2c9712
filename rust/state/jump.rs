// SPDX-License-Identifier: GPL-2.0

//! What jumps need in a netns: the firewalls that packets were observed to pass, and the observer.
//!
//! A firewall has a number, its *epoch*. A packet that met rules before the present ones must not
//! teach for the present ones. So the firewall is recorded, and gets its number only after a grace
//! period, if it is still the same: every packet that sees the number met no earlier rules, because
//! it passes the hooks in one read-side critical section. (A packet that was queued to userspace
//! does not, and so is not observed.)

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::read_lock,
        Arc,
        SetOnce, //
    },
};

use crate::kapi::{
    mem::{
        rcu::{RcuBox, RcuCell},
        slab::SlabBox, //
    },
    net::{family::Family, netns::Net},
    nf::{observe::Observer, ruleset::Ruleset},
    sync::rcu::ReadSide, //
};

/// A firewall that packets pass, with its number.
pub(crate) struct Epoch {
    /// The number; never 0.
    pub(crate) number: u32,
    /// The firewall.
    pub(crate) ruleset: Ruleset,
}

/// What jumps need in a netns.
pub(crate) struct Jumps {
    ipv4: RcuCell<Epoch>,
    ipv6: RcuCell<Epoch>,
    /// The last number.
    number: Atomic<u32>,
    devices: Wanted,
    observer: SetOnce<Arc<Observer>>,
}

impl Jumps {
    /// Returns what is needed at first: nothing.
    pub(super) fn new() -> Self {
        Self {
            ipv4: RcuCell::new(),
            ipv6: RcuCell::new(),
            number: Atomic::new(0),
            devices: Wanted::new(),
            observer: SetOnce::new(),
        }
    }

    /// Creates the observer, unless there is one. The caller excludes other calls. Fails with
    /// `EOPNOTSUPP` where packets of a CPU may be preempted by others. Process context.
    pub(crate) fn prepare(&self) -> Result {
        if cfg!(CONFIG_PREEMPT_RT) {
            return Err(EOPNOTSUPP);
        }
        if self.observer.as_ref().is_none() {
            self.observer
                .populate(Arc::new(Observer::new()?, GFP_KERNEL)?);
        }
        Ok(())
    }

    /// Returns the observer, if jumps were ever switched on. Any context.
    #[inline(always)]
    pub(crate) fn observer(&self) -> Option<&Observer> {
        self.observer.as_ref().map(|observer| &**observer)
    }

    fn cell(&self, family: Family) -> &RcuCell<Epoch> {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// Returns the firewall of a family that was recorded last. It may be outdated. Any context.
    #[inline(always)]
    pub(crate) fn epoch<'r>(&'r self, family: Family, rcu: &ReadSide<'r>) -> Option<&'r Epoch> {
        self.cell(family).load(rcu)
    }

    /// Forgets the firewalls, so that no packet jumps until another one of its direction has been
    /// observed. Any context.
    pub(crate) fn forget(&self) {
        for family in Family::ALL {
            drop(self.cell(family).swap(None));
        }
    }

    fn is_current(&self, net: &Net, family: Family, rcu: &ReadSide<'_>) -> bool {
        self.epoch(family, rcu)
            .is_some_and(|epoch| epoch.ruleset.is_current(net, rcu))
    }

    /// Records the firewall of a family, if it has changed. Process context; sleeps.
    pub(super) fn record(&self, net: &Net, family: Family) -> Result<Option<Ruleset>> {
        {
            let guard = read_lock();
            if self.is_current(net, family, &ReadSide::of(&guard)) {
                return Ok(None);
            }
        }
        let observer = self.observer.as_ref().ok_or(ENOENT)?.clone();
        Ruleset::record(net, family, observer).map(Some)
    }

    /// Gives a recorded firewall its number, if it is still the same. Returns whether it is.
    pub(super) fn publish(&self, net: &Net, family: Family, ruleset: Ruleset) -> Result<bool> {
        {
            let guard = read_lock();
            if !ruleset.is_current(net, &ReadSide::of(&guard)) {
                return Ok(false);
            }
        }
        let number = self.number.load(Relaxed).wrapping_add(1).max(1);
        self.number.store(number, Relaxed);
        let epoch = SlabBox::alloc_rare(Epoch { number, ruleset })?;
        drop(self.cell(family).swap(Some(RcuBox::from(epoch))));
        Ok(true)
    }

    /// Returns the devices whose packets may jump at ingress.
    pub(crate) fn devices(&self) -> &Wanted {
        &self.devices
    }
}

/// The devices that receive packets of connections that jump. There is room for a few: the packets
/// of others jump in PRE_ROUTING only.
pub(crate) struct Wanted([Atomic<u32>; Self::MOST]);

impl Wanted {
    const MOST: usize = 32;

    /// Beside an index: the device has its hook, or cannot have one.
    const SETTLED: u32 = 1 << 31;

    fn new() -> Self {
        Self([const { Atomic::new(0) }; Self::MOST])
    }

    /// Adds a device. Any context.
    pub(crate) fn add(&self, ifindex: u32) {
        let is_known = |place: &Atomic<u32>| place.load(Relaxed) & !Self::SETTLED == ifindex;
        if self.0.iter().any(is_known) {
            return;
        }
        for place in &self.0 {
            if place.load(Relaxed) == 0 && place.cmpxchg(0, ifindex, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Removes a device. Any context.
    pub(crate) fn remove(&self, ifindex: u32) {
        for place in &self.0 {
            let _ = place.cmpxchg(ifindex, 0, Relaxed);
            let _ = place.cmpxchg(ifindex | Self::SETTLED, 0, Relaxed);
        }
    }

    /// Notes that a device has its hook, or cannot have one. Any context.
    pub(crate) fn settle(&self, ifindex: u32) {
        for place in &self.0 {
            let _ = place.cmpxchg(ifindex, ifindex | Self::SETTLED, Relaxed);
        }
    }

    /// Removes all devices. Any context.
    pub(crate) fn clear(&self) {
        for place in &self.0 {
            place.store(0, Relaxed);
        }
    }

    /// Returns the devices that may need a hook; one may be there twice. Any context.
    pub(crate) fn pending(&self) -> impl Iterator<Item = u32> + '_ {
        let all = self.0.iter().map(|place| place.load(Relaxed));
        all.filter(|&ifindex| ifindex != 0 && ifindex & Self::SETTLED == 0)
    }
}
