// SPDX-License-Identifier: GPL-2.0

//! Outcomes of the lookup of a packet in its zone's table.
//!
//! Pure: also built and tested on the host.

use crate::{
    named_enum::named_enum,
    track::tcp::Miss, //
};

named_enum! {
    /// The outcome of a packet's lookup. All but a hit leave the packet to conntrack.
    Outcome {
        /// The packet was tracked here and attached to its connection.
        Hit = "hit",
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
        /// The segment has options that may be selective acknowledgments.
        TcpOptions = "tcp_options",
        /// The segment is outside of the window.
        TcpWindow = "tcp_window",
        /// The packet makes a UDP connection ASSURED.
        Assuring = "assuring",
    }
}

impl Outcome {
    /// The number of outcomes.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The first outcome that `kapi::track::Untracked` also numbers.
    const FIRST_UNTRACKED: usize = Self::Protocol as usize;

    /// The number of outcomes that `kapi::track::Untracked` also numbers.
    pub(crate) const UNTRACKED_COUNT: usize = Self::TcpState as usize - Self::FIRST_UNTRACKED;

    /// Returns the outcome for a number of `kapi::track::Untracked`.
    pub(crate) fn from_untracked(index: usize) -> Self {
        Self::ALL
            .get(Self::FIRST_UNTRACKED.saturating_add(index))
            .copied()
            .unwrap_or(Self::Gone)
    }
}

impl From<Miss> for Outcome {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Flags => Self::TcpFlags,
            Miss::State => Self::TcpState,
            Miss::Options => Self::TcpOptions,
            Miss::Window => Self::TcpWindow,
        }
    }
}
