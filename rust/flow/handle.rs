// SPDX-License-Identifier: GPL-2.0

//! The handle that the ct extension carries: `[1|salt:31][1|index:31]`.
//!
//! The extension's id is the kernel's own `NF_CT_EXT_ACT_CT`, two device indices. Both halves of a
//! handle are negative as `int`, so a foreign reader finds no valid index, and a foreign write is
//! seen at once. The salt is drawn for each netns at each insmod, so a handle that an earlier load
//! left is not taken for ours; that the index leads to an entry of the very connection is for the
//! caller to check.
//!
//! Pure: also built and tested on the host.

/// What an extension holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    /// Nothing yet, or what an earlier load of the module left: the connection has no flow.
    Empty,
    /// The number of a flow, if it is that connection's.
    Index(u32),
    /// Somebody else's writing: the extension says nothing about a flow.
    Foreign,
}

const FLAG: u32 = 1 << 31;

/// The salt of a netns: 31 bits of what random number it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u32);

impl Salt {
    /// Takes 31 bits of a random number.
    pub(crate) const fn new(random: u32) -> Self {
        Self(random | FLAG)
    }

    /// The handle of a flow.
    pub(crate) const fn encode(self, index: u32) -> u64 {
        (self.0 as u64) << 32 | (index | FLAG) as u64
    }

    /// Reads a handle.
    pub(crate) const fn decode(self, handle: u64) -> Handle {
        // CAST: The two halves of a `u64`.
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
