// SPDX-License-Identifier: GPL-2.0

//! Recording the firewall for [`Jumps`].
//!
//! [`Jumps`]: crate::state::jump::Jumps

use kernel::sync::{rcu::synchronize_rcu, Arc, ArcBorrow};

use crate::{
    kapi::{
        net::family::Family,
        sync::{time, work}, //
    },
    state::{stats::Event, NetState, EPOCH},
};

/// Delay before a changed firewall is recorded, in ms: batches bursts of changes.
const EPOCH_MS: u32 = 10;

impl NetState {
    /// Queues the recording of changed firewalls. Any context.
    #[cold]
    pub(crate) fn record_rules_later(this: ArcBorrow<'_, Self>) {
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl()
            .enqueue_delayed::<Arc<Self>, EPOCH>(this.into(), time::work_delay(EPOCH_MS));
    }

    /// Records the firewalls that have changed. Process context; sleeps. Where that fails, the next
    /// packet that could jump asks again.
    pub(super) fn record_rules(&self) {
        let recorded = Family::ALL.map(|family| {
            let ruleset = self.jumps.record(&self.net, family).ok().flatten();
            ruleset.map(|ruleset| (family, ruleset))
        });
        if recorded.iter().all(Option::is_none) {
            return;
        }
        synchronize_rcu();
        for (family, ruleset) in recorded.into_iter().flatten() {
            if let Ok(true) = self.jumps.publish(&self.net, family, ruleset) {
                self.stats.count(Event::RulesRecorded);
            }
        }
    }
}
