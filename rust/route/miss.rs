// SPDX-License-Identifier: GPL-2.0

//! Reasons why a packet was not served from the cache.
//!
//! Pure: also built and tested on the host.

use crate::named_enum::named_enum;

named_enum! {
    /// The reason why a packet of a confirmed connection did not take a cached route at
    /// PRE_ROUTING.
    Miss {
        /// The connection has no flow (yet).
        NoFlow = "no_flow",
        /// The direction has no route yet, or has lost it.
        Empty = "empty",
        /// The packet came in by a device for which there is no route.
        Iif = "iif",
        /// The packet has another mark.
        Mark = "mark",
        /// The packet has another DSCP, and rules or routes look at it.
        Dscp = "dscp",
        /// The packet has another IPv6 flow label.
        Flowlabel = "flowlabel",
        /// The receiving device's rp_filter or src_valid_mark changed.
        SourceCheck = "source_check",
        /// A route was added, replaced or deleted, or one of its nexthops came or went.
        RouteChanged = "route_changed",
        /// A rule was added or deleted.
        RuleChanged = "rule_changed",
        /// A nexthop object was changed.
        NexthopChanged = "nexthop_changed",
        /// An address was added or deleted.
        AddressChanged = "address_changed",
        /// A device changed, came up, went down or was unregistered.
        DeviceChanged = "device_changed",
        /// The state of a neighbour that routes may depend on changed, or an IPv4 redirect was
        /// received.
        NeighbourChanged = "neighbour_changed",
        /// An IPv6 redirect was received.
        Redirected = "redirected",
        /// The multipath hash policy changed: nexthops are chosen by other parts of a packet.
        HashChanged = "hash_changed",
        /// A nexthop object is being changed.
        Unsettled = "unsettled",
        /// The route has reached the age of max_age_ms.
        Aged = "aged",
        /// The kernel declared the route obsolete.
        Obsolete = "obsolete",
        /// The route's device was unregistered.
        DeviceGone = "device_gone",
        /// The direction has already tried a new route in this jiffy. It may try one a jiffy, or
        /// renew the live route if that has served enough packets.
        Limited = "limited",
        /// No memory for the route.
        NoMemory = "no_memory",
        /// The direction's packets go into IPsec, and leave by a route other than the one given.
        Xfrm = "xfrm",
        /// The packet has IP options, or IPv6 extension headers.
        Options = "options",
        /// The packet is a fragment, or was reassembled from fragments.
        Fragment = "fragment",
        /// The packet was not addressed to this host's link-layer address.
        NotHost = "not_host",
        /// The packet has a socket already.
        Socket = "socket",
        /// The packet came out of IPsec.
        Secpath = "secpath",
        /// The packet came through a bridge.
        Bridge = "bridge",
        /// The packet has a route already: a tunnel's metadata, loopback.
        HasDst = "has_dst",
        /// The receiving or sending device belongs to a VRF, or is one.
        L3mdev = "l3mdev",
        /// The packet is an ICMP error about the connection, not one of its own packets.
        Related = "related",
        /// The addresses or ports are not those that conntrack and DNAT left.
        Rewritten = "rewritten",
        /// An address is link-local or multicast.
        Scope = "scope",
        /// The kernel has no route for the packet.
        NoRoute = "no_route",
        /// The route is not a plain unicast route to another host.
        NotUnicast = "not_unicast",
        /// The route goes out by the device that the packet came in by.
        SameDevice = "same_device",
        /// The route has a lightweight tunnel.
        Lwtunnel = "lwtunnel",
        /// The route is an exception of IPv6 (a learned MTU or a redirect), or one of IPv4 that the
        /// kernel does not keep.
        Pmtu = "pmtu",
        /// A redirect may change the choice of the route without ending the route (IPv4).
        Uncached = "uncached",
        /// The choice of the nexthop depends on more than the connection.
        Multipath = "multipath",
        /// Rules select by fields that the key does not hold.
        Rules = "rules",
        /// The route went away before a reference on it was taken.
        Gone = "gone",
    }
}

impl Miss {
    /// Returns the number of the reason, for an `Atomic<i8>`.
    pub(crate) const fn as_raw(self) -> i8 {
        // CAST: There are fewer than 128 reasons: see the assertion below.
        self as i8
    }

    /// Returns the reason for a number of [`Miss::as_raw`].
    pub(crate) fn from_raw(raw: i8) -> Self {
        usize::try_from(raw)
            .ok()
            .and_then(|raw| Self::ALL.get(raw))
            .copied()
            .unwrap_or(Self::Empty)
    }
}

const _: () = assert!(Miss::COUNT < 128);
