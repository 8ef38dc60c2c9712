// SPDX-License-Identifier: GPL-2.0

//! What a route decision depends on beyond the connection's direction.
//!
//! Pure: also built and tested on the host.

use crate::route::reason::Reason;

/// The inputs of a route decision that may differ between packets of one direction. (The ct and
/// the direction fix the addresses, the protocol and the ports.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Index of the receiving device.
    pub(crate) iif: u32,
    /// `skb->mark`, host order.
    pub(crate) mark: u32,
    /// The DSCP bits of the TOS byte, in place.
    pub(crate) dscp: u8,
    /// How the receiving device checks sources: `rp_filter | src_valid_mark << 2`. No event tells
    /// of these sysctls, so they are compared.
    pub(crate) source_check: u8,
}

impl Key {
    /// The first part in which a packet's key differs from a route's.
    pub(crate) fn difference(&self, packet: &Self) -> Option<Reason> {
        if self.iif != packet.iif {
            Some(Reason::Iif)
        } else if self.mark != packet.mark {
            Some(Reason::Mark)
        } else if self.dscp != packet.dscp {
            Some(Reason::Dscp)
        } else if self.source_check != packet.source_check {
            Some(Reason::SourceCheck)
        } else {
            None
        }
    }
}

/// Whether something that was made at `born` is at least `max_age` old at `now`; jiffies, wrapping.
pub(crate) fn aged(born: u32, now: u32, max_age: u32) -> bool {
    now.wrapping_sub(born) >= max_age
}
