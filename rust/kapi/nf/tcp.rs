// SPDX-License-Identifier: GPL-2.0

//! Conntrack's state of a TCP connection, and the parts of a segment that conntrack examines.
//!
//! Pure: also built on the host. `kapi::nf::track` checks that the layout matches C.
//!
//! C header: [`nf_conntrack_tcp.h`](srctree/include/linux/netfilter/nf_conntrack_tcp.h)

/// One side of a connection: `struct ip_ct_tcp_state`. Sequence numbers wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Peer {
    /// The highest sequence number sent, plus length.
    pub(crate) end: u32,
    /// How far this side may send: the highest acknowledgment plus window of the other side.
    pub(crate) max_end: u32,
    /// The largest window that this side advertised, in bytes; 0: none was seen.
    pub(crate) max_win: u32,
    /// The highest acknowledgment sent.
    pub(crate) max_ack: u32,
    /// The window scale of this side.
    pub(crate) scale: u8,
    /// [`Peer::SACK_PERM`] and others.
    pub(crate) flags: u8,
}

impl Peer {
    /// `IP_CT_TCP_FLAG_SACK_PERM`: this side accepts selective acknowledgments.
    pub(crate) const SACK_PERM: u8 = 0x02;
    /// `IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED`: this side has sent data that is not acknowledged yet.
    pub(crate) const DATA_UNACKNOWLEDGED: u8 = 0x10;
    /// `IP_CT_TCP_FLAG_MAXACK_SET`: `max_ack` is valid.
    pub(crate) const MAXACK_SET: u8 = 0x20;
}

/// Conntrack's state of a connection: `struct ip_ct_tcp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Tracking {
    /// Both sides, the original direction's sender first.
    pub(crate) seen: [Peer; 2],
    /// `enum tcp_conntrack`.
    pub(crate) state: u8,
    /// The last packet's direction.
    pub(crate) last_dir: u8,
    /// The number of times that the last segment was repeated.
    pub(crate) retrans: u8,
    /// The last packet's kind.
    pub(crate) last_index: u8,
    /// The last segment's sequence number.
    pub(crate) last_seq: u32,
    /// The last segment's acknowledgment.
    pub(crate) last_ack: u32,
    /// The last segment's sequence number plus length.
    pub(crate) last_end: u32,
    /// The last segment's window, as in the header.
    pub(crate) last_win: u16,
    /// For SYNs while out of sync.
    pub(crate) last_wscale: u8,
    /// For SYNs while out of sync.
    pub(crate) last_flags: u8,
}

impl Tracking {
    /// `TCP_CONNTRACK_ESTABLISHED`.
    pub(crate) const ESTABLISHED: u8 = 3;
    /// `TCP_ACK_SET`: the kind of a packet with ACK but no RST, SYN or FIN.
    pub(crate) const ACK_SET: u8 = 3;
}

/// The parts of a segment that conntrack examines, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Whether the segment has the reply direction.
    pub(crate) reply: bool,
    /// The flags: the header's byte 13.
    pub(crate) flags: u8,
    /// The segment has no selective acknowledgment, the only option that conntrack examines here.
    pub(crate) plain: bool,
    /// The window, as in the header.
    pub(crate) win: u16,
    /// The sequence number.
    pub(crate) seq: u32,
    /// The acknowledgment.
    pub(crate) ack: u32,
    /// The sequence number plus length.
    pub(crate) end: u32,
}

impl Segment {
    /// FIN.
    pub(crate) const FIN: u8 = 0x01;
    /// SYN.
    pub(crate) const SYN: u8 = 0x02;
    /// RST.
    pub(crate) const RST: u8 = 0x04;
    /// ACK.
    pub(crate) const ACK: u8 = 0x10;
}

/// The timeouts that an established connection may get, in jiffies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For an established connection.
    pub(crate) established: u32,
    /// After too many retransmissions, or a closed window.
    pub(crate) retrans: u32,
    /// While data is not acknowledged.
    pub(crate) unack: u32,
    /// The limit of retransmissions: sysctl nf_conntrack_tcp_max_retrans.
    pub(crate) max_retrans: u8,
}
