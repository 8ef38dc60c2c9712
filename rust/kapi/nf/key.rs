// SPDX-License-Identifier: GPL-2.0

//! The inputs of a route decision beyond the connection's direction.
//!
//! Pure: also built and tested on the host. `kapi::nf::packet` checks that the layout matches C.

/// The inputs of a route decision that may differ between packets of one direction: `struct
/// nfzr_key`. (The ct and the direction fix the addresses, the protocol and the ports.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Key {
    /// Index of the receiving device.
    pub(crate) iif: u32,
    /// `skb->mark`, host order.
    pub(crate) mark: u32,
    /// The rest: the flow label in bits 0 to 19, the traffic class in 20 to 27, the source check in
    /// 28 to 31.
    pub(crate) rest: u32,
}

impl Key {
    /// The place of the traffic class in [`Key::rest`].
    pub(crate) const CLASS_SHIFT: u32 = 20;
    /// The bits of the flow label in [`Key::rest`].
    pub(crate) const LABEL: u32 = (1 << Self::CLASS_SHIFT) - 1;
    /// The bits of the traffic class in [`Key::rest`].
    pub(crate) const CLASS: u32 = 0xff << Self::CLASS_SHIFT;

    /// Returns the DSCP, 0 to 63.
    pub(crate) fn dscp(&self) -> u32 {
        (self.rest & Self::CLASS) >> (Self::CLASS_SHIFT + 2)
    }

    /// Returns the flow label, 0 to 0xfffff.
    pub(crate) fn flowlabel(&self) -> u32 {
        self.rest & Self::LABEL
    }
}
