// SPDX-License-Identifier: GPL-2.0

//! What conntrack looks at of a UDP connection that was answered.
//!
//! Pure: also built on the host.

/// What decides a connection's timeout. Times in jiffies, which wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Now.
    pub(crate) now: u64,
    /// From when on the connection counts as a stream: `stream_ts`.
    pub(crate) since: u64,
    /// It is ASSURED.
    pub(crate) assured: bool,
    /// The timeout of short exchanges.
    pub(crate) unreplied: u32,
    /// The timeout of streams.
    pub(crate) replied: u32,
}
