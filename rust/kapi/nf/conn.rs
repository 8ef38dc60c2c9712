// SPDX-License-Identifier: GPL-2.0

//! Connections: `struct nf_conn`, its tuples, zones and extension.
//!
//! C header: [`include/net/netfilter/nf_conntrack.h`](srctree/include/net/netfilter/nf_conntrack.h)

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr::NonNull, //
};

use kernel::{
    fmt,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        net::netns::Net,
        nf::hook::Family, //
    },
};

/// A direction of a connection: `enum ip_conntrack_dir`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dir {
    /// As the connection's first packet went.
    Original = 0,
    /// The other way.
    Reply = 1,
}

impl Dir {
    /// Both, in C's order.
    pub(crate) const ALL: [Self; 2] = [Self::Original, Self::Reply];

    pub(in crate::kapi) fn from_raw(dir: u8) -> Self {
        if dir == 0 {
            Self::Original
        } else {
            Self::Reply
        }
    }

    pub(in crate::kapi) fn as_raw(self) -> u8 {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }
}

/// A connection: `struct nf_conn`. Owned as `ARef<Conn>`, which holds one reference on it.
///
/// A reference that is never dropped keeps its netns from ever going away.
#[repr(transparent)]
pub(crate) struct Conn(Opaque<bindings::nf_conn>);

// SAFETY: A `struct nf_conn` is used by all CPUs; what is done with it here is made for that.
unsafe impl Send for Conn {}
// SAFETY: As above.
unsafe impl Sync for Conn {}

// SAFETY: The count of `struct nf_conntrack`: a `&Conn` is under a reference, so a further one may
// be taken, and the connection stays while one is held.
unsafe impl AlwaysRefCounted for Conn {
    fn inc_ref(&self) {
        // SAFETY: Valid, and somebody holds a reference on it.
        unsafe { bindings::nfzr_helper_ct_get(self.as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up the reference that it has.
        unsafe { bindings::nfzr_helper_ct_put(obj.cast().as_ptr()) };
    }
}

/// Which connection it is, as long as somebody holds a reference on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnId(usize);

impl Conn {
    /// # Safety
    ///
    /// `ct` is a connection on which somebody holds a reference for `'a`.
    pub(in crate::kapi) unsafe fn from_raw<'a>(ct: *mut bindings::nf_conn) -> &'a Self {
        // CAST: `Conn` is transparent over `struct nf_conn`.
        // SAFETY: By the function's requirement.
        unsafe { &*ct.cast() }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::nf_conn {
        self.0.get()
    }

    /// Whether the connection is dying or its time is up. Nothing announces that. Any context.
    pub(crate) fn is_gone(&self) -> bool {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_gone(self.as_raw()) }
    }

    /// Whether conntrack keeps the connection even when it needs room.
    pub(crate) fn is_assured(&self) -> bool {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_assured(self.as_raw()) }
    }

    /// Which connection it is, to be compared and for nothing else.
    pub(crate) fn id(&self) -> ConnId {
        ConnId(self.as_raw() as usize)
    }

    /// The family of its packets.
    pub(crate) fn family(&self) -> Family {
        // SAFETY: A `&Conn` is valid.
        if unsafe { bindings::nfzr_helper_ct_is_ipv6(self.as_raw()) } {
            Family::Ipv6
        } else {
            Family::Ipv4
        }
    }

    /// Whether the connection is TCP.
    pub(crate) fn is_tcp(&self) -> bool {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_is_tcp(self.as_raw()) }
    }

    /// The zone that the connection was given, whichever directions it counts in.
    pub(crate) fn own_zone(&self) -> u16 {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_own_zone(self.as_raw()) }
    }

    /// Ends the connection as `conntrack -D` does; `true`: by this call. Does not sleep.
    pub(crate) fn delete(&self) -> bool {
        // SAFETY: A `&Conn` is under a reference, and confirmed connections may be deleted.
        unsafe { bindings::nf_ct_delete(self.as_raw(), 0, 0) }
    }

    /// The zone id of a direction; mirrors `nf_ct_zone_id()`.
    pub(crate) fn zone(&self, dir: Dir) -> u16 {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_zone(self.as_raw(), dir.as_raw()) }
    }

    /// The netns, which stays as long as its connections.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: A `&Conn` is valid, and its netns is not freed before it.
        unsafe { Net::from_raw(bindings::nfzr_helper_ct_net(self.as_raw())) }
    }

    /// A direction's tuple, copied.
    pub(crate) fn tuple(&self, dir: Dir) -> Tuple {
        let mut tuple = bindings::nfzr_tuple::default();
        // SAFETY: A `&Conn` is valid, and so is `tuple`.
        unsafe { bindings::nfzr_helper_ct_tuple(self.as_raw(), dir.as_raw(), &mut tuple) };
        Tuple(tuple)
    }

    /// Writes our handle into the extension, if the connection has it.
    pub(crate) fn set_handle(&self, handle: u64) {
        // SAFETY: A `&Conn` is valid, and a confirmed connection's extensions do not move.
        unsafe { bindings::nfzr_helper_ct_ext_set(self.as_raw(), handle) };
    }
}

/// A copy of a direction's tuple, for showing.
pub(crate) struct Tuple(bindings::nfzr_tuple);

impl Tuple {
    /// The source address.
    pub(crate) fn src(&self) -> Addr {
        Addr::new(self.0.l3num, self.0.src)
    }

    /// The destination address.
    pub(crate) fn dst(&self) -> Addr {
        Addr::new(self.0.l3num, self.0.dst)
    }

    /// The ports, or what the protocol has in their place, in host order.
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

    /// The zone of this direction.
    pub(crate) fn zone(&self) -> u16 {
        self.0.zone
    }

    /// "ipv4" or "ipv6".
    pub(crate) fn l3name(&self) -> &'static str {
        if u32::from(self.0.l3num) == bindings::AF_INET {
            "ipv4"
        } else {
            "ipv6"
        }
    }

    /// The transport protocol.
    pub(crate) fn protocol(&self) -> Protocol {
        Protocol(self.0.protonum)
    }
}

/// What tells connections between two hosts apart, shown as /proc/net/nf_conntrack does.
pub(crate) enum Ports {
    /// TCP, UDP and their like.
    Port {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP.
    Icmp {
        /// The message's type.
        kind: u16,
        /// The message's code.
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

/// A transport protocol's number, shown by its name where conntrack has one.
pub(crate) struct Protocol(u8);

impl fmt::Display for Protocol {
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

/// An address, for showing.
pub(crate) struct Addr(IpAddr);

impl Addr {
    /// From its bytes in network order, of which IPv4 has four.
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
