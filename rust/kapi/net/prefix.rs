// SPDX-License-Identifier: GPL-2.0

//! IPv4 prefixes, and the cells in which changes of routes to them are noted.
//!
//! Addresses are in host order. Pure: also built and tested on the host.

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// An address in the prefix.
    pub(crate) addr: u32,
    /// The length in bits, at most 32.
    pub(crate) len: u32,
}

/// The IPv4 addresses for which packets are routed: after DNAT and before SNAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The destination.
    pub(crate) to: u32,
    /// The source.
    pub(crate) from: u32,
}

/// Prefixes of one length. Longer prefixes are noted by their first bits.
struct Level {
    len: u32,
    /// The number of its first cell.
    first: usize,
    /// It has `1 << bits` cells.
    bits: u32,
}

/// From the longest to the shortest.
const LEVELS: [Level; 3] = [
    Level {
        len: 24,
        first: 0,
        bits: 10,
    },
    Level {
        len: 16,
        first: 1 << 10,
        bits: 8,
    },
    Level {
        len: 8,
        first: (1 << 10) + (1 << 8),
        bits: 8,
    },
];

/// The number of cells.
pub(crate) const CELLS: usize = (1 << 10) + 2 * (1 << 8);

impl Level {
    /// `GOLDEN_RATIO_32` of `include/linux/hash.h`.
    const RATIO: u32 = 0x61c8_8647;

    /// Returns the cell of an address, which it shares with others: `hash_32()`.
    fn cell(&self, addr: u32) -> usize {
        let bits = addr >> u32::BITS.saturating_sub(self.len);
        let hash = bits.wrapping_mul(Self::RATIO) >> u32::BITS.saturating_sub(self.bits);
        // CAST: At most 10 bits.
        self.first.saturating_add(hash as usize)
    }
}

impl Prefix {
    /// Returns the cell in which a change of a route to the prefix is noted, or `None` if the
    /// prefix is so short that the change is noted for all addresses.
    pub(crate) fn cell(self) -> Option<usize> {
        let level = LEVELS.iter().find(|level| level.len <= self.len)?;
        Some(level.cell(self.addr))
    }
}

/// Returns the cells in which changes are noted of routes to all prefixes that contain an address,
/// but for the shortest.
pub(crate) fn cells_of(addr: u32) -> [usize; 3] {
    LEVELS.each_ref().map(|level| level.cell(addr))
}
