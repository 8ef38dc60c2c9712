// SPDX-License-Identifier: GPL-2.0

//! The counters of a netns.

#![deny(unsafe_code)]

use crate::{
    kapi::percpu::CounterSet,
    route::reason::{named_enum, Reason}, //
};

named_enum! {
    /// What happens beside packets being served or not.
    Event {
        /// A route was kept for a packet that was given it.
        Staged = "staged",
        /// A staged route became the live one.
        Committed = "committed",
        /// A connection got a flow.
        FlowNew = "flow_new",
        /// A flow ended since its connection did.
        FlowGone = "flow_gone",
        /// A flow ended since the module is switched off here.
        FlowDisabled = "flow_disabled",
        /// A flow ended, or none was made, since conntrack is nearly full and may want to drop the
        /// connection early: it is unassured.
        FlowScarce = "flow_scarce",
        /// A connection got no flow: no zone in stock.
        FlowNoZone = "flow_no_zone",
        /// A connection got no flow: it, or its table, was busy.
        FlowBusy = "flow_busy",
        /// A connection got no flow: no memory.
        FlowNoMemory = "flow_no_memory",
        /// A connection got no extension of ours: another has the id, or no memory.
        NoExtension = "no_extension",
        /// A route was dropped since the kernel declared it obsolete.
        SlotObsolete = "slot_obsolete",
        /// A route was dropped since its device went.
        SlotDeviceGone = "slot_device_gone",
        /// A route was dropped since caching is switched off here.
        SlotDisabled = "slot_disabled",
        /// Routes were invalidated: a device went down.
        DeviceDown = "invalidated_device_down",
        /// Routes were invalidated: a device went away.
        DeviceUnregister = "invalidated_device_unregister",
        /// Routes were invalidated: a device's link-layer address changed.
        DeviceChangeAddr = "invalidated_device_address",
        /// Routes were invalidated: a device joined or left a bridge, bond or VRF.
        DeviceChangeUpper = "invalidated_device_upper",
        /// Routes were invalidated: a device has another name.
        DeviceChangeName = "invalidated_device_name",
    }
}

/// A counter.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// Packets by what they came to.
    Packet(Reason),
    /// Events.
    Event(Event),
}

impl CounterSet for Counter {
    const COUNT: usize = Reason::COUNT + Event::ALL.len();

    fn index(self) -> usize {
        // CAST: The enums' own numbers.
        match self {
            Self::Packet(reason) => reason as usize,
            Self::Event(event) => Reason::COUNT.saturating_add(event as usize),
        }
    }
}
