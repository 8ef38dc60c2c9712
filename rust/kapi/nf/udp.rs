// SPDX-License-Identifier: GPL-2.0

//! Conntrack's inputs for a UDP connection that has seen a reply.
//!
//! Pure: also built on the host.

/// The inputs that decide a connection's timeout. Times are in jiffies, which wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The current time.
    pub(crate) now: u64,
    /// The time from which the connection counts as a stream: `stream_ts`.
    pub(crate) since: u64,
    /// The connection is ASSURED.
    pub(crate) assured: bool,
    /// The timeout of short exchanges.
    pub(crate) unreplied: u32,
    /// The timeout of streams.
    pub(crate) replied: u32,
}
