// SPDX-License-Identifier: GPL-2.0

//! The protocol families.

use crate::bindings;

/// A protocol family, as a hook is registered for one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both families.
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Returns its place in [`Self::ALL`].
    pub(crate) const fn index(self) -> usize {
        // CAST: The variant's number.
        self as usize
    }

    pub(in crate::kapi) const fn as_raw(self) -> u32 {
        match self {
            Self::Ipv4 => bindings::NFPROTO_IPV4,
            Self::Ipv6 => bindings::NFPROTO_IPV6,
        }
    }

    /// Returns the address family: `AF_INET` or `AF_INET6`.
    pub(in crate::kapi) const fn as_af(self) -> u32 {
        match self {
            Self::Ipv4 => bindings::AF_INET,
            Self::Ipv6 => bindings::AF_INET6,
        }
    }

    /// Returns the family of an address family (`AF_INET`, `AF_INET6`).
    pub(in crate::kapi) fn from_af(af: u32) -> Option<Self> {
        match af {
            bindings::AF_INET => Some(Self::Ipv4),
            bindings::AF_INET6 => Some(Self::Ipv6),
            _ => None,
        }
    }

    pub(in crate::kapi) const fn of_ipv6(is_ipv6: bool) -> Self {
        if is_ipv6 {
            Self::Ipv6
        } else {
            Self::Ipv4
        }
    }
}
