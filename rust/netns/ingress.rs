// SPDX-License-Identifier: GPL-2.0

//! The hooks at the ingress of devices, with `jump=2`. A device gets its hook when packets that it
//! received have been observed, and loses it with the mode, or when the device goes or leaves the
//! netns.
//!
//! Locks: that of the hooks, and then RTNL.

use kernel::{
    error::code::ENOMEM,
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use crate::{
    kapi::{
        net::netns::{NetHandle, PreExit},
        nf::ingress::DeviceHooks,
        sync::{time, work}, //
    },
    path::ingress::JumpAtIngress,
    state::NetState,
};

/// How often devices get their hooks, in ms.
const HOOK_MS: u32 = 200;

/// The hooks of a netns' devices, and the work that registers them while packets may jump at
/// ingress.
///
/// Teardown: the hooks are unregistered before the state is freed.
#[pin_data]
pub(super) struct Devices {
    net: NetHandle,
    #[pin]
    hooks: Mutex<Option<DeviceHooks<JumpAtIngress>>>,
    #[pin]
    hooker: DelayedWork<Self>,
    state: Arc<NetState>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Devices { self.hooker }
}

impl WorkItem for Devices {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.hook() {
            Self::hook_later(this);
        }
    }
}

impl Devices {
    /// Creates the set, without hooks. Process context.
    pub(super) fn new(net: NetHandle, state: Arc<NetState>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                net,
                hooks <- new_mutex!(None, "netns::ingress"),
                hooker <- new_delayed_work!("nf_zoneroute::hook_devices"),
                state,
            }),
            GFP_KERNEL,
        )
    }

    /// Queues the registration of hooks. Any context.
    pub(super) fn hook_later(this: Arc<Self>) {
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl().enqueue_delayed(this, time::work_delay(HOOK_MS));
    }

    /// Registers the hooks of devices that need them. Returns whether packets may jump at ingress.
    /// Process context; sleeps.
    fn hook(&self) -> bool {
        let mut hooks = self.hooks.lock();
        // Asked under the lock, because the hooks are removed after the mode changed.
        if !self.state.settings.mode().jumps_at_ingress() {
            return false;
        }
        if hooks.is_none() {
            // Without memory the next run tries again.
            *hooks = DeviceHooks::new(self.net, self.state.clone()).ok();
        }
        if let Some(hooks) = &mut *hooks {
            self.hook_pending(hooks);
        }
        true
    }

    fn hook_pending(&self, hooks: &mut DeviceHooks<JumpAtIngress>) {
        let devices = self.state.jumps.devices();
        let mut is_any_new = false;
        for ifindex in devices.pending() {
            match hooks.add(ifindex) {
                // The next run tries again.
                Err(ENOMEM) => continue,
                // The next packet that is observed wants it again.
                Err(_) => devices.remove(ifindex),
                Ok(is_new) => {
                    devices.settle(ifindex);
                    is_any_new |= is_new;
                }
            }
        }
        if is_any_new {
            hooks.arm();
        }
    }

    /// Unregisters all hooks for good. Process context without RTNL; sleeps.
    pub(super) fn end(&self, cx: &PreExit) {
        if let Some(hooks) = &mut *self.hooks.lock() {
            hooks.end(cx);
        }
    }

    /// Unregisters all hooks. Process context without RTNL; sleeps.
    pub(super) fn unhook(&self) {
        let mut hooks = self.hooks.lock();
        self.state.jumps.devices().clear();
        *hooks = None;
    }
}
