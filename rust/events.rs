// SPDX-License-Identifier: GPL-2.0

//! What happens to the network, and what that means for cached routes.
//!
//! Process context, under RTNL.

#![deny(unsafe_code)]

use crate::{
    kapi::netdev::{self, Device, Listener},
    netns::NetNs,
    route::reason::Reason,
    stats::Event, //
};

impl Listener for NetNs {
    fn event(&self, event: netdev::Event, device: &Device<'_>) {
        self.state.invalidate(match event {
            netdev::Event::Down => Event::DeviceDown,
            netdev::Event::Unregister => Event::DeviceUnregister,
            netdev::Event::ChangeAddr => Event::DeviceChangeAddr,
            netdev::Event::ChangeUpper => Event::DeviceChangeUpper,
            netdev::Event::ChangeName => Event::DeviceChangeName,
        });
        if event == netdev::Event::Unregister {
            let ifindex = device.ifindex();
            self.state
                .purge(Reason::DeviceGone, Event::SlotDeviceGone, |slot, _| {
                    slot.is_on(ifindex)
                });
        }
    }
}
