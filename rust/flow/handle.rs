// SPDX-License-Identifier: GPL-2.0

//! The handle that the ct extension carries: `[1|salt:31][1|index:31]`.
//!
//! The extension has the kernel's own id `NF_CT_EXT_ACT_CT`, whose data is two device indices. Both
//! halves of a handle are negative as `int`, so foreign readers find no valid index, and foreign
//! writes are recognised at once. The salt is drawn for each netns at each insmod, so a handle that
//! an earlier load left is not mistaken for a current one. The caller has to check that the index
//! leads to an entry of the same connection.
//!
//! Pure: also built and tested on the host.

/// The decoded content of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    /// Zero, or a handle of an earlier load of the module: the connection has no flow.
    Empty,
    /// The number of a flow, which may be another connection's.
    Index(u32),
    /// Foreign code wrote the extension: it says nothing about a flow.
    Foreign,
}

const FLAG: u32 = 1 << 31;

/// The salt of a netns: 31 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u32);

impl Salt {
    /// Creates a salt from 31 bits of a random number.
    pub(crate) const fn new(random: u32) -> Self {
        Self(random | FLAG)
    }

    /// Returns the handle of the flow with the number `index`.
    pub(crate) const fn encode(self, index: u32) -> u64 {
        (self.0 as u64) << 32 | (index | FLAG) as u64
    }

    /// Decodes a handle.
    pub(crate) const fn decode(self, handle: u64) -> Handle {
        // CAST: To the two halves of a `u64`.
        let (high, low) = ((handle >> 32) as u32, handle as u32);
        if handle == 0 {
            Handle::Empty
        } else if high & FLAG == 0 || low & FLAG == 0 {
            Handle::Foreign
        } else if high == self.0 {
            Handle::Index(low & !FLAG)
        } else {
            Handle::Empty
        }
    }
}
