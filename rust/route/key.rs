// SPDX-License-Identifier: GPL-2.0

//! The inputs of a route decision beyond the connection's direction.
//!
//! Pure: also built and tested on the host.

use crate::route::miss::Miss;

/// The inputs of a route decision that may differ between packets of one direction. (The ct and
/// the direction fix the addresses, the protocol and the ports.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Index of the receiving device.
    pub(crate) iif: u32,
    /// `skb->mark`, host order.
    pub(crate) mark: u32,
    /// The rest: the flow label in bits 0 to 19, the traffic class in 20 to 27, the source check in
    /// 28 to 31.
    rest: u32,
}

const CLASS_SHIFT: u32 = 20;
const CHECK_SHIFT: u32 = 28;
const LABEL: u32 = (1 << CLASS_SHIFT) - 1;
const CLASS: u32 = 0xff << CLASS_SHIFT;

impl Key {
    /// Creates a key. `dscp`: the DSCP bits of the TOS byte or traffic class, in place.
    /// `flowlabel`: 20 bits, host order; 0 for IPv4. `source_check`: how the receiving device
    /// checks sources, `rp_filter | src_valid_mark << 2`. The key holds these sysctls because no
    /// event announces their changes.
    pub(crate) fn new(iif: u32, mark: u32, dscp: u8, flowlabel: u32, source_check: u8) -> Self {
        Self {
            iif,
            mark,
            rest: (flowlabel & LABEL)
                | u32::from(dscp) << CLASS_SHIFT
                | u32::from(source_check & 0xf) << CHECK_SHIFT,
        }
    }

    /// Returns the DSCP, 0 to 63.
    pub(crate) fn dscp(&self) -> u32 {
        (self.rest & CLASS) >> (CLASS_SHIFT + 2)
    }

    /// Returns the flow label, 0 to 0xfffff.
    pub(crate) fn flowlabel(&self) -> u32 {
        self.rest & LABEL
    }

    /// Returns the first part in which a packet's key differs from this key of a route.
    pub(crate) fn difference(&self, packet: &Self) -> Option<Miss> {
        let rest = self.rest ^ packet.rest;
        if self.iif != packet.iif {
            Some(Miss::Iif)
        } else if self.mark != packet.mark {
            Some(Miss::Mark)
        } else if rest & CLASS != 0 {
            Some(Miss::Dscp)
        } else if rest & LABEL != 0 {
            Some(Miss::Flowlabel)
        } else if rest != 0 {
            Some(Miss::SourceCheck)
        } else {
            None
        }
    }
}
