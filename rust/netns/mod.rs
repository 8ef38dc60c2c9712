// SPDX-License-Identifier: GPL-2.0

//! Assembles a netns: its state, and the hooks, files, sysctls and notifiers that use it.

mod command;
mod events;
mod hooks;
mod ingress;
mod owner;
mod proc;
pub(crate) mod sleepers;
mod stages;
mod sysctl;

use kernel::{prelude::*, sync::Arc};

use crate::{
    kapi::{
        fs::{proc::Directory, sysctl::Sysctls},
        net::netns::{Init, PerNet, PreExit, Subsys},
        sync::work::CancelOnDrop, //
    },
    netns::{
        hooks::Hooks,
        sleepers::Sleepers, //
    },
};

/// The parts of a netns.
///
/// Teardown: `pre_exit` keeps the netns from being woken, unregisters the hooks, queues the end of
/// the notifiers, and removes the flows. A grace period follows. `exit` waits for the end of the
/// notifiers, cancels the works, waits for them, and removes the flows that packets in progress
/// created meanwhile. `rcu_barrier()` follows. Then the fields are dropped in order: the files and
/// sysctls (which waits for their users), and the memory of the hooks and notifiers with the state
/// and its empty tables.
pub(crate) struct NetNs {
    _files: Directory<Hooks>,
    _sysctls: Sysctls<Hooks>,
    hooks: Arc<Hooks>,
    ender: CancelOnDrop<Hooks>,
    sleepers: Arc<Sleepers>,
}

static SUBSYS: Subsys<NetNs> = Subsys::new();

impl PerNet for NetNs {
    type Shared = Sleepers;

    fn subsys() -> &'static Subsys<Self> {
        &SUBSYS
    }

    fn init(init: &Init<'_>, sleepers: &Arc<Sleepers>) -> Result<KBox<Self>> {
        let hooks = Hooks::new(init.net(), sleepers.shared.clone())?;
        let files = proc::files(init, hooks.clone())?;
        let sysctls = sysctl::register(init, hooks.clone())?;
        let net = KBox::new(
            Self {
                _files: files,
                _sysctls: sysctls,
                ender: CancelOnDrop(hooks.clone()),
                hooks,
                sleepers: sleepers.clone(),
            },
            GFP_KERNEL,
        )?;
        // If the netns cannot be switched on, it stays off, but does not keep the module out.
        if !net.hooks.wake() {
            Sleepers::add(sleepers, net.hooks.clone())?;
        }
        Ok(net)
    }

    fn pre_exit(&self, cx: &PreExit) {
        self.sleepers.remove(&self.hooks);
        Hooks::end(&self.hooks, cx);
    }

    fn exit(&self) {
        self.ender.finish();
        self.hooks.finish();
    }
}
