// SPDX-License-Identifier: GPL-2.0

//! Reasons why a packet does not jump.
//!
//! Pure: also built and tested on the host.

use crate::named_enum::named_enum;

named_enum! {
    /// The reason why a packet of a connection that may jump does not.
    Stay {
        /// No packet of the direction has been observed since the firewall or the route changed.
        Unlearned = "unlearned",
        /// The firewall has changed.
        Rules = "rules",
        /// The firewall has a hook whose effects are not known, or too many of them.
        Unskippable = "unskippable",
        /// The route may have changed, or the observation is older than `max_age_ms`.
        Route = "route",
        /// There are IPsec policies for forwarded packets.
        Ipsec = "ipsec",
        /// The packet is of a kind that never jumps.
        Packet = "packet",
        /// The packet's device, mark, priority, DSCP, flow label or source MAC differ from those of
        /// the observed packet.
        Entry = "entry",
        /// The packet's TTL ends here.
        Ttl = "ttl",
        /// The packet is larger than the MTU.
        Mtu = "mtu",
        /// The connection's mark has changed since the observation.
        CtMark = "ct_mark",
        /// The connection has labels.
        CtLabels = "ct_labels",
        /// A device does not forward, or not send, packets of the family.
        Device = "device",
        /// There is no neighbour.
        Neighbour = "neighbour",
        /// There is no memory.
        NoMemory = "no_memory",
        /// An earlier packet of the direction, which did not jump, may still be on its way.
        Order = "order",
        /// Events of the connection wait to be reported.
        Events = "events",
        /// Conntrack may drop the connection early.
        Unassured = "unassured",
        /// The connection has the drop mark, and an earlier packet may still pass the rules.
        Undecided = "undecided",
    }
}

impl Stay {
    /// Returns the number of the reason, for an `Atomic<i8>`.
    pub(crate) const fn as_raw(self) -> i8 {
        // CAST: There are fewer than 128 reasons: see the assertion below.
        self as i8
    }

    /// Returns the reason for a number of [`Stay::as_raw`].
    pub(crate) fn from_raw(raw: i8) -> Self {
        let stay = usize::try_from(raw).ok().and_then(|raw| Self::ALL.get(raw));
        stay.copied().unwrap_or(Self::Unlearned)
    }
}

const _: () = assert!(Stay::COUNT < 128);
