// SPDX-License-Identifier: GPL-2.0

//! Why a packet took the cached route, or did not.
//!
//! Pure: also built and tested on the host.

use crate::named_enum::named_enum;

named_enum! {
    /// What a packet of a confirmed connection came to at PRE_ROUTING.
    Reason {
        /// The cached route was used.
        Hit = "hit",
        /// The connection has no flow (yet).
        NoFlow = "no_flow",
        /// The direction has no route yet, or lost it.
        Empty = "empty",
        /// It came in by another device than the route's packet.
        Iif = "iif",
        /// It has another mark.
        Mark = "mark",
        /// It has another DSCP.
        Dscp = "dscp",
        /// It has another IPv6 flow label.
        Flowlabel = "flowlabel",
        /// The device's rp_filter or src_valid_mark was switched.
        SourceCheck = "source_check",
        /// A route was added, replaced or deleted, or a nexthop of one came or went.
        RouteChanged = "route_changed",
        /// A rule was added or deleted.
        RuleChanged = "rule_changed",
        /// A nexthop object was changed.
        NexthopChanged = "nexthop_changed",
        /// An address was added or deleted.
        AddressChanged = "address_changed",
        /// Something happened to a device.
        DeviceChanged = "device_changed",
        /// A neighbour's state changed, where routes depend on it; or an IPv4 redirect came.
        NeighbourChanged = "neighbour_changed",
        /// An IPv6 redirect came.
        Redirected = "redirected",
        /// Nexthops are chosen by other parts of a packet.
        HashChanged = "hash_changed",
        /// A nexthop object is being changed.
        Unsettled = "unsettled",
        /// The route was as old as max_age_ms allows.
        Aged = "aged",
        /// The kernel declared the route obsolete.
        Obsolete = "obsolete",
        /// The route's device went away.
        DeviceGone = "device_gone",
        /// A new route was tried just before; one try a jiffy.
        Limited = "limited",
        /// No memory for the route.
        NoMemory = "no_memory",
        /// The direction's packets go into IPsec, by another route than they are given.
        Xfrm = "xfrm",
        /// The packet has IP options, or IPv6 extension headers.
        Options = "options",
        /// The packet is a fragment, or was put together from some.
        Fragment = "fragment",
        /// The packet was not addressed to this host's link-layer address.
        NotHost = "not_host",
        /// The packet has a socket already.
        Socket = "socket",
        /// The packet came out of IPsec.
        Secpath = "secpath",
        /// The packet comes by way of a bridge.
        Bridge = "bridge",
        /// The packet has a route already: a tunnel's metadata, loopback.
        HasDst = "has_dst",
        /// The device it comes or goes by belongs to a VRF, or is one.
        L3mdev = "l3mdev",
        /// The packet is about the connection but not of it: an ICMP error.
        Related = "related",
        /// Addresses or ports are not what conntrack made them.
        Rewritten = "rewritten",
        /// An address is link-local, or of many hosts.
        Scope = "scope",
        /// The kernel has no route for it.
        NoRoute = "no_route",
        /// The route is no plain one to another host.
        NotUnicast = "not_unicast",
        /// The route goes out where the packet came in.
        SameDevice = "same_device",
        /// The route has a lightweight tunnel.
        Lwtunnel = "lwtunnel",
        /// The route is an exception: a learned MTU, or (IPv6) a redirect.
        Pmtu = "pmtu",
        /// The route's nexthop is chosen by more than the connection.
        Multipath = "multipath",
        /// Rules select on what the key lacks.
        Rules = "rules",
        /// The route went away between the lookup and our taking it.
        Gone = "gone",
    }
}

impl Reason {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The first of those that `kapi::skb::Unfit` numbers.
    const FIRST_UNFIT: usize = Self::Options as usize;

    /// How many of those there are.
    pub(crate) const UNFIT_COUNT: usize = Self::COUNT - Self::FIRST_UNFIT;

    /// The reason for a number of `kapi::skb::Unfit`.
    pub(crate) fn from_unfit(index: usize) -> Self {
        Self::ALL
            .get(Self::FIRST_UNFIT.saturating_add(index))
            .copied()
            .unwrap_or(Self::Gone)
    }

    /// For an `Atomic<i8>`.
    pub(crate) fn as_raw(self) -> i8 {
        // CAST: There are fewer than 128.
        self as i8
    }

    /// Back from [`Reason::as_raw`].
    pub(crate) fn from_raw(raw: i8) -> Self {
        usize::try_from(raw)
            .ok()
            .and_then(|raw| Self::ALL.get(raw))
            .copied()
            .unwrap_or(Self::Empty)
    }
}

const _: () = assert!(Reason::COUNT < 128);
