// SPDX-License-Identifier: GPL-2.0

//! Reasons why the lookup of a packet in its zone's table leaves the packet to conntrack.
//!
//! Pure: also built and tested on the host.

use crate::{
    named_enum::named_enum,
    track::tcp::TcpMiss, //
};

named_enum! {
    /// The reason why a packet is left to conntrack.
    LookupMiss {
        /// No table of the packet's zones holds its tuple.
        Unknown = "unknown",
        /// The packet is neither TCP nor UDP, or has IPv6 extension headers.
        Protocol = "protocol",
        /// The packet has IP options.
        Options = "options",
        /// The packet is a fragment.
        Fragment = "fragment",
        /// The packet's headers or lengths are invalid.
        Malformed = "malformed",
        /// The packet's checksum is wrong.
        Checksum = "checksum",
        /// The segment has SYN, FIN or RST, or no ACK: it is not looked up.
        TcpFlags = "tcp_flags",
        /// The connection died after the lookup found it.
        Gone = "gone",
        /// The connection has seen no reply yet.
        Unreplied = "unreplied",
        /// The TCP connection is not ASSURED yet.
        Unassured = "unassured",
        /// The connection's sequence numbers are rewritten.
        SeqAdjust = "seq_adjust",
        /// The connection clashed with another.
        Clash = "clash",
        /// The connection is in a flowtable.
        Offload = "offload",
        /// The connection has a helper.
        Helper = "helper",
        /// The TCP connection is not established, or one side is unknown.
        TcpState = "tcp_state",
        /// The segment has selective acknowledgments, or its options cannot be read.
        TcpOptions = "tcp_options",
        /// The segment is outside of the window.
        TcpWindow = "tcp_window",
        /// The packet makes a UDP connection ASSURED.
        Assuring = "assuring",
    }
}

impl From<TcpMiss> for LookupMiss {
    fn from(miss: TcpMiss) -> Self {
        match miss {
            TcpMiss::Flags => Self::TcpFlags,
            TcpMiss::State => Self::TcpState,
            TcpMiss::Options => Self::TcpOptions,
            TcpMiss::Window => Self::TcpWindow,
        }
    }
}
