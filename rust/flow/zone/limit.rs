// SPDX-License-Identifier: GPL-2.0

//! The limit of a zone.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

use crate::kapi::{
    net::netns::NetHandle,
    nf::{
        conn::CtRef,
        conncount::{Count, NotCounted},
        skb::HookSkb, //
    },
};

/// A zone's limit.
#[pin_data]
pub(crate) struct Limit {
    /// The maximum number of connections, or [`Limit::NONE`].
    max: Atomic<u32>,
    /// The connections since the limit was set, or was last raised by much.
    #[pin]
    connections: Count,
    /// The count from before it was raised by much.
    older: Option<Arc<Limit>>,
}

impl Limit {
    const NONE: u32 = u32::MAX;

    /// Creates a limit that admits every connection, sized for about `about` connections. Process
    /// context.
    pub(super) fn new(net: NetHandle, about: u32, older: Option<Arc<Limit>>) -> Result<Arc<Self>> {
        Arc::try_pin_init(
            try_pin_init!(Self {
                max: Atomic::new(Self::NONE),
                connections <- Count::new(net, about),
                older,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns the maximum number of connections. `None` while the limit is being set or removed.
    pub(crate) fn max(&self) -> Option<u32> {
        let max = self.max.load(Relaxed);
        (max != Self::NONE).then_some(max)
    }

    /// Sets the maximum number of connections; `None` admits every connection.
    pub(super) fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(Self::NONE), Relaxed);
    }

    /// Returns whether counting stays efficient with `max` connections.
    pub(super) fn fits(&self, max: u32) -> bool {
        self.connections.fits(max)
    }

    /// Returns the number of connections, which may include dead ones.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.count().saturating_add(self.older())
    }

    fn older(&self) -> u32 {
        self.older.as_ref().map_or(0, |older| older.connections())
    }

    /// Counts a packet's new connection, if the limit admits it. Does not sleep.
    pub(crate) fn admit<P>(&self, skb: &HookSkb<'_, P>, ct: &CtRef<'_>) -> Result<(), NotCounted> {
        let room = self.max.load(Relaxed).saturating_sub(self.older());
        self.connections.add(skb, ct, room)
    }

    /// Removes dead connections from the count. Returns whether others are left. Process context;
    /// sleeps.
    pub(super) fn collect(&self) -> bool {
        if self.connections.count() != 0 {
            self.connections.collect();
        }
        let older = self.older.as_ref().is_some_and(|older| older.collect());
        self.connections.count() != 0 || older
    }
}
