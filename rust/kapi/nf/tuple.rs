// SPDX-License-Identifier: GPL-2.0

//! The tuples of connections, for display.

use kernel::fmt;

use crate::{
    bindings,
    kapi::{
        net::addr::Addr,
        nf::conn::Dir, //
    },
};

/// A copy of a direction's tuple, for display.
pub(crate) struct Tuple(bindings::nfzr_tuple);

impl Tuple {
    /// # Safety
    ///
    /// The memory of `ct` is a `struct nf_conn` during the call.
    pub(super) unsafe fn read(ct: *const bindings::nf_conn, dir: Dir) -> Self {
        let mut tuple = bindings::nfzr_tuple::default();
        // SAFETY: By the function's requirement; `tuple` is valid.
        unsafe { bindings::nfzr_helper_ct_tuple(ct, dir.as_raw(), &mut tuple) };
        Self(tuple)
    }

    /// Returns the source address.
    pub(crate) fn src(&self) -> Addr {
        Addr::new(self.0.l3num, self.0.src)
    }

    /// Returns the destination address.
    pub(crate) fn dst(&self) -> Addr {
        Addr::new(self.0.l3num, self.0.dst)
    }

    /// Returns the ports, or the protocol's equivalent, in host order.
    pub(crate) fn ports(&self) -> Ports {
        match u32::from(self.0.protonum) {
            bindings::IPPROTO_ICMP | bindings::IPPROTO_ICMPV6 => Ports::Icmp {
                kind: self.0.dport >> 8,
                code: self.0.dport & 0xff,
                id: self.0.sport,
            },
            _ => Ports::Port {
                src: self.0.sport,
                dst: self.0.dport,
            },
        }
    }

    /// Returns the zone of this direction.
    pub(crate) fn zone(&self) -> u16 {
        self.0.zone
    }

    /// Returns "ipv4" or "ipv6".
    pub(crate) fn l3name(&self) -> &'static str {
        if u32::from(self.0.l3num) == bindings::AF_INET {
            "ipv4"
        } else {
            "ipv6"
        }
    }

    /// Returns the transport protocol.
    pub(crate) fn protocol(&self) -> ProtoName {
        ProtoName(self.0.protonum)
    }
}

/// The fields that distinguish connections between two hosts, shown as in /proc/net/nf_conntrack.
pub(crate) enum Ports {
    /// TCP, UDP and similar protocols.
    Port {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
    },
    /// ICMP.
    Icmp {
        /// The message type.
        kind: u16,
        /// The message code.
        code: u16,
        /// The identifier.
        id: u16,
    },
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { src, dst } => write!(f, "sport={src} dport={dst}"),
            Self::Icmp { kind, code, id } => write!(f, "type={kind} code={code} id={id}"),
        }
    }
}

/// A transport protocol number, shown by name if conntrack has a name for it.
pub(crate) struct ProtoName(u8);

impl fmt::Display for ProtoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match u32::from(self.0) {
            bindings::IPPROTO_ICMP => "icmp",
            bindings::IPPROTO_TCP => "tcp",
            bindings::IPPROTO_UDP => "udp",
            bindings::IPPROTO_DCCP => "dccp",
            bindings::IPPROTO_GRE => "gre",
            bindings::IPPROTO_ICMPV6 => "icmpv6",
            bindings::IPPROTO_SCTP => "sctp",
            bindings::IPPROTO_UDPLITE => "udplite",
            _ => return write!(f, "proto-{}", self.0),
        };
        f.write_str(name)
    }
}
