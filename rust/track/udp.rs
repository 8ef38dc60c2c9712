// SPDX-License-Identifier: GPL-2.0

//! UDP tracking by prediction: the timeout that `nf_conntrack_udp_packet()` would pick.
//!
//! Pure: also built and tested on the host.

use crate::kapi::nf::udp::Stream;

/// Returns the timeout of a connection that has seen a reply, in jiffies. `None`: this packet makes
/// the connection ASSURED, which is left to the kernel because it also announces it.
pub(crate) fn track(stream: &Stream) -> Option<u32> {
    // `time_after(jiffies, stream_ts)`.
    // CAST: Deliberate: the sign of the difference decides.
    if (stream.since.wrapping_sub(stream.now) as i64) >= 0 {
        Some(stream.unreplied)
    } else if stream.assured {
        Some(stream.replied)
    } else {
        None
    }
}
