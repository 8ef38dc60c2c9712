// SPDX-License-Identifier: GPL-2.0

//! Network events, and how they invalidate cached routes.
//!
//! Runs in process context or softirq, depending on the chain. Only the unregistration of a device
//! may sleep.

use kernel::sync::ArcBorrow;

use crate::{
    kapi::net::{
        device::{self, Device},
        fib::{self, Change},
        notifier::{Listener, NetEvent}, //
    },
    netns::{NetNs, NetState},
    route::miss::Reason,
    state::stats::Event, //
};

impl Listener for NetNs {
    fn device(&self, event: device::Event, device: &Device<'_>) {
        let why = match event {
            device::Event::Up => Event::DeviceUp,
            device::Event::Down => Event::DeviceDown,
            device::Event::Unregister => Event::DeviceUnregister,
            device::Event::ChangeAddr => Event::DeviceChangeAddr,
            device::Event::ChangeUpper => Event::DeviceChangeUpper,
            device::Event::ChangeName => Event::DeviceChangeName,
            device::Event::Change => Event::DeviceChange,
        };
        self.state.invalidate(why, Reason::DeviceChanged);
        if event == device::Event::Unregister {
            let ifindex = device.ifindex();
            self.state.purge(Event::SlotDeviceGone, |slot, _| {
                slot.is_on(ifindex).then_some(Reason::DeviceGone)
            });
        }
    }

    fn address(&self) {
        self.state
            .invalidate(Event::AddressChange, Reason::AddressChanged);
    }

    fn net_event(&self, event: NetEvent) {
        let (why, cause) = match event {
            NetEvent::Gateway(place) if !self.state.gateways.may_have(place) => return,
            NetEvent::Neighbour | NetEvent::Gateway(_) => {
                (Event::NeighbourChange, Reason::NeighbourChanged)
            }
            NetEvent::Redirect => (Event::Redirect, Reason::Redirected),
            NetEvent::HashPolicy => (Event::HashChange, Reason::HashChanged),
        };
        self.state.invalidate(why, cause);
    }
}

impl fib::Listener for NetState {
    /// Invalidates routes. When a change of a route or rule is done, the kernel bumps its genids,
    /// so a route that was looked up during the change is not served afterwards. (Deletions from an
    /// IPv6 table are announced after they are done.) This does not hold for a bucket of a
    /// resilient group. After a change of any nexthop object, the set of gateways has to be rebuilt
    /// before a route is cached.
    fn changing(this: ArcBorrow<'_, Self>, change: Change) {
        match change {
            Change::Route => this.invalidate(Event::RouteChange, Reason::RouteChanged),
            Change::Rule => this.invalidate(Event::RuleChange, Reason::RuleChanged),
            Change::Nexthop => NetState::unsettle(this, false),
            Change::Bucket => NetState::unsettle(this, true),
        }
    }
}
