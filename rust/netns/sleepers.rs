// SPDX-License-Identifier: GPL-2.0

//! The netns that are asleep: see [`Hooks::wake`].
//!
//! No event tells when conntrack is enabled in a netns, or when forwarding is. Rules are mostly
//! loaded by a process that then closes its netlink socket, which wakes the netns at once. For all
//! other cases, each netns that is asleep is asked once a second.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use crate::{
    kapi::sync::{time, work},
    netns::hooks::Hooks,
    state::shared::Shared, //
};

/// The netns that are asleep.
///
/// Locks: `hooks`, then those of [`Hooks`]. A netns that ends waits for `hooks`, so none ends while
/// it is being asked.
#[pin_data]
pub(crate) struct Sleepers {
    /// The memory that all netns share.
    pub(super) shared: Arc<Shared>,
    #[pin]
    hooks: Mutex<KVVec<Arc<Hooks>>>,
    #[pin]
    poll: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Sleepers { self.poll }
}

/// The interval at which the netns are asked, in ms.
const POLL_MS: u32 = 1000;

impl Sleepers {
    /// Creates an empty set. Process context.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                shared,
                hooks <- new_mutex!(KVVec::new(), "netns::sleepers"),
                poll <- new_delayed_work!("nf_zoneroute::poll"),
            }),
            GFP_KERNEL,
        )
    }

    /// Adds a netns. Process context; sleeps.
    pub(super) fn add(this: &Arc<Self>, hooks: Arc<Hooks>) -> Result {
        this.hooks.lock().push(hooks, GFP_KERNEL)?;
        Self::poll_later(this.clone());
        Ok(())
    }

    /// Removes a netns, if it is here. Process context; sleeps.
    pub(super) fn remove(&self, hooks: &Arc<Hooks>) {
        self.hooks.lock().retain(|other| !Arc::ptr_eq(other, hooks));
    }

    fn poll_later(this: Arc<Self>) {
        // If the work is queued already, the reference is returned and dropped.
        let _ = work::system_dfl().enqueue_delayed::<Arc<Self>, 0>(this, time::work_delay(POLL_MS));
    }
}

impl WorkItem for Sleepers {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut hooks = this.hooks.lock();
        hooks.retain(|hooks| !hooks.wake());
        let any = !hooks.is_empty();
        drop(hooks);
        if any {
            Self::poll_later(this);
        }
    }
}
