// SPDX-License-Identifier: GPL-2.0

//! What a network namespace has: its state, and what makes the kernel use it.

pub(crate) mod command;
pub(crate) mod events;
pub(crate) mod proc;
pub(crate) mod sysctl;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc,
        ArcBorrow,
        Mutex, //
    },
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use crate::{
    flow::{
        handle::Salt,
        table::FlowTable,
        zone::Stock,
        Flow,
        Held, //
    },
    kapi::{
        entry::registry::{self, Entry},
        fs::{
            self,
            sysctl::Table, //
        },
        mem::slab::Cache,
        net::{
            fib::{self, Watch},
            netns::{self, Init, PerNet, PreExit}, //
        },
        nf::{
            conn::Dir,
            hook::{self, Family}, //
        },
        sync::{
            once::ReadOnce,
            percpu::Counters,
            rcu::ReadSide,
            time,
            work::{self, CancelOnDrop}, //
        },
    },
    path::{
        lookup::Lookup,
        serve,
        verify, //
    },
    route::{
        miss::Reason,
        slot::{Now, Slot}, //
    },
    state::stats::{Counter, Event},
    track::outcome::Outcome, //
};

/// What all netns share.
#[pin_data]
pub(crate) struct Shared {
    /// Memory of flows.
    pub(crate) flows: Cache<Entry<Flow>>,
    /// Memory of slots.
    pub(crate) slots: Cache<Slot>,
    /// Zones in stock.
    #[pin]
    pub(crate) stock: Stock,
    /// Whether a new netns starts switched on.
    enable: bool,
    #[pin]
    refill: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Shared { self.refill }
}

impl WorkItem for Shared {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Without memory it stays as it is until a zone is asked for again.
        let _ = this.stock.refill();
    }
}

impl Shared {
    /// While the module is loaded. Process context.
    pub(crate) fn new(enable: bool) -> Result<Arc<Self>> {
        registry::draw_secret();
        let shared = Arc::pin_init(
            try_pin_init!(Self {
                flows: Cache::new(c"nf_zoneroute_flow")?,
                slots: Cache::new(c"nf_zoneroute_slot")?,
                stock <- Stock::new(),
                enable,
                refill <- new_delayed_work!("nf_zoneroute::refill"),
            }),
            GFP_KERNEL,
        )?;
        shared.stock.refill()?;
        Ok(shared)
    }

    /// Has the stock of zones refilled, if somebody took one. Any context.
    pub(crate) fn refill_if_asked(this: &Arc<Self>) {
        if this.stock.was_asked() {
            // When it is queued already, the reference comes back and is dropped.
            let _ = work::system_dfl().enqueue_delayed::<Arc<Self>, 0>(this.clone(), 0);
        }
    }
}

/// The state of a netns, which hooks, files and the garbage collector share.
///
/// Fields that RCU callbacks touch (`held`) are reference-counted; the rest is dropped in process
/// context, after the callbacks: by [`NetNs`], whose last owner the netns core is.
#[pin_data]
pub(crate) struct NetState {
    /// sysctl `enable`: 0 or 1.
    pub(crate) enable: Atomic<u32>,
    /// sysctl `zone_lookup`: 0 or 1.
    pub(crate) zone_lookup: Atomic<u32>,
    /// sysctl `route_cache`: 0 or 1.
    pub(crate) route_cache: Atomic<u32>,
    /// sysctl `max_age_ms`.
    pub(crate) max_age_ms: Atomic<u32>,
    /// sysctl `verify`: 0 or 1.
    pub(crate) verify: Atomic<u32>,
    /// The netns is going.
    closing: Atomic<bool>,
    /// What the sysctls come to for packets: `ON` and so on.
    mode: Atomic<u32>,
    /// `max_age_ms` in jiffies.
    max_age: Atomic<u32>,
    /// How often something happened that may have changed a route.
    generation: Atomic<u32>,
    /// What happened last: a [`Reason`].
    cause: Atomic<i8>,
    /// How many changes of nexthop objects were announced.
    announced: Atomic<i32>,
    /// How many of those have taken effect for sure.
    settled: Atomic<i32>,
    /// Some of those that have not may be of buckets.
    moving: Atomic<bool>,
    /// The gateways of groups of nexthop objects, whose neighbours have a say in a route.
    pub(crate) gateways: fib::GatewaySet,
    /// All counters.
    pub(crate) counters: Counters<Counter>,
    /// What verify mode measures with.
    pub(crate) meter: verify::Meter,
    /// All flows.
    #[pin]
    pub(crate) flows: FlowTable,
    /// References held.
    pub(crate) held: Arc<Held>,
    /// What all netns share.
    pub(crate) shared: Arc<Shared>,
    /// The number at which the garbage collector goes on.
    collected: Atomic<u32>,
    /// What `mode` was when it ran.
    collected_mode: Atomic<u32>,
    #[pin]
    collector: DelayedWork<Self>,
    #[pin]
    settler: DelayedWork<Self, SETTLE>,
}

/// Bits of [`NetState::mode`]: packets are looked at; and looked up; and their routes are cached.
const ON: u32 = 1;
const LOOKING_UP: u32 = 2;
const CACHING: u32 = 4;

/// The numbers of the works.
const COLLECT: u64 = 0;
const SETTLE: u64 = 1;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, COLLECT> for NetState { self.collector }
    impl HasDelayedWork<Self, SETTLE> for NetState { self.settler }
}

/// How often the garbage collector runs while there is something to collect, in ms.
const COLLECT_MS: u32 = 1000;

/// How many flows it looks at in one go: few enough to cost next to nothing beside a million.
const COLLECT_MOST: usize = 16384;

/// How long after a nexthop object's change was announced it is waited for, in ms: with those that come
/// next, so that a thousand are waited for once.
const SETTLE_MS: u32 = 10;

impl NetState {
    fn new(init: &Init<'_>, shared: &Arc<Shared>) -> Result<Arc<Self>> {
        let gateways = fib::GatewaySet::new(init);
        let salt = Salt::new(time::random_u32());
        let held = Arc::new(Held::new(), GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                enable: Atomic::new(shared.enable.into()),
                zone_lookup: Atomic::new(1),
                route_cache: Atomic::new(1),
                max_age_ms: Atomic::new(1000),
                verify: Atomic::new(0),
                closing: Atomic::new(false),
                mode: Atomic::new(0),
                max_age: Atomic::new(0),
                generation: Atomic::new(0),
                cause: Atomic::new(Reason::Empty.as_raw()),
                announced: Atomic::new(0),
                settled: Atomic::new(0),
                moving: Atomic::new(false),
                gateways,
                counters: Counters::new()?,
                meter: verify::Meter::new()?,
                flows <- FlowTable::new(salt),
                held,
                shared: shared.clone(),
                collected: Atomic::new(0),
                collected_mode: Atomic::new(0),
                collector <- new_delayed_work!("nf_zoneroute::collect"),
                settler <- new_delayed_work!("nf_zoneroute::settle"),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes over what the sysctls say. By one at a time.
    fn follow(&self) {
        let is = |sysctl: &Atomic<u32>, bit| if sysctl.load(Relaxed) != 0 { bit } else { 0 };
        let mode = if is(&self.enable, ON) == 0 || self.closing.load(Relaxed) {
            0
        } else {
            ON | is(&self.zone_lookup, LOOKING_UP) | is(&self.route_cache, CACHING)
        };
        self.mode.store(mode, Relaxed);
        self.max_age
            .store(time::from_ms(self.max_age_ms.load(Relaxed)), Relaxed);
    }

    fn is(&self, bit: u32) -> bool {
        self.mode.read_once() & bit != 0
    }

    /// Whether packets are looked at.
    pub(crate) fn is_on(&self) -> bool {
        self.is(ON)
    }

    /// Whether routes are cached.
    pub(crate) fn is_caching(&self) -> bool {
        self.is(CACHING)
    }

    /// Whether packets are looked up in their zone's table. Where nothing is tracked there is none.
    pub(crate) fn is_looking_up(&self) -> bool {
        self.is(LOOKING_UP) && self.held.flows.read_once() != 0
    }

    /// Whether nothing is done to packets, but said what would have been.
    pub(crate) fn is_verifying(&self) -> bool {
        self.meter.is_on() && self.is_on()
    }

    /// What a slot is measured against now.
    pub(crate) fn now(&self) -> Now {
        Now {
            jiffies: time::jiffies32(),
            // ORDERING: Acquire, of `invalidate`: the lookup that follows sees what was announced.
            generation: self.generation.load(Acquire),
            cause: self.cause.read_once(),
            max_age: self.max_age.read_once(),
        }
    }

    /// Counts a packet by what its lookup came to.
    pub(crate) fn count_lookup(&self, outcome: Outcome) {
        self.counters.inc(Counter::Lookup(outcome));
    }

    /// Counts a packet by what it came to.
    pub(crate) fn count_packet(&self, reason: Reason) {
        self.counters.inc(Counter::Packet(reason));
    }

    /// Counts an event.
    pub(crate) fn count(&self, event: Event) {
        self.counters.inc(Counter::Event(event));
    }

    /// Makes every slot old. Any context.
    pub(crate) fn invalidate(&self, why: Event, cause: Reason) {
        self.cause.store(cause.as_raw(), Relaxed);
        // ORDERING: Release, to `now`.
        self.generation.fetch_add(1, Release);
        self.count(why);
    }

    /// Makes every slot old, and keeps new ones from being made until the change of a nexthop object
    /// that was announced has taken effect: no route becomes obsolete by it. Any context.
    pub(crate) fn unsettle(this: ArcBorrow<'_, Self>, bucket: bool) {
        if bucket {
            this.moving.store(true, Relaxed);
        }
        // ORDERING: Release, to `settle`.
        this.announced.fetch_add(1, Release);
        // Release: who sees the generation sees that it is unsettled.
        this.invalidate(Event::NexthopChange, Reason::NexthopChanged);
        // When it is queued already, the reference comes back and is dropped.
        let _ = work::system_dfl()
            .enqueue_delayed::<Arc<Self>, SETTLE>(this.into(), time::work_delay(SETTLE_MS));
    }

    /// Whether no nexthop object is being changed. To be asked after the lookup.
    pub(crate) fn is_settled(&self) -> bool {
        // ORDERING: Acquire, of `settle`: who sees it settled sees that the generation is another.
        self.settled.load(Acquire) == self.announced.load(Relaxed)
    }

    /// What was announced before has taken effect after this. Process context; sleeps.
    fn settle(&self) {
        // ORDERING: Acquire, of `unsettle`: who sees it announced sees that it is a bucket's.
        let announced = self.announced.load(Acquire);
        self.gateways.settle(self.moving.xchg(false, Relaxed));
        // ORDERING: Release, to `now`.
        self.generation.fetch_add(1, Release);
        // ORDERING: Release, to `is_settled`.
        self.settled.store(announced, Release);
    }

    /// Drops the slots that `bad` has something against, and remembers what. Process context.
    pub(crate) fn purge(&self, event: Event, bad: impl Fn(&Slot, &ReadSide<'_>) -> Option<Reason>) {
        self.flows.for_each(|flow, rcu| {
            self.purge_flow(flow, rcu, event, &bad);
        });
    }

    /// Whether there was anything to drop.
    fn purge_flow(
        &self,
        flow: &Entry<Flow>,
        rcu: &ReadSide<'_>,
        event: Event,
        bad: impl Fn(&Slot, &ReadSide<'_>) -> Option<Reason>,
    ) -> bool {
        let mut any = false;
        for dir in Dir::ALL {
            for why in flow.direction(dir).purge(rcu, |slot| bad(slot, rcu)) {
                flow.note(dir, why);
                self.count(event);
                any = true;
            }
        }
        any
    }

    /// Has the garbage collector run in a second, unless it will anyway. Any context.
    pub(crate) fn arm(this: ArcBorrow<'_, Self>) {
        // When it is queued already, the reference comes back and is dropped.
        let _ = work::system_dfl()
            .enqueue_delayed::<Arc<Self>, COLLECT>(this.into(), time::work_delay(COLLECT_MS));
    }

    /// Ends every flow. Process context.
    fn end_all(&self) {
        self.flows.for_each(|flow, rcu| {
            self.flows.kill(flow, rcu);
        });
    }

    /// Ends what has ended, and drops what is of no use. Whether anything is left.
    ///
    /// Goes on where it was last time, until it has looked at [`COLLECT_MOST`], and further as long as
    /// there is much to collect, where conntrack needs room, or if a sysctl changed.
    fn collect(&self) -> bool {
        let mode = self.mode.load(Relaxed);
        let changed = self.collected_mode.xchg(mode, Relaxed) != mode;
        let mut from = if changed {
            0
        } else {
            self.collected.load(Relaxed)
        };
        loop {
            let (next, go_on) = self.collect_some(from);
            from = next.unwrap_or(0);
            if from == 0 || !(changed || go_on) {
                break;
            }
        }
        self.collected.store(from, Relaxed);
        let zones = self.flows.zones().collect();
        self.held.flows.load(Relaxed) != 0 || zones != 0
    }

    /// Looks at [`COLLECT_MOST`] flows: where to go on, and whether that should not wait.
    fn collect_some(&self, from: u32) -> (Option<u32>, bool) {
        let (on, caching, now) = (self.is_on(), self.is_caching(), self.now());
        let mut tracking = None;
        let (mut scarce, mut bad): (Option<bool>, usize) = (None, 0);
        let next = self.flows.for_some(from, COLLECT_MOST, |flow, rcu| {
            let ct = flow.conn();
            // Asked once: all flows are of one netns.
            let [ipv4, ipv6] = *tracking
                .get_or_insert_with(|| Family::ALL.map(|family| ct.net().is_tracking(family, rcu)));
            let scarce = *scarce.get_or_insert_with(|| ct.net().is_conntrack_scarce());
            let tracked = match (ipv4, ipv6) {
                (true, true) => true,
                (false, false) => false,
                _ => ipv6 == (ct.family() == Family::Ipv6),
            };
            let end = |event| {
                let ended = self.flows.kill(flow, rcu);
                if ended {
                    self.count(event);
                }
                ended
            };
            let any = if ct.is_gone() {
                end(Event::FlowGone)
            } else if scarce && !ct.is_assured() {
                end(Event::FlowScarce)
            } else if !tracked {
                end(Event::FlowUntracked)
            } else if !on {
                end(Event::FlowDisabled)
            } else if !caching {
                self.purge_flow(flow, rcu, Event::SlotDisabled, |_, _| Some(Reason::Empty))
            } else {
                // An idle flow must not keep a route that the kernel wants to be rid of.
                self.purge_flow(flow, rcu, Event::SlotObsolete, |slot, rcu| {
                    slot.obsolete(now, rcu)
                })
            };
            bad = bad.saturating_add(usize::from(any));
        });
        (next, scarce == Some(true) || bad >= COLLECT_MOST / 8)
    }
}

impl WorkItem<SETTLE> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.settle();
    }
}

impl WorkItem<COLLECT> for NetState {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.collect() {
            Self::arm(this.as_arc_borrow());
        }
    }
}

/// All that a netns has of us.
///
/// Teardown: `pre_exit` switches off, unregisters the hooks and the notifiers and ends the flows; a
/// grace period; `exit` cancels the works (waiting for them) and ends the flows that packets on their
/// way still made; `rcu_barrier()`; then the fields drop in order: the files and sysctls (waiting for
/// who is in one), the hooks' and notifiers' memory, the state with its empty tables.
pub(crate) struct NetNs {
    _files: fs::proc::Dir<NetState>,
    _sysctls: Table<Hooks>,
    _verify_sysctl: Table<verify::Hooks>,
    hooks: Arc<Hooks>,
    verify: Arc<verify::Hooks>,
    watch: Watch<NetState>,
    settler: CancelOnDrop<NetState, SETTLE>,
    collector: CancelOnDrop<NetState, COLLECT>,
    pub(crate) state: Arc<NetState>,
}

/// The hooks of a netns that packets are looked at by, which are there while it is switched on.
#[pin_data]
pub(crate) struct Hooks {
    state: Arc<NetState>,
    lookup: Both<Lookup>,
    consume: Both<serve::Consume>,
    commit: Both<serve::Commit>,
    /// Held by who switches something.
    #[pin]
    switch: Mutex<()>,
}

impl Hooks {
    /// In a netns that is being set up, none there yet. Process context.
    fn new(init: &Init<'_>, state: &Arc<NetState>) -> Result<Arc<Self>> {
        let commit = Both::new(init, state)?;
        let consume = Both::new(init, state)?;
        let lookup = Both::new(init, state)?;
        Arc::pin_init(
            pin_init!(Self {
                state: state.clone(),
                lookup,
                consume,
                commit,
                switch <- new_mutex!((), "netns::Hooks"),
            }),
            GFP_KERNEL,
        )
    }

    /// What the sysctls are about.
    pub(crate) fn state(&self) -> &NetState {
        &self.state
    }

    /// Does what the sysctls say. Process context; sleeps.
    pub(crate) fn follow(&self) -> Result {
        let _switch = self.switch.lock();
        self.state.follow();
        let on = self.state.is_on();
        self.set(on).inspect_err(|_| {
            // Off, as the sysctl will be again. Taking hooks away does not fail.
            self.state.mode.store(0, Relaxed);
            let _ = self.set(false);
        })
    }

    fn set(&self, on: bool) -> Result {
        // What a hook leaves to the next one, that must be there for.
        self.commit.set(on)?;
        self.consume.set(on)?;
        self.lookup.set(on)
    }

    /// Process context.
    fn unregister(&self, cx: &PreExit) {
        let _switch = self.switch.lock();
        self.state.closing.store(true, Relaxed);
        self.state.follow();
        self.lookup.unregister(cx);
        self.consume.unregister(cx);
        self.commit.unregister(cx);
    }
}

/// A hook for both families.
struct Both<H: hook::Hook>([hook::Registration<H>; 2]);

impl<H: hook::Hook> Both<H> {
    fn new(init: &Init<'_>, data: &Arc<H::Data>) -> Result<Self> {
        Ok(Self([
            hook::Registration::new(init, Family::Ipv4, data.clone())?,
            hook::Registration::new(init, Family::Ipv6, data.clone())?,
        ]))
    }

    fn set(&self, on: bool) -> Result {
        self.0.iter().try_for_each(|hook| hook.set(on))
    }

    fn unregister(&self, cx: &PreExit) {
        for hook in &self.0 {
            hook.unregister(cx);
        }
    }
}

static SUBSYS: netns::Subsys<NetNs> = netns::Subsys::new();

impl PerNet for NetNs {
    type Shared = Shared;

    fn subsys() -> &'static netns::Subsys<Self> {
        &SUBSYS
    }

    fn init(init: &Init<'_>, shared: &Arc<Shared>) -> Result<KBox<Self>> {
        let state = NetState::new(init, shared)?;
        // Dropped last but for the state if something below fails.
        let collector = CancelOnDrop(state.clone());
        let settler = CancelOnDrop(state.clone());
        let files = proc::files(init, state.clone())?;
        let hooks = Hooks::new(init, &state)?;
        let sysctls = sysctl::table(init, hooks.clone())?;
        let verify = verify::Hooks::new(init, state.clone())?;
        let verify_sysctl = sysctl::verify(init, verify.clone())?;
        let watch = Watch::new(init, state.clone())?;
        hooks.follow()?;
        Ok(KBox::new(
            Self {
                _files: files,
                _sysctls: sysctls,
                _verify_sysctl: verify_sysctl,
                hooks,
                verify,
                watch,
                settler,
                collector,
                state,
            },
            GFP_KERNEL,
        )?)
    }

    fn pre_exit(&self, cx: &PreExit) {
        self.hooks.unregister(cx);
        self.verify.unregister(cx);
        self.watch.unregister(cx);
        self.state.end_all();
    }

    fn exit(&self) {
        self.settler.cancel();
        self.collector.cancel();
        self.state.end_all();
    }
}
