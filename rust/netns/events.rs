// SPDX-License-Identifier: GPL-2.0

//! Events of the network, and what follows from each.
//!
//! Process context or softirq, as the chain says. Only the end of a socket may sleep.

use kernel::sync::ArcBorrow;

use crate::{
    kapi::net::{
        device::{Device, DeviceEvent},
        fib::{FibChange, FibListener},
        notifier::{NetEvent, NetListener}, //
    },
    netns::NetNs,
    state::{collector::FLOWS_PER_PROCESS, validity::Change, NetState}, //
};

impl NetListener for NetNs {
    fn device(&self, event: DeviceEvent, device: &Device<'_>) {
        self.state.announce(Change::Device(event));
        if event == DeviceEvent::Unregister {
            NetState::device_gone(self.state.as_arc_borrow(), device.ifindex());
        }
    }

    fn address(&self) {
        self.state.announce(Change::Address);
    }

    fn netfilter_socket_closed(&self) {
        // The process may have loaded rules, as `nft` does, or deleted connections, as
        // `conntrack -F` does.
        if !self.state.settings.mode().is_on() {
            self.hooks.wake();
        }
        self.state.sweep(FLOWS_PER_PROCESS);
    }

    fn net_event(&self, event: NetEvent) {
        self.state.announce(match event {
            NetEvent::Gateway(bit) if !self.state.validity.may_be_gateway(bit) => return,
            NetEvent::Neighbour | NetEvent::Gateway(_) => Change::Neighbour,
            NetEvent::Redirect => Change::Redirect,
            NetEvent::HashPolicy => Change::HashPolicy,
        });
    }
}

impl FibListener for NetState {
    fn changing(this: ArcBorrow<'_, Self>, change: FibChange) {
        let change = Change::Fib(change);
        this.announce(change);
        if change.unsettles() {
            NetState::settle_later(this);
        }
    }
}
