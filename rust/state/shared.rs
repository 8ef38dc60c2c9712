// SPDX-License-Identifier: GPL-2.0

//! The memory that all netns share.

use kernel::{
    prelude::*,
    sync::Arc,
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use crate::{
    flow::{
        table::Allocators,
        zone::stock::Stock,
        Flow, //
    },
    kapi::{
        entry::{table, Entry},
        mem::slab::Cache,
        sync::work::{self, OwnedQueue}, //
    },
    route::{pass::Pass, slot::Slot},
    state::settings::Defaults, //
};

/// How many netns wait for the end of their notifiers at a time: enough that the grace periods of a
/// thousand netns take less than a second.
const ENDERS: i32 = 64;

/// The caches of flows and slots, and the stock of zones.
#[pin_data]
pub(crate) struct Shared {
    flows: Cache<Entry<Flow>>,
    /// The cache of slots.
    pub(crate) slots: Cache<Slot>,
    /// The cache of passes.
    pub(crate) passes: Cache<Pass>,
    #[pin]
    stock: Stock,
    /// Where the netns wait for the end of their notifiers.
    pub(crate) enders: OwnedQueue,
    /// The sysctls with which a netns begins.
    pub(crate) defaults: Defaults,
    #[pin]
    refill: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Shared { self.refill }
}

impl WorkItem for Shared {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Without memory the stock stays as it is until a zone is asked for again.
        let _ = this.stock.refill();
    }
}

impl Shared {
    /// Creates the caches and fills the stock. Called once, while the module is loaded. Process
    /// context.
    pub(crate) fn new(defaults: Defaults) -> Result<Arc<Self>> {
        table::draw_secret();
        let shared = Arc::pin_init(
            try_pin_init!(Self {
                flows: Cache::new(c"nf_zoneroute_flow")?,
                slots: Cache::new(c"nf_zoneroute_slot")?,
                passes: Cache::new(c"nf_zoneroute_pass")?,
                stock <- Stock::new(),
                enders: OwnedQueue::new(c"nf_zoneroute_end", ENDERS)?,
                defaults,
                refill <- new_delayed_work!("nf_zoneroute::refill"),
            }),
            GFP_KERNEL,
        )?;
        shared.stock.refill()?;
        Ok(shared)
    }

    /// Returns the memory for flows.
    pub(crate) fn allocators(&self) -> Allocators<'_> {
        Allocators {
            flows: &self.flows,
            zones: &self.stock,
        }
    }

    /// Queues a refill of the stock if a zone was taken. Any context.
    pub(crate) fn refill_if_asked(this: &Arc<Self>) {
        if this.stock.was_asked() {
            // If the work is queued already, the reference is returned and dropped.
            let _ = work::system_dfl().enqueue_delayed::<Arc<Self>, 0>(this.clone(), 0);
        }
    }
}
