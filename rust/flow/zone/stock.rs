// SPDX-License-Identifier: GPL-2.0

//! The stock of zones.
//!
//! A table can only be created in process context, but a zone's first packet may arrive in softirq.
//! The module therefore keeps a few zones ready, and refills the stock when one was taken.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

use crate::{
    flow::zone::Zone,
    kapi::{
        mem::array::RcuArray,
        sync::{lock::SpinLockBh, rcu::ReadSide}, //
    },
};

/// Zones that are ready to be given an id. One stock for the module.
#[pin_data]
pub(crate) struct Stock {
    #[pin]
    zones: SpinLockBh<KVec<Arc<Zone>>>,
    /// Whether a zone was taken, or none was left.
    asked: Atomic<bool>,
}

impl Stock {
    /// The number of zones that are kept ready.
    const SIZE: usize = 32;

    /// Creates an empty stock. Process context.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            zones <- SpinLockBh::new(
                KVec::with_capacity(Self::SIZE, GFP_KERNEL)?,
                c"flow::zone::stock",
                kernel::static_lock_class!(),
            ),
            asked: Atomic::new(false),
        })
    }

    /// Fills the stock. Process context.
    pub(crate) fn refill(&self) -> Result {
        while self.zones.lock().len() < Self::SIZE {
            let zone = Zone::make()?;
            let full = self.zones.lock().push_within_capacity(zone);
            if full.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the stock was asked for a zone since the last call, and so should be
    /// refilled.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Relaxed) && self.asked.xchg(false, Relaxed)
    }

    /// Publishes a zone from the stock under an unused id, or returns the zone that has the id.
    /// Returns `None` if the stock or the memory is used up. Does not sleep.
    pub(super) fn put_in_use<'r>(
        &self,
        zones: &'r RcuArray<Zone>,
        id: u16,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Zone> {
        let mut stock = self.zones.lock();
        if let Some(zone) = zones.get(id.into(), rcu) {
            return Some(zone);
        }
        self.asked.store(true, Relaxed);
        let zone = stock.pop()?;
        zone.id.store(id.into(), Relaxed);
        if let Err((_, zone)) = zones.insert(id.into(), zone) {
            // There is no memory. The stock has room, because the zone was taken under the same
            // lock.
            let _ = stock.push_within_capacity(zone);
        }
        zones.get(id.into(), rcu)
    }
}
