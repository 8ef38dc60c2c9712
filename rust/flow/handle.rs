// SPDX-License-Identifier: GPL-2.0

//! The handle that the ct extension carries: `[1|salt:31][1|value:31]`. While the connection has no
//! flow, the value is the number of its packets (0 to 255), else the number of its flow plus 255.
//!
//! The extension has the kernel's own id `NF_CT_EXT_ACT_CT`, whose data is two device indices. Both
//! halves of a handle are negative as `int`, so foreign readers find no valid index, and foreign
//! writes are recognised at once. The salt is drawn for each netns at each insmod, so a handle that
//! an earlier load left is not mistaken for a current one. Code that uses the flow has to check
//! that it is of the same connection.
//!
//! Pure: also built and tested on the host.

/// The decoded content of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    /// The connection has no flow. The number of its packets that were counted: 0 for the handle of
    /// an earlier load of the module.
    Count(u8),
    /// The number of a flow, which may be another connection's.
    Index(u32),
    /// Foreign code wrote the extension: it says nothing about a flow.
    Foreign,
}

const FLAG: u32 = 1 << 31;

/// The highest count of packets. The values above it are those of flows.
const COUNTS: u32 = u8::MAX as u32;

/// The count of a connection whose flow ended: it may get another one at once.
pub(crate) const ENOUGH: u8 = u8::MAX;

/// The highest number of a flow; the lowest is 1.
pub(crate) const MAX_INDEX: u32 = i32::MAX as u32 - COUNTS;

/// The salt of a netns: 31 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u32);

impl Salt {
    /// Creates a salt from 31 bits of a random number.
    pub(crate) const fn new(random: u32) -> Self {
        Self(random | FLAG)
    }

    /// Returns the handle of the flow with the number `index`: 1 to [`MAX_INDEX`].
    pub(crate) const fn index(self, index: u32) -> u64 {
        self.encode(index.wrapping_add(COUNTS))
    }

    /// Returns the handle of a connection without a flow, of which `count` packets were counted.
    pub(crate) const fn count(self, count: u8) -> u64 {
        self.encode(count as u32)
    }

    const fn encode(self, value: u32) -> u64 {
        (self.0 as u64) << 32 | (value | FLAG) as u64
    }

    /// Decodes a handle.
    pub(crate) const fn decode(self, handle: u64) -> Handle {
        // CAST: To the two halves of a `u64`.
        let (high, low) = ((handle >> 32) as u32, handle as u32);
        let value = low & !FLAG;
        if handle == 0 {
            Handle::Count(0)
        } else if high & FLAG == 0 || low & FLAG == 0 {
            Handle::Foreign
        } else if high != self.0 {
            Handle::Count(0)
        } else if value > COUNTS {
            Handle::Index(value.wrapping_sub(COUNTS))
        } else {
            // CAST: At most `COUNTS`.
            Handle::Count(value as u8)
        }
    }
}
