// SPDX-License-Identifier: GPL-2.0

//! What the lookup of a packet in its zone's table came to.
//!
//! Pure: also built and tested on the host.

use crate::{
    named_enum::named_enum,
    track::tcp::Miss, //
};

named_enum! {
    /// What the lookup of a packet came to. All but a hit leave the packet to conntrack.
    Outcome {
        /// It was tracked, and given its connection.
        Hit = "hit",
        /// No table that its zone allows knows it.
        Unknown = "unknown",
        /// It is neither TCP nor UDP, or has IPv6 extension headers.
        Protocol = "protocol",
        /// It has IP options.
        Options = "options",
        /// It is a fragment.
        Fragment = "fragment",
        /// Its headers or lengths are not what they should be.
        Malformed = "malformed",
        /// Its checksum is wrong.
        Checksum = "checksum",
        /// SYN, FIN, RST, or no ACK: it is not even looked up.
        TcpFlags = "tcp_flags",
        /// The connection died just now.
        Gone = "gone",
        /// The connection was not answered yet.
        Unreplied = "unreplied",
        /// The TCP connection is not ASSURED yet.
        Unassured = "unassured",
        /// Sequence numbers are rewritten.
        SeqAdjust = "seq_adjust",
        /// The connection clashed with another.
        Clash = "clash",
        /// The connection is in a flowtable.
        Offload = "offload",
        /// The connection has a helper.
        Helper = "helper",
        /// The TCP connection is not established, or one side is unknown.
        TcpState = "tcp_state",
        /// TCP options that may be selective acknowledgments.
        TcpOptions = "tcp_options",
        /// The segment is outside of the window.
        TcpWindow = "tcp_window",
        /// The packet makes a UDP connection ASSURED.
        Assuring = "assuring",
    }
}

impl Outcome {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The first of those that `kapi::track::Untracked` numbers.
    const FIRST_UNTRACKED: usize = Self::Protocol as usize;

    /// How many of those there are.
    pub(crate) const UNTRACKED_COUNT: usize = Self::TcpState as usize - Self::FIRST_UNTRACKED;

    /// The outcome for a number of `kapi::track::Untracked`.
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
