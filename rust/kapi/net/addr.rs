// SPDX-License-Identifier: GPL-2.0

//! Addresses, for display.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::fmt;

use crate::bindings;

/// An address, for display.
pub(crate) struct Addr(IpAddr);

impl Addr {
    /// Creates an address from its bytes in network order. IPv4 uses the first four.
    pub(in crate::kapi) fn new(family: u16, bytes: [u8; 16]) -> Self {
        if u32::from(family) == bindings::AF_INET {
            let [a, b, c, d, ..] = bytes;
            Self(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        } else {
            Self(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}
