// SPDX-License-Identifier: GPL-2.0

//! The state of a netns, which its hooks, files and works share. Knows no hook.

pub(crate) mod collector;
mod firewall;
pub(crate) mod jump;
pub(crate) mod meter;
pub(crate) mod reach;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod validity;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        ArcBorrow, //
    },
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
        net::{dst::Dst, netns::NetHandle, prefix::Ends},
        nf::{conn::Dir, pending::Pending},
        sync::{
            rcu::ReadSide,
            time,
            work, //
        },
    },
    refs::RefCounts,
    route::{
        miss::Miss,
        slot::{Changes, Slot},
        stamp::{Facts, Stamp}, //
    },
    state::{
        jump::Jumps,
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
/// The fields are dropped in process context, by the owner of the netns' [`PerNet`] value, after
/// all callbacks of RCU, which still count in `refs`.
///
/// [`PerNet`]: crate::kapi::net::netns::PerNet
#[pin_data]
pub(crate) struct NetState {
    /// The netns.
    pub(crate) net: NetHandle,
    /// The settings that are in force.
    pub(crate) settings: Settings,
    /// The validity of cached routes.
    #[pin]
    pub(crate) validity: Validity,
    /// The counters.
    pub(crate) stats: Stats,
    /// The memory of verify mode.
    pub(crate) meter: Meter,
    /// The packets of each CPU that have something to commit.
    pub(crate) pending: Pending,
    /// What jumps need.
    pub(crate) jumps: Jumps,
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
    gone_devices: DeviceSet,
    #[pin]
    purger: DelayedWork<Self, PURGE>,
    #[pin]
    recorder: DelayedWork<Self, EPOCH>,
}

/// The numbers of the works.
pub(crate) const COLLECT: u64 = 0;
pub(crate) const SETTLE: u64 = 1;
pub(crate) const SWEEP: u64 = 2;
pub(crate) const PURGE: u64 = 3;
pub(crate) const EPOCH: u64 = 4;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, COLLECT> for NetState { self.collector }
    impl HasDelayedWork<Self, SETTLE> for NetState { self.settler }
    impl HasDelayedWork<Self, SWEEP> for NetState { self.sweeper }
    impl HasDelayedWork<Self, PURGE> for NetState { self.purger }
    impl HasDelayedWork<Self, EPOCH> for NetState { self.recorder }
}

/// The interval of the collector while there is something to collect, in ms.
const COLLECT_MS: u32 = 1000;

/// Delay before waiting for an announced change of a nexthop object, in ms; batches bursts into one
/// wait.
const SETTLE_MS: u32 = 10;

/// Delay before a sweep, in ms: each end of a connection may ask for one, and it should take only a
/// small share of a CPU.
const SWEEP_MS: u32 = 50;

/// Delay before the routes of a device that went are removed, in ms: batches the ends of devices.
const PURGE_MS: u32 = 10;

impl NetState {
    /// Creates the state of a netns. Process context.
    pub(crate) fn new(net: NetHandle, shared: &Arc<Shared>) -> Result<Arc<Self>> {
        let salt = Salt::new(time::random_u32());
        let refs = Arc::new(RefCounts::new()?, GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                validity <- Validity::new(net),
                flows <- FlowTable::new(net, salt, refs.clone()),
                net,
                settings: Settings::new(),
                stats: Stats::new()?,
                meter: Meter::new()?,
                pending: Pending::new()?,
                jumps: Jumps::new(),
                refs,
                shared: shared.clone(),
                collected: Collected::new(),
                collector <- new_delayed_work!("nf_zoneroute::collect"),
                settler <- new_delayed_work!("nf_zoneroute::settle"),
                sweeper <- new_delayed_work!("nf_zoneroute::sweep"),
                gone_devices: DeviceSet::new(),
                purger <- new_delayed_work!("nf_zoneroute::purge"),
                recorder <- new_delayed_work!("nf_zoneroute::record_rules"),
            }),
            GFP_KERNEL,
        )
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
        bad: impl Fn(Dir, &Slot) -> Option<Miss>,
    ) -> bool {
        let dropped = flow.purge(rcu, bad);
        self.stats
            .count_many(event, u32::try_from(dropped).unwrap_or(u32::MAX));
        dropped != 0
    }

    /// Notes that a device went, and queues the removal of its routes. The kernel has given these
    /// routes another device, so they do not keep this one. Any context.
    pub(crate) fn device_gone(this: ArcBorrow<'_, Self>, ifindex: u32) {
        if this.refs.slots.count() == 0 {
            return;
        }
        this.gone_devices.add(ifindex);
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl()
            .enqueue_delayed::<Arc<Self>, PURGE>(this.into(), time::work_delay(PURGE_MS));
    }

    /// Drops the routes of devices that went. Process context; lets other tasks run.
    fn drop_routes_of_gone_devices(&self) {
        let gone = self.gone_devices.take();
        self.flows.for_each(|flow, rcu| {
            self.drop_passes(flow, self.settings.mode(), rcu);
            self.drop_routes(flow, Event::SlotDeviceGone, rcu, |_, slot| {
                let is_gone =
                    |ifindex| gone.has(ifindex) && self.net.ifname(ifindex, rcu).is_none();
                slot.devices()
                    .into_iter()
                    .any(is_gone)
                    .then_some(Miss::DeviceGone)
            });
        });
    }
}

impl Changes for NetState {
    #[inline(always)]
    fn facts(&self) -> Facts {
        self.validity.facts(self.settings.max_age())
    }

    fn spare(&self, stamp: &Stamp, dst: &Dst, ends: impl FnOnce() -> Ends) -> Option<u32> {
        let genid = self.validity.changes.spare(stamp, dst, ends)?;
        self.stats.count(Event::Spared);
        Some(genid)
    }
}

/// A set of devices, which may seem to contain others too.
struct DeviceSet([Atomic<u64>; Self::WORDS]);

impl DeviceSet {
    const WORDS: usize = 16;

    fn new() -> Self {
        Self([const { Atomic::new(0) }; Self::WORDS])
    }

    /// Returns the word and the bit of a device.
    fn place(&self, ifindex: u32) -> Option<(&Atomic<u64>, u64)> {
        let word = usize::try_from(ifindex / u64::BITS).ok()? % Self::WORDS;
        Some((self.0.get(word)?, 1 << (ifindex % u64::BITS)))
    }

    fn add(&self, ifindex: u32) {
        if let Some((word, bit)) = self.place(ifindex) {
            let mut old = word.load(Relaxed);
            while let Err(now) = word.cmpxchg(old, old | bit, Relaxed) {
                old = now;
            }
        }
    }

    fn has(&self, ifindex: u32) -> bool {
        self.place(ifindex)
            .is_some_and(|(word, bit)| word.load(Relaxed) & bit != 0)
    }

    /// Empties the set, and returns what it contained.
    fn take(&self) -> Self {
        let taken = Self::new();
        for (from, to) in self.0.iter().zip(&taken.0) {
            to.store(from.xchg(0, Relaxed), Relaxed);
        }
        taken
    }
}

impl WorkItem<SETTLE> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.validity.settle();
    }
}

impl WorkItem<PURGE> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.drop_routes_of_gone_devices();
    }
}

impl WorkItem<EPOCH> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.record_rules();
    }
}

impl WorkItem<SWEEP> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.sweep(collector::FLOWS_PER_PASS);
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
