// SPDX-License-Identifier: GPL-2.0

//! The counters of a netns.

use kernel::prelude::*;

use crate::{
    kapi::sync::percpu::{CounterSet, Counters, OneCounter},
    named_enum::named_enum,
    route::{miss::Miss, stay::Stay},
    track::outcome::LookupMiss, //
};

named_enum! {
    /// Events that are counted beside the packets.
    Event {
        /// A packet's route was staged.
        Staged = "staged",
        /// A staged route became the live one.
        Committed = "committed",
        /// An outdated live route became valid again, because the kernel chose it, or another one
        /// that leads the same way.
        Renewed = "renewed",
        /// No change can have changed an outdated live route.
        Spared = "spared",
        /// A direction's packets may jump from now on, because one of them was observed.
        Learned = "jump_learned",
        /// A direction's packets may not jump: no memory.
        LearnedNoMemory = "jump_no_memory",
        /// A changed firewall was recorded.
        RulesRecorded = "rules_recorded",
        /// A connection got a flow.
        FlowNew = "flow_new",
        /// A flow ended because its connection is dead.
        FlowGone = "flow_gone",
        /// A flow ended because the module is switched off in the netns.
        FlowDisabled = "flow_disabled",
        /// A flow ended because no rule in the netns needs conntrack any more.
        FlowUntracked = "flow_untracked",
        /// A flow ended, or none was made, because conntrack is nearly full and the connection is
        /// unassured, so it is a candidate for early drop.
        FlowScarce = "flow_scarce",
        /// A connection got no flow: the stock of zones was empty.
        FlowNoZone = "flow_no_zone",
        /// A connection got no flow: the connection or its table was busy.
        FlowBusy = "flow_busy",
        /// A connection got no flow: no memory.
        FlowNoMemory = "flow_no_memory",
        /// A connection did not get our extension: its id is taken, or no memory.
        NoExtension = "no_extension",
        /// A new connection's packet was dropped because its zone has reached its limit.
        Limited = "zone_limited",
        /// A new connection was admitted without being counted: no memory.
        LimitNoMemory = "zone_limit_no_memory",
        /// A route was dropped because the kernel declared it obsolete.
        SlotObsolete = "slot_obsolete",
        /// A route was dropped because its device was unregistered.
        SlotDeviceGone = "slot_device_gone",
        /// A route was dropped because caching is switched off in the netns.
        SlotDisabled = "slot_disabled",
        /// Routes were invalidated: a device came up.
        DeviceUp = "invalidated_device_up",
        /// Routes were invalidated: a device went down.
        DeviceDown = "invalidated_device_down",
        /// Routes were invalidated: a device was unregistered.
        DeviceUnregister = "invalidated_device_unregister",
        /// Routes were invalidated: a device's link-layer address changed.
        DeviceChangeAddr = "invalidated_device_address",
        /// Routes were invalidated: a device joined or left a bridge, bond or VRF.
        DeviceChangeUpper = "invalidated_device_upper",
        /// Routes were invalidated: a device was renamed.
        DeviceChangeName = "invalidated_device_name",
        /// Routes were invalidated: a device's flags, carrier or group changed.
        DeviceChange = "invalidated_device_change",
        /// Routes were invalidated: a route changed.
        RouteChange = "invalidated_route",
        /// Routes were invalidated: a rule changed.
        RuleChange = "invalidated_rule",
        /// Routes were invalidated: a nexthop object changed.
        NexthopChange = "invalidated_nexthop",
        /// Routes were invalidated: an address was added or deleted.
        AddressChange = "invalidated_address",
        /// Routes were invalidated: a neighbour that routes may depend on changed its state, or an
        /// IPv4 redirect was received.
        NeighbourChange = "invalidated_neighbour",
        /// Routes were invalidated: an IPv6 redirect was received.
        Redirect = "invalidated_redirect",
        /// Routes were invalidated: the multipath hash policy changed.
        HashChange = "invalidated_hash_policy",
        /// A packet that rules would have dropped was dropped before them.
        Dropped = "dropped",
        /// In verify mode: a packet's connection, its state and its timeout were as predicted.
        Verified = "verify_packets",
        /// In verify mode: a packet's route was the cached one.
        VerifiedRoute = "verify_routes",
        /// In verify mode: a packet that would have jumped left as predicted.
        VerifiedJump = "verify_jumps",
        /// In verify mode: another packet was between the hooks, so the prediction does not count.
        VerifySkipped = "verify_skipped",
        /// In verify mode: conntrack found another connection, or none.
        MismatchConnection = "mismatch_connection",
        /// In verify mode: conntrack found the other direction, or an unreplied connection.
        MismatchDirection = "mismatch_direction",
        /// In verify mode: conntrack left a TCP state other than the predicted one.
        MismatchTcp = "mismatch_tcp",
        /// In verify mode: conntrack chose a timeout other than the predicted one.
        MismatchTimeout = "mismatch_timeout",
        /// In verify mode: conntrack found a connection whose flow the lookup missed.
        MismatchUnfound = "mismatch_unfound",
        /// In verify mode: the kernel chose a route other than the cached one.
        MismatchRoute = "mismatch_route",
        /// In verify mode: a packet that would have jumped left in another form, with other marks
        /// or by another device.
        MismatchJump = "mismatch_jump",
    }
}

/// A counter.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// Packets that jumped before conntrack.
    Jumped,
    /// Packets that jumped at ingress.
    JumpedAtIngress,
    /// Packets that the lookup attached to their connection, and that did not jump.
    LookupHit,
    /// Packets that the lookup left to conntrack, by reason.
    LookupMiss(LookupMiss),
    /// Packets that took a cached route without a jump.
    Hit,
    /// Packets that did not take a cached route, by reason.
    Miss(Miss),
    /// Packets that could jump and did not, by reason.
    Stay(Stay),
    /// Events.
    Event(Event),
}

impl Counter {
    /// The indices of the first counter of each kind.
    const LOOKUP_MISS: usize = 3;
    const HIT: usize = Self::LOOKUP_MISS + LookupMiss::COUNT;
    const MISS: usize = Self::HIT + 1;
    const STAY: usize = Self::MISS + Miss::COUNT;
    const EVENT: usize = Self::STAY + Stay::COUNT;
}

impl CounterSet for Counter {
    const COUNT: usize = Self::EVENT + Event::COUNT;

    fn index(self) -> usize {
        // CAST: The variants' numbers.
        match self {
            Self::Jumped => 0,
            Self::JumpedAtIngress => 1,
            Self::LookupHit => 2,
            Self::LookupMiss(miss) => Self::LOOKUP_MISS.saturating_add(miss as usize),
            Self::Hit => Self::HIT,
            Self::Miss(miss) => Self::MISS.saturating_add(miss as usize),
            Self::Stay(stay) => Self::STAY.saturating_add(stay as usize),
            Self::Event(event) => Self::EVENT.saturating_add(event as usize),
        }
    }
}

/// The counters of a netns.
pub(crate) struct Stats(Counters<Counter>);

impl Stats {
    /// Creates zero counters. Process context.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Counters::new()?))
    }

    /// Returns the counter of packets that jumped before conntrack.
    #[inline(always)]
    pub(crate) fn jumps(&self) -> OneCounter<'_> {
        self.0.one(Counter::Jumped)
    }

    /// Returns the counter of packets that jumped at ingress.
    #[inline(always)]
    pub(crate) fn jumps_at_ingress(&self) -> OneCounter<'_> {
        self.0.one(Counter::JumpedAtIngress)
    }

    /// Returns the counter of packets that the lookup attached to their connection.
    #[inline(always)]
    pub(crate) fn lookup_hits(&self) -> OneCounter<'_> {
        self.0.one(Counter::LookupHit)
    }

    /// Counts a packet by the result of its lookup. Any context.
    #[inline(always)]
    pub(crate) fn count_lookup(&self, result: Result<(), LookupMiss>) {
        self.0.inc(match result {
            Ok(()) => Counter::LookupHit,
            Err(miss) => Counter::LookupMiss(miss),
        });
    }

    /// Counts a packet by whether it took a cached route. Any context.
    #[inline(always)]
    pub(crate) fn count_packet(&self, result: Result<(), Miss>) {
        self.0.inc(match result {
            Ok(()) => Counter::Hit,
            Err(miss) => Counter::Miss(miss),
        });
    }

    /// Counts a packet that could jump and did not. Any context.
    pub(crate) fn count_stay(&self, stay: Stay) {
        self.0.inc(Counter::Stay(stay));
    }

    /// Counts an event. Any context.
    pub(crate) fn count(&self, event: Event) {
        self.count_many(event, 1);
    }

    /// Counts `times` events of a kind. Any context.
    pub(crate) fn count_many(&self, event: Event, times: u32) {
        if times != 0 {
            self.0.add(Counter::Event(event), times.into());
        }
    }

    /// Returns the sum of a counter over all CPUs.
    pub(crate) fn sum(&self, counter: Counter) -> u64 {
        self.0.sum(counter)
    }
}
