// SPDX-License-Identifier: GPL-2.0

//! Counts of the references that a netns holds.

use kernel::{error::Result, sync::atomic::Atomic};

use crate::kapi::sync::held::HeldCount;

/// How many references are held, counted where they are taken and given up. Both counts must return
/// to zero.
pub(crate) struct RefCounts {
    /// Flows: each holds a reference on its connection until it is removed.
    pub(crate) flows: Atomic<i64>,
    /// Slots, each of which holds a reference on its route.
    pub(crate) slots: HeldCount,
}

impl RefCounts {
    /// Returns zero counts. Process context.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            flows: Atomic::new(0),
            slots: HeldCount::new()?,
        })
    }
}
