// SPDX-License-Identifier: GPL-2.0

//! The hooks of a netns, chosen by its mode.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex}, //
};

use crate::{
    kapi::{
        net::netns::PreExit,
        nf::hook::HookSet, //
    },
    path::{
        commit::Commit,
        lookup::Lookup,
        verify::{
            AdmitAndPredict,
            CommitWatched,
            Compare,
            CompareRoute,
            Predict, //
        },
        Admit,
        AdmitAndServe, //
    },
    state::{settings::Mode, NetState}, //
};

/// A hook. The constants of the hooks are explained at their types.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Stage {
    Lookup,
    LookupNotes,
    Admit,
    AdmitAndServe,
    Commit,
    CommitSkips,
    Predict,
    Compare,
    AdmitAndPredict,
    CompareRoute,
    CommitWatched,
    CommitWatchedSkips,
}

impl Stage {
    /// The hooks just before conntrack, and the comparison that belongs to one of them. A packet
    /// must not pass two of the former.
    const AROUND_CONNTRACK: [Self; 4] = [
        Self::Lookup,
        Self::LookupNotes,
        Self::Predict,
        Self::Compare,
    ];

    /// Registers the hook, unless it is registered.
    fn add(self, hooks: &mut HookSet<NetState>) -> Result {
        // CAST: The variant's number.
        let id = self as u32;
        match self {
            Self::Lookup => hooks.add::<Lookup<false>>(id),
            Self::LookupNotes => hooks.add::<Lookup<true>>(id),
            Self::Admit => hooks.add::<Admit>(id),
            Self::AdmitAndServe => hooks.add::<AdmitAndServe>(id),
            Self::Commit => hooks.add::<Commit<false>>(id),
            Self::CommitSkips => hooks.add::<Commit<true>>(id),
            Self::Predict => hooks.add::<Predict>(id),
            Self::Compare => hooks.add::<Compare>(id),
            Self::AdmitAndPredict => hooks.add::<AdmitAndPredict>(id),
            Self::CompareRoute => hooks.add::<CompareRoute>(id),
            Self::CommitWatched => hooks.add::<CommitWatched<false>>(id),
            Self::CommitWatchedSkips => hooks.add::<CommitWatched<true>>(id),
        }
    }
}

/// Returns the hooks of a mode, in reverse packet order: each hook relies on the later ones.
fn stages(mode: Mode) -> &'static [Stage] {
    use Stage::*;
    let (lookup, routes) = match mode {
        Mode::Off => return &[],
        Mode::Verify { routes: true } => {
            return &[
                CommitWatchedSkips,
                CompareRoute,
                AdmitAndPredict,
                Compare,
                Predict,
            ]
        }
        Mode::Verify { routes: false } => return &[CommitWatched, Admit, Compare, Predict],
        Mode::On { lookup, routes } => (lookup, routes),
    };
    match (lookup, routes) {
        (true, true) => &[CommitSkips, AdmitAndServe, Lookup],
        (false, true) => &[CommitSkips, AdmitAndServe],
        (true, false) => &[CommitSkips, Admit, LookupNotes],
        (false, false) => &[Commit, Admit],
    }
}

/// Returns whether one of the stages has the id of a hook.
fn is_among(stages: &[Stage], id: u32) -> bool {
    // CAST: The variant's number.
    stages.iter().any(|&stage| stage as u32 == id)
}

/// The hooks of a netns.
#[pin_data]
pub(super) struct Hooks {
    state: Arc<NetState>,
    /// Also serialises changes of the settings.
    #[pin]
    registered: Mutex<HookSet<NetState>>,
}

impl Hooks {
    /// Creates the set, without hooks. Process context.
    pub(super) fn new(state: Arc<NetState>) -> Result<Arc<Self>> {
        let hooks = HookSet::new(state.net, state.clone());
        Arc::pin_init(
            pin_init!(Self {
                state,
                registered <- new_mutex!(hooks, "netns::hooks"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the state of the netns.
    pub(super) fn state(&self) -> &NetState {
        &self.state
    }

    /// Applies the sysctls. On an error, the hooks are those of before. Process context; sleeps.
    pub(super) fn apply_settings(&self) -> Result {
        let mut hooks = self.registered.lock();
        let settings = &self.state.settings;
        settings.apply_max_age();
        let (old, new) = (settings.mode(), settings.wanted_mode());
        if old == new || hooks.has_ended() {
            return Ok(());
        }
        // The collector ends all flows while the mode is off.
        settings.set_mode(new);
        let result = self.switch(&mut hooks, old, new);
        if result.is_err() {
            settings.set_mode(old);
            hooks.retain(|id| is_among(stages(old), id));
            // If this fails too, a hook is missing, and packets take the kernel's path.
            let _ = self.switch(&mut hooks, new, old);
        }
        result
    }

    /// Replaces the hooks of one mode by those of another. The other new hooks are registered
    /// before old ones are unregistered, so that no connection passes the limit of its zone
    /// meanwhile. A packet may be counted by both.
    fn switch(&self, hooks: &mut HookSet<NetState>, old: Mode, new: Mode) -> Result {
        hooks.retain(|id| is_among(stages(new), id) || !is_among(&Stage::AROUND_CONNTRACK, id));
        if new.verifies() && !old.verifies() {
            self.state.meter.reset();
        }
        for stage in stages(new) {
            stage.add(hooks)?;
        }
        hooks.retain(|id| is_among(stages(new), id));
        Ok(())
    }

    /// Unregisters the hooks for good. Process context.
    pub(super) fn end(&self, cx: &PreExit) {
        let mut hooks = self.registered.lock();
        self.state.settings.set_mode(Mode::Off);
        hooks.end(cx);
    }
}
