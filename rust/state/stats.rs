// SPDX-License-Identifier: GPL-2.0

//! The counters of a netns.

use crate::{
    kapi::sync::percpu::CounterSet,
    named_enum::named_enum,
    route::miss::Reason,
    track::outcome::Outcome, //
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
        /// A flow ended since conntrack is switched off here: no rule wants it.
        FlowUntracked = "flow_untracked",
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
        /// A new packet was dropped since its zone has as many connections as it may have.
        Limited = "zone_limited",
        /// A new connection was let in uncounted: no memory.
        LimitNoMemory = "zone_limit_no_memory",
        /// A route was dropped since the kernel declared it obsolete.
        SlotObsolete = "slot_obsolete",
        /// A route was dropped since its device went.
        SlotDeviceGone = "slot_device_gone",
        /// A route was dropped since caching is switched off here.
        SlotDisabled = "slot_disabled",
        /// Routes were invalidated: a device came up.
        DeviceUp = "invalidated_device_up",
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
        /// Routes were invalidated: a device has other flags, another carrier or group.
        DeviceChange = "invalidated_device_change",
        /// Routes were invalidated: a route changed.
        RouteChange = "invalidated_route",
        /// Routes were invalidated: a rule changed.
        RuleChange = "invalidated_rule",
        /// Routes were invalidated: a nexthop object changed.
        NexthopChange = "invalidated_nexthop",
        /// Routes were invalidated: an address came or went.
        AddressChange = "invalidated_address",
        /// Routes were invalidated: a neighbour's state changed where routes depend on it, or an IPv4
        /// redirect came.
        NeighbourChange = "invalidated_neighbour",
        /// Routes were invalidated: an IPv6 redirect came.
        Redirect = "invalidated_redirect",
        /// Routes were invalidated: nexthops are chosen by other parts of a packet.
        HashChange = "invalidated_hash_policy",
        /// In verify mode: a packet's connection, its state and its timeout were as predicted.
        Verified = "verify_packets",
        /// In verify mode: a packet's route was the cached one.
        VerifiedRoute = "verify_routes",
        /// In verify mode: another packet was under way, so that nothing can be said of this one.
        VerifySkipped = "verify_skipped",
        /// In verify mode: conntrack found another connection, or none.
        MismatchConnection = "mismatch_connection",
        /// In verify mode: conntrack found the other direction, or a connection not answered.
        MismatchDirection = "mismatch_direction",
        /// In verify mode: conntrack left another TCP state.
        MismatchTcp = "mismatch_tcp",
        /// In verify mode: conntrack chose another timeout.
        MismatchTimeout = "mismatch_timeout",
        /// In verify mode: conntrack found a connection whose flow was not found.
        MismatchUnfound = "mismatch_unfound",
        /// In verify mode: the kernel chose another route than the cached one.
        MismatchRoute = "mismatch_route",
    }
}

/// A counter.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// Packets by what their lookup came to.
    Lookup(Outcome),
    /// Packets by what they came to.
    Packet(Reason),
    /// Events.
    Event(Event),
}

impl CounterSet for Counter {
    const COUNT: usize = Outcome::COUNT + Reason::COUNT + Event::ALL.len();

    fn index(self) -> usize {
        // CAST: The enums' own numbers.
        match self {
            Self::Lookup(outcome) => outcome as usize,
            Self::Packet(reason) => Outcome::COUNT.saturating_add(reason as usize),
            Self::Event(event) => (Outcome::COUNT + Reason::COUNT).saturating_add(event as usize),
        }
    }
}
