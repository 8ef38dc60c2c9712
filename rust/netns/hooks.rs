// SPDX-License-Identifier: GPL-2.0

//! The hooks of a netns, chosen by its mode, and when the netns gets them and its state.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::Relaxed,
        rcu::read_lock,
        Arc,
        Mutex,
        SetOnce, //
    },
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use crate::{
    kapi::{
        net::{
            fib::Watch,
            netns::{Net, NetHandle, PreExit}, //
        },
        nf::hook::HookSet,
        sync::rcu::ReadSide, //
    },
    netns::{
        ingress::Devices,
        owner::Owner,
        stages::{Needs, Stage}, //
    },
    state::{
        settings::{Mode, SysctlValues},
        shared::Shared,
        NetState, //
    },
};

/// What is registered in a netns.
///
/// A netns is asleep until it forwards packets that conntrack tracks, or has a limit. Until then it
/// has no hook, no notifier and no state (unless setting a limit or waking it up failed), so it
/// costs nothing but its files. It does not fall asleep again.
struct Registered {
    /// `None` while there is no state.
    hooks: Option<HookSet<NetState>>,
    /// What the hooks are for.
    needs: Needs,
    /// The notifiers of routes. Kept once they are there, because they must not be unregistered in
    /// a call of netlink's notifier chain, where waking the netns up may fail.
    watch: Option<Watch<NetState>>,
    /// Whether the netns was woken up with all that it needs.
    awake: bool,
    /// Whether the netns ends, so that nothing may be registered any more.
    ended: bool,
}

impl Registered {
    /// Replaces the hooks by those for other needs. The other new hooks are registered before old
    /// ones are unregistered, so that no connection passes the limit of its zone meanwhile. A
    /// packet may be counted by both.
    fn switch(&mut self, new: Needs, state: &NetState) -> Result {
        let Some(hooks) = &mut self.hooks else {
            return Ok(());
        };
        hooks.retain(|id| new.has(id) || !Stage::excludes_others(id));
        if new.mode.verifies() && !self.needs.mode.verifies() {
            state.meter.reset();
        }
        for stage in new.stages() {
            stage.add(hooks)?;
        }
        hooks.retain(|id| new.has(id));
        self.needs = new;
        Ok(())
    }

    /// As `switch`. On an error, the hooks are those of before.
    fn try_switch(&mut self, new: Needs, state: &NetState) -> Result {
        let old = self.needs;
        self.switch(new, state).inspect_err(|_| {
            if let Some(hooks) = &mut self.hooks {
                hooks.retain(|id| old.has(id));
            }
            // If this fails too, a hook is missing, and packets take the kernel's path.
            let _ = self.switch(old, state);
        })
    }
}

/// The hooks of a netns, and what decides about them.
///
/// Teardown: the hooks and notifiers are freed before the state.
#[pin_data]
pub(super) struct Hooks {
    net: NetHandle,
    shared: Arc<Shared>,
    /// The sysctls.
    pub(super) sysctls: SysctlValues,
    /// Also serialises changes of the settings, and the creation of the state.
    #[pin]
    registered: Mutex<Registered>,
    owner: SetOnce<Owner>,
    /// Unregisters the notifiers. A work, so that the waits of many netns overlap.
    #[pin]
    ender: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Hooks { self.ender }
}

impl WorkItem for Hooks {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Not under the lock: closing the socket calls netlink's notifier chain, in which netns are
        // woken up.
        let watch = this.registered.lock().watch.take();
        drop(watch);
    }
}

impl Hooks {
    /// Creates the set, without hooks and without a state. Process context.
    pub(super) fn new(net: NetHandle, shared: Arc<Shared>) -> Result<Arc<Self>> {
        let registered = Registered {
            hooks: None,
            needs: Needs {
                mode: Mode::Off,
                limits: false,
            },
            watch: None,
            awake: false,
            ended: false,
        };
        Arc::pin_init(
            pin_init!(Self {
                net,
                sysctls: SysctlValues::new(&shared.defaults),
                shared,
                registered <- new_mutex!(registered, "netns::hooks"),
                owner: SetOnce::new(),
                ender <- new_delayed_work!("nf_zoneroute::end"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the netns.
    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    /// Returns the state of the netns, if there is one. Any context.
    pub(super) fn state(&self) -> Option<&Arc<NetState>> {
        Some(&self.owner.as_ref()?.state)
    }

    /// Returns the state of the netns, and creates it if there is none. Fails with `ENODEV` if the
    /// netns ends. Process context; sleeps.
    pub(super) fn get_or_make_state(&self) -> Result<&Arc<NetState>> {
        self.make_state(&mut self.registered.lock())
    }

    fn make_state(&self, registered: &mut Registered) -> Result<&Arc<NetState>> {
        if self.owner.as_ref().is_none() && !registered.ended {
            let owner = Owner::new(self.net, &self.shared)?;
            registered.hooks = Some(HookSet::new(self.net, owner.state.clone()));
            // `registered` is locked, so there is still none.
            self.owner.populate(owner);
        }
        self.state().ok_or(ENODEV)
    }

    /// Applies the sysctls. On an error, the hooks are those of before. Process context; sleeps.
    pub(super) fn apply_settings(&self) -> Result {
        let mut registered = self.registered.lock();
        let limits = registered.needs.limits;
        self.update(&mut registered, limits)
    }

    /// Makes packets pass the limits of their zones, from now on. Process context; sleeps.
    pub(super) fn enforce_limits(&self) -> Result {
        self.update(&mut self.registered.lock(), true)
    }

    /// Wakes the netns up if there is a reason to. If that fails, the netns stays off until an
    /// operator switches it on. Returns whether the netns is awake with all that it needs. Process
    /// context; sleeps.
    pub(super) fn wake(&self) -> bool {
        let mut registered = self.registered.lock();
        let registered = &mut *registered;
        if registered.awake {
            // From here on, only an operator changes what the netns does.
            return true;
        }
        let limits = registered.needs.limits;
        if let Err(err) = self.update(registered, limits) {
            if registered.needs.mode.is_on() {
                // What runs goes on without cached routes, as after `EBUSY`.
                return false;
            }
            self.sysctls.enable.store(0, Relaxed);
            pr_warn!(
                "stays off in the network namespace {}: error {}\n",
                self.net.inum(),
                err.to_errno()
            );
            // This only unregisters, which cannot fail.
            let _ = self.update(registered, limits);
        }
        registered.awake
    }

    fn update(&self, registered: &mut Registered, limits: bool) -> Result {
        if registered.ended {
            return Ok(());
        }
        let wanted = self.sysctls.wanted_mode();
        let is_awake = registered.awake || registered.needs.mode.is_on();
        let mut mode = if is_awake || (wanted.is_on() && (limits || self.has_work())) {
            wanted
        } else {
            Mode::Off
        };
        let state = if mode.is_on() {
            self.make_state(registered)?
        } else if let Some(state) = self.state() {
            state
        } else {
            return Ok(());
        };
        let settings = &state.settings;
        settings.set_max_age(self.sysctls.max_age());
        settings.set_learn_after(self.sysctls.learn_after());
        if mode.learns_jumps() {
            match state.jumps.prepare() {
                Err(err) if err == EOPNOTSUPP => mode = mode.without_jumps(),
                prepared => prepared?,
            }
        }
        if settings.set_marks(&self.sysctls) {
            state.jumps.forget();
        }
        let was_awake = registered.awake;
        if mode.is_on() && registered.watch.is_none() {
            match Watch::new(self.net, state.clone()) {
                Ok(watch) => registered.watch = Some(watch),
                // Routes change all the time. Cache none until the next try.
                Err(err) if err == EBUSY => mode = mode.without_routes(),
                Err(err) => return Err(err),
            }
        }
        registered.awake |= mode.is_on() && registered.watch.is_some();
        let needs = Needs { mode, limits };
        if registered.needs == needs {
            return Ok(());
        }
        let had_limits = registered.needs.limits && registered.needs.mode.is_on();
        let old = settings.mode();
        // The collector ends all flows while the mode is off.
        settings.set_mode(mode);
        registered.try_switch(needs, state).inspect_err(|_| {
            settings.set_mode(old);
            registered.awake = was_awake;
            self.switch_devices(old);
        })?;
        self.switch_devices(mode);
        if mode.jumps_at_ingress() {
            // The devices are those of packets that are observed from now on.
            state.jumps.forget();
        }
        if limits && mode.is_on() && !had_limits {
            // Connections that were confirmed while no packet passed the limits.
            state.flows.zones().count_present();
        }
        Ok(())
    }

    fn switch_devices(&self, mode: Mode) {
        match self.owner.as_ref() {
            Some(owner) if mode.jumps_at_ingress() => Devices::hook_later(owner.devices.clone()),
            Some(owner) => owner.devices.unhook(),
            None => (),
        }
    }

    fn has_work(&self) -> bool {
        let guard = read_lock();
        self.net.forwards_tracked(&ReadSide::of(&guard))
    }

    /// Unregisters the hooks for good, queues the end of the notifiers, and removes the flows.
    /// Process context.
    pub(super) fn end(this: &Arc<Self>, cx: &PreExit) {
        let mut registered = this.registered.lock();
        registered.ended = true;
        if let Some(hooks) = &mut registered.hooks {
            hooks.end(cx);
        }
        if let Some(state) = this.state() {
            state.settings.set_mode(Mode::Off);
        }
        if registered.watch.is_some() {
            // If the work is queued already, the reference is returned and dropped.
            let _ = this
                .shared
                .enders
                .enqueue_delayed::<Arc<Self>, 0>(this.clone(), 0);
        }
        drop(registered);
        if let Some(owner) = this.owner.as_ref() {
            owner.devices.end(cx);
        }
        if let Some(state) = this.state() {
            state.end_all();
        }
    }

    /// Cancels the works of the state, and removes the flows that packets in progress created after
    /// [`Self::end`]. Process context; sleeps.
    pub(super) fn finish(&self) {
        if let Some(owner) = self.owner.as_ref() {
            owner.finish();
        }
    }
}
