// SPDX-License-Identifier: GPL-2.0

//! UDP tracking by prediction: the timeout that `nf_conntrack_udp_packet()` would pick.
//!
//! Pure: also built and tested on the host.

use crate::kapi::nf::udp::Stream;

/// The timeout of a connection that was answered, in jiffies; `None`: this packet is the one that
/// makes it ASSURED, which is the kernel's to do and to announce.
pub(crate) fn track(stream: &Stream) -> Option<u32> {
    // `time_after(jiffies, stream_ts)`.
    // CAST: The difference's sign, on purpose.
    if (stream.since.wrapping_sub(stream.now) as i64) >= 0 {
        Some(stream.unreplied)
    } else if stream.assured {
        Some(stream.replied)
    } else {
        None
    }
}
