// SPDX-License-Identifier: GPL-2.0

//! The memory of verify mode: predictions that wait for what conntrack does, and the counts that
//! tell whether a prediction was disturbed by another packet.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu::synchronize_rcu, //
    },
};

use crate::kapi::{
    nf::{
        conn::{ConnId, Dir},
        skb::SkbId,
        tcp::Tracking, //
    },
    sync::percpu::PerCpuCell,
};

/// What conntrack is expected to do with a packet.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    /// The packet.
    pub(crate) skb: SkbId,
    /// Jiffies at the prediction.
    pub(crate) at: u32,
    /// The number of the packet.
    pub(crate) ticket: i32,
    /// Whether no other packet was in progress when this one arrived.
    pub(crate) alone: bool,
    /// How many flows had been created, if none was being created when the packet arrived.
    pub(crate) made: Option<i32>,
    /// The prediction.
    pub(crate) forecast: Forecast,
    /// The run of verify mode that this belongs to.
    run: u32,
}

/// A prediction.
#[derive(Clone, Copy)]
pub(crate) enum Forecast {
    /// The packet belongs to a known connection.
    Known(Prediction),
    /// The packet's connection is in no table.
    Unknown,
    /// Nothing can be predicted.
    Anything,
}

/// A packet's connection, and the connection's state after the packet.
#[derive(Clone, Copy)]
pub(crate) struct Prediction {
    /// The connection.
    pub(crate) ct: ConnId,
    /// The number of its flow.
    pub(crate) flow: u32,
    /// The direction in which the packet goes.
    pub(crate) dir: Dir,
    /// The TCP state; `None` for UDP.
    pub(crate) tcp: Option<Tracking>,
    /// The timeout, in jiffies.
    pub(crate) timeout: u32,
}

/// Operations that begin and end.
pub(crate) struct Span {
    begun: Atomic<i32>,
    ended: Atomic<i32>,
}

impl Span {
    const fn new() -> Self {
        Self {
            begun: Atomic::new(0),
            ended: Atomic::new(0),
        }
    }

    fn reset(&self) {
        self.begun.store(0, Relaxed);
        self.ended.store(0, Relaxed);
    }

    /// Returns how many operations have ended, if none is in progress.
    pub(crate) fn quiet(&self) -> Option<i32> {
        // ORDERING: Full, pairs with the read-modify-writes in `begin` and `end`. `ended` is read
        // first, so that an operation that begins in between is seen.
        let ended = self.ended.fetch_add(0, Full);
        (self.have_begun() == ended).then_some(ended)
    }

    /// Returns how many operations have begun.
    pub(crate) fn have_begun(&self) -> i32 {
        // ORDERING: Full, as in `quiet`: reads before this one are not delayed past it.
        self.begun.fetch_add(0, Full)
    }

    /// Begins an operation. Returns its number.
    pub(crate) fn begin(&self) -> i32 {
        self.begun.fetch_add(1, Full)
    }

    /// Ends an operation.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Full);
    }
}

/// The memory of verify mode.
pub(crate) struct Meter {
    expected: PerCpuCell<Expected>,
    /// The number of times that verify mode was enabled.
    run: Atomic<u32>,
    /// Packets between the two hooks.
    pub(crate) packets: Span,
    /// Flows that are being created.
    pub(crate) flows: Span,
}

impl Meter {
    /// Creates an empty meter. Process context.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            expected: PerCpuCell::new()?,
            run: Atomic::new(0),
            packets: Span::new(),
            flows: Span::new(),
        })
    }

    /// Forgets the packets that were in progress when verify mode ended. Process context; sleeps.
    pub(crate) fn reset(&self) {
        // Wait for hooks that still use the meter.
        synchronize_rcu();
        self.run.fetch_add(1, Relaxed);
        self.packets.reset();
        self.flows.reset();
    }

    /// Stores a prediction for this CPU's packet.
    pub(crate) fn predict(&self, skb: SkbId, at: u32, forecast: impl FnOnce() -> Forecast) {
        let made = self.flows.quiet();
        let before = self.packets.quiet();
        let ticket = self.packets.begin();
        let expected = Expected {
            skb,
            at,
            ticket,
            alone: before == Some(ticket),
            made,
            forecast: forecast(),
            run: self.run.load(Relaxed),
        };
        if self.exchange(Some(expected)).is_some() {
            // The earlier packet did not reach the second hook.
            self.packets.end();
        }
    }

    /// Takes the prediction of this CPU's last packet.
    pub(crate) fn take(&self) -> Option<Expected> {
        self.exchange(None)
    }

    /// Replaces the prediction. Returns the old one, unless it is of an earlier run.
    fn exchange(&self, new: Option<Expected>) -> Option<Expected> {
        let run = self.run.load(Relaxed);
        self.expected.replace(new).filter(|old| old.run == run)
    }
}
