// SPDX-License-Identifier: GPL-2.0

//! The state of a netns, which its hooks, files and works share. Knows no hook.

mod collector;
pub(crate) mod meter;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod validity;

use kernel::{
    prelude::*,
    sync::{atomic::Atomic, Arc, ArcBorrow},
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use crate::{
    flow::{
        handle::Salt,
        table::FlowTable,
        Flow, //
    },
    kapi::{
        entry::Entry,
        net::netns::NetHandle,
        nf::served::Served,
        sync::{
            rcu::ReadSide,
            time,
            work, //
        },
    },
    refs::RefCounts,
    route::{
        miss::Miss,
        slot::Slot,
        stamp::Facts, //
    },
    state::{
        meter::Meter,
        settings::{Mode, Settings},
        shared::Shared,
        stats::{Event, Stats},
        validity::{Change, Validity}, //
    },
};

/// How far the collector has come.
struct Collected {
    /// The number of the flow at which to continue.
    next: Atomic<u32>,
    /// The same for [`NetState::make_room`].
    looked: Atomic<u32>,
    /// The same for [`NetState::sweep`].
    swept: Atomic<u32>,
    /// The [`Mode`] of the last pass.
    mode: Atomic<u32>,
}

impl Collected {
    const fn new() -> Self {
        Self {
            next: Atomic::new(0),
            looked: Atomic::new(0),
            swept: Atomic::new(0),
            mode: Atomic::new(Mode::Off.as_raw()),
        }
    }
}

/// The state of a netns.
///
/// RCU callbacks use `refs`, which is therefore reference-counted. The other fields are dropped in
/// process context after the callbacks, by the owner of the netns' [`PerNet`] value.
///
/// [`PerNet`]: crate::kapi::net::netns::PerNet
#[pin_data]
pub(crate) struct NetState {
    /// The netns.
    pub(crate) net: NetHandle,
    /// The sysctls.
    pub(crate) settings: Settings,
    /// The validity of cached routes.
    pub(crate) validity: Validity,
    /// The counters.
    pub(crate) stats: Stats,
    /// The memory of verify mode.
    pub(crate) meter: Meter,
    /// The packets that each CPU served.
    pub(crate) served: Served,
    /// The flows.
    #[pin]
    pub(crate) flows: FlowTable,
    /// The references that are held.
    pub(crate) refs: Arc<RefCounts>,
    /// The memory that all netns share.
    pub(crate) shared: Arc<Shared>,
    collected: Collected,
    #[pin]
    collector: DelayedWork<Self, COLLECT>,
    #[pin]
    settler: DelayedWork<Self, SETTLE>,
    #[pin]
    sweeper: DelayedWork<Self, SWEEP>,
}

/// The numbers of the works.
pub(crate) const COLLECT: u64 = 0;
pub(crate) const SETTLE: u64 = 1;
pub(crate) const SWEEP: u64 = 2;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, COLLECT> for NetState { self.collector }
    impl HasDelayedWork<Self, SETTLE> for NetState { self.settler }
    impl HasDelayedWork<Self, SWEEP> for NetState { self.sweeper }
}

/// The interval of the collector while there is something to collect, in ms.
const COLLECT_MS: u32 = 1000;

/// Delay before waiting for an announced change of a nexthop object, in ms; batches bursts into one
/// wait.
const SETTLE_MS: u32 = 10;

/// Delay before a sweep, in ms: sweeps take a bounded share of a CPU, although each end of a
/// connection may ask for one.
const SWEEP_MS: u32 = 10;

impl NetState {
    /// Creates the state of a netns that is being set up. Process context.
    pub(crate) fn new(net: NetHandle, shared: &Arc<Shared>) -> Result<Arc<Self>> {
        let salt = Salt::new(time::random_u32());
        let refs = Arc::new(RefCounts::new(), GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                validity: Validity::new(net),
                flows <- FlowTable::new(net, salt, refs.clone()),
                net,
                settings: Settings::new(shared.enable),
                stats: Stats::new()?,
                meter: Meter::new()?,
                served: Served::new()?,
                refs,
                shared: shared.clone(),
                collected: Collected::new(),
                collector <- new_delayed_work!("nf_zoneroute::collect"),
                settler <- new_delayed_work!("nf_zoneroute::settle"),
                sweeper <- new_delayed_work!("nf_zoneroute::sweep"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the facts that the stamps of routes are checked against. To be called before a
    /// lookup.
    #[inline(always)]
    pub(crate) fn facts(&self) -> Facts {
        self.validity.facts(self.settings.max_age())
    }

    /// Invalidates all routes because of a change. Any context.
    pub(crate) fn announce(&self, change: Change) {
        self.validity.announce(change);
        self.stats.count(change.event());
    }

    /// Queues the wait for announced changes of nexthop objects. Any context.
    pub(crate) fn settle_later(this: ArcBorrow<'_, Self>) {
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl()
            .enqueue_delayed::<Arc<Self>, SETTLE>(this.into(), time::work_delay(SETTLE_MS));
    }

    /// Queues a run of the collector. Any context.
    pub(crate) fn collect_later(this: ArcBorrow<'_, Self>) {
        let delay = time::work_delay(COLLECT_MS);
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl().enqueue_delayed::<Arc<Self>, COLLECT>(this.into(), delay);
    }

    /// Queues a sweep for connections that died. Any context.
    pub(crate) fn sweep_soon(this: ArcBorrow<'_, Self>) {
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl()
            .enqueue_delayed::<Arc<Self>, SWEEP>(this.into(), time::work_delay(SWEEP_MS));
    }

    /// Drops the routes of a flow for which `bad` returns a reason. Counts `event` for each.
    /// Returns whether there were any. Any context.
    pub(crate) fn drop_routes(
        &self,
        flow: &Entry<Flow>,
        event: Event,
        rcu: &ReadSide<'_>,
        bad: impl Fn(&Slot) -> Option<Miss>,
    ) -> bool {
        let dropped = flow.purge(rcu, bad);
        self.stats
            .count_many(event, u32::try_from(dropped).unwrap_or(u32::MAX));
        dropped != 0
    }

    /// Drops the routes that use a device which is going. Process context; lets other tasks run.
    pub(crate) fn drop_routes_on(&self, ifindex: u32) {
        self.flows.for_each(|flow, rcu| {
            self.drop_routes(flow, Event::SlotDeviceGone, rcu, |slot| {
                slot.is_on(ifindex).then_some(Miss::DeviceGone)
            });
        });
    }
}

impl WorkItem<SETTLE> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.validity.settle();
    }
}

impl WorkItem<SWEEP> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.sweep();
    }
}

impl WorkItem<COLLECT> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.collect() {
            Self::collect_later(this.as_arc_borrow());
        }
    }
}
