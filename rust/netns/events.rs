// SPDX-License-Identifier: GPL-2.0

//! Events of the network, and what follows from each.
//!
//! Process context or softirq, as the chain says. Only the end of a socket may sleep. A netns
//! without a state has no routes that a change could invalidate.

use kernel::sync::ArcBorrow;

use crate::{
    kapi::net::{
        device::{Device, DeviceEvent},
        family::Family,
        fib::{FibChange, FibListener},
        notifier::{NetEvent, NetListener},
        prefix::Prefix,
        rtm::RouteListener, //
    },
    netns::NetNs,
    state::{collector::FLOWS_PER_PROCESS, validity::Change, NetState}, //
};

impl NetListener for NetNs {
    fn device(&self, event: DeviceEvent, device: &Device<'_>) {
        let Some(state) = self.hooks.state() else {
            return;
        };
        state.announce(Change::Device(event));
        if event == DeviceEvent::Unregister {
            NetState::device_gone(state.as_arc_borrow(), device.ifindex());
            state.jumps.devices().remove(device.ifindex());
        }
    }

    fn address(&self) {
        if let Some(state) = self.hooks.state() {
            state.announce(Change::Address);
        }
    }

    fn netfilter_socket_closed(&self) {
        // The process may have loaded rules, as `nft` does, or deleted connections, as
        // `conntrack -F` does.
        let state = self.hooks.state();
        if !state.is_some_and(|state| state.settings.mode().is_on()) {
            self.hooks.wake();
        }
        if let Some(state) = state {
            state.sweep(FLOWS_PER_PROCESS);
        }
    }

    fn net_event(&self, event: NetEvent) {
        let Some(state) = self.hooks.state() else {
            return;
        };
        state.announce(match event {
            NetEvent::Gateway(bit) if !state.validity.may_be_gateway(bit) => return,
            NetEvent::Neighbour | NetEvent::Gateway(_) => Change::Neighbour,
            NetEvent::Redirect => Change::Redirect,
            NetEvent::HashPolicy => Change::HashPolicy,
        });
    }
}

impl RouteListener for NetState {
    fn route_set(this: ArcBorrow<'_, Self>, prefix: Option<Prefix>, is_new: bool) {
        this.validity.route_set(prefix, is_new);
    }
}

impl FibListener for NetState {
    fn dscp_counts(this: ArcBorrow<'_, Self>, family: Family) {
        this.validity.note_dscp(family);
    }

    fn changing(this: ArcBorrow<'_, Self>, change: FibChange) {
        let change = Change::Fib(change);
        this.announce(change);
        if change.unsettles() {
            NetState::settle_later(this);
        }
    }
}
