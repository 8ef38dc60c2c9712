// SPDX-License-Identifier: GPL-2.0

//! Assembles a netns: its state, and the hooks, files, sysctls and notifiers that use it.

mod command;
mod events;
mod hooks;
mod proc;
mod sysctl;

use kernel::{prelude::*, sync::Arc};

use crate::{
    kapi::{
        fs::{proc::Directory, sysctl::Sysctls},
        net::{
            fib::Watch,
            netns::{Init, PerNet, PreExit, Subsys}, //
        },
        sync::work::CancelOnDrop, //
    },
    netns::hooks::Hooks,
    state::{
        shared::Shared,
        NetState,
        COLLECT,
        SETTLE,
        SWEEP, //
    },
};

/// The parts of a netns.
///
/// Teardown: `pre_exit` unregisters the hooks and the notifiers and removes the flows. A grace
/// period follows. `exit` cancels the works, waits for them, and removes the flows that packets in
/// progress created meanwhile. `rcu_barrier()` follows. Then the fields are dropped in order: the
/// files and sysctls (which waits for their users), the memory of the hooks and notifiers, and the
/// state with its empty tables.
pub(crate) struct NetNs {
    _files: Directory<Hooks>,
    _sysctls: Sysctls<Hooks>,
    hooks: Arc<Hooks>,
    watch: Watch<NetState>,
    settler: CancelOnDrop<NetState, SETTLE>,
    collector: CancelOnDrop<NetState, COLLECT>,
    sweeper: CancelOnDrop<NetState, SWEEP>,
    state: Arc<NetState>,
}

static SUBSYS: Subsys<NetNs> = Subsys::new();

impl PerNet for NetNs {
    type Shared = Shared;

    fn subsys() -> &'static Subsys<Self> {
        &SUBSYS
    }

    fn init(init: &Init<'_>, shared: &Arc<Shared>) -> Result<KBox<Self>> {
        let state = NetState::new(init.net(), shared)?;
        // If a later step fails, these are dropped last, before the state.
        let collector = CancelOnDrop(state.clone());
        let settler = CancelOnDrop(state.clone());
        let sweeper = CancelOnDrop(state.clone());
        let hooks = Hooks::new(state.clone())?;
        let files = proc::files(init, hooks.clone())?;
        let sysctls = sysctl::register(init, hooks.clone())?;
        let watch = Watch::new(init, state.clone())?;
        hooks.apply_settings()?;
        Ok(KBox::new(
            Self {
                _files: files,
                _sysctls: sysctls,
                hooks,
                watch,
                settler,
                collector,
                sweeper,
                state,
            },
            GFP_KERNEL,
        )?)
    }

    fn pre_exit(&self, cx: &PreExit) {
        self.hooks.end(cx);
        self.watch.unregister(cx);
        self.state.end_all();
    }

    fn exit(&self) {
        self.settler.cancel();
        self.collector.cancel();
        self.sweeper.cancel();
        self.state.end_all();
    }
}
