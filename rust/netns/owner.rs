// SPDX-License-Identifier: GPL-2.0

//! The state of a netns, with its works.

use kernel::{prelude::*, sync::Arc};

use crate::{
    kapi::{net::netns::NetHandle, sync::work::CancelOnDrop},
    netns::ingress::Devices,
    state::{
        shared::Shared,
        NetState,
        COLLECT,
        EPOCH,
        PURGE,
        SETTLE,
        SWEEP, //
    },
};

/// Owns the state of a netns. Dropping it cancels the works, which hold references on the state.
pub(super) struct Owner {
    settler: CancelOnDrop<NetState, SETTLE>,
    collector: CancelOnDrop<NetState, COLLECT>,
    sweeper: CancelOnDrop<NetState, SWEEP>,
    purger: CancelOnDrop<NetState, PURGE>,
    recorder: CancelOnDrop<NetState, EPOCH>,
    hooker: CancelOnDrop<Devices>,
    /// The hooks of devices.
    pub(super) devices: Arc<Devices>,
    /// The state.
    pub(super) state: Arc<NetState>,
}

impl Owner {
    /// Creates the state. Process context.
    pub(super) fn new(net: NetHandle, shared: &Arc<Shared>) -> Result<Self> {
        let state = NetState::new(net, shared)?;
        let devices = Devices::new(net, state.clone())?;
        Ok(Self {
            settler: CancelOnDrop(state.clone()),
            collector: CancelOnDrop(state.clone()),
            sweeper: CancelOnDrop(state.clone()),
            purger: CancelOnDrop(state.clone()),
            recorder: CancelOnDrop(state.clone()),
            hooker: CancelOnDrop(devices.clone()),
            devices,
            state,
        })
    }

    /// Cancels the works for good, and removes the flows. Process context; sleeps.
    pub(super) fn finish(&self) {
        self.settler.cancel();
        self.collector.cancel();
        self.sweeper.cancel();
        self.purger.cancel();
        self.recorder.cancel();
        self.hooker.cancel();
        self.state.end_all();
    }
}
