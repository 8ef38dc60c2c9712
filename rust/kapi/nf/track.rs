// SPDX-License-Identifier: GPL-2.0

//! Packets before conntrack sees them: reading a packet, the inputs of conntrack's tracking, and
//! attaching the packet to its connection.
//!
//! A [`TcpGuard`] holds the lock of its `struct nf_conn`. No other lock is taken under it.
//!
//! C header: [`nf_conntrack_core.h`](srctree/include/net/netfilter/nf_conntrack_core.h)

use core::{
    mem::{offset_of, size_of, MaybeUninit},
    ptr::NonNull, //
};

use kernel::{
    static_assert,
    sync::aref::ARef,
    types::NotThreadSafe, //
};

use crate::{
    bindings,
    kapi::{
        nf::{
            conn::{Conn, Dir},
            skb::{HookSkb, PreRouting},
            tcp::{Peer, Segment, Timeouts, Tracking},
            udp::Stream, //
        },
        sync::rcu::ReadSide, //
    },
};

/// A reason why a packet is left to conntrack: `enum nfzr_track`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untracked {
    /// Neither TCP nor UDP, or IPv6 extension headers.
    Protocol,
    /// IP options.
    Options,
    /// A fragment.
    Fragment,
    /// Invalid headers or lengths.
    Malformed,
    /// A wrong checksum.
    Checksum,
    /// SYN, FIN or RST, or no ACK.
    TcpFlags,
    /// The connection is dead.
    Gone,
    /// The connection has seen no reply.
    Unreplied,
    /// The TCP connection is not ASSURED.
    Unassured,
    /// The connection's sequence numbers are rewritten.
    SeqAdjust,
    /// The connection clashed with another.
    Clash,
    /// The connection is in a flowtable.
    Offload,
    /// The connection has a helper.
    Helper,
}

impl Untracked {
    #[inline(always)]
    fn check(why: bindings::nfzr_track) -> Result<(), Self> {
        use bindings::nfzr_track::*;
        Err(match why {
            NFZR_TRACK => return Ok(()),
            NFZR_UNTRACK_PROTOCOL => Self::Protocol,
            NFZR_UNTRACK_OPTIONS => Self::Options,
            NFZR_UNTRACK_FRAGMENT => Self::Fragment,
            NFZR_UNTRACK_MALFORMED => Self::Malformed,
            NFZR_UNTRACK_CHECKSUM => Self::Checksum,
            NFZR_UNTRACK_TCP_FLAGS => Self::TcpFlags,
            NFZR_UNTRACK_GONE => Self::Gone,
            NFZR_UNTRACK_UNREPLIED => Self::Unreplied,
            NFZR_UNTRACK_UNASSURED => Self::Unassured,
            NFZR_UNTRACK_SEQ_ADJUST => Self::SeqAdjust,
            NFZR_UNTRACK_CLASH => Self::Clash,
            NFZR_UNTRACK_OFFLOAD => Self::Offload,
            NFZR_UNTRACK_HELPER => Self::Helper,
        })
    }
}

/// Returns whether the prediction of conntrack's tracking was compared with conntrack of the series
/// of kernels that the module was built for.
pub(crate) fn is_tracking_verified() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_helper_is_tracking_verified() }
}

/// Memory for a [`Probe`], which is too large to be copied.
pub(crate) struct ProbeBuf(MaybeUninit<bindings::nfzr_probe>);

impl ProbeBuf {
    /// Creates memory that is not initialised.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

/// A packet that conntrack has not seen yet, of a kind that is looked up, and the fields that were
/// read from it.
///
/// # Invariants
///
/// `raw` was read from `skb`.
pub(crate) struct Probe<'p, 'r> {
    raw: &'p bindings::nfzr_probe,
    skb: &'p HookSkb<'r, PreRouting>,
}

// Tracking changes conntrack's own memory.
static_assert!(size_of::<Tracking>() == size_of::<bindings::ip_ct_tcp>());
static_assert!(size_of::<Peer>() == size_of::<bindings::ip_ct_tcp_state>());

macro_rules! same_offset {
    ($($ours:ident::$field:ident = $theirs:ident::$c_field:ident,)*) => {
        $(static_assert!(
            offset_of!($ours, $field) == offset_of!(bindings::$theirs, $c_field)
        );)*
    };
}

same_offset! {
    Peer::end = ip_ct_tcp_state::td_end,
    Peer::max_end = ip_ct_tcp_state::td_maxend,
    Peer::max_win = ip_ct_tcp_state::td_maxwin,
    Peer::max_ack = ip_ct_tcp_state::td_maxack,
    Peer::scale = ip_ct_tcp_state::td_scale,
    Peer::flags = ip_ct_tcp_state::flags,
    Tracking::seen = ip_ct_tcp::seen,
    Tracking::state = ip_ct_tcp::state,
    Tracking::last_dir = ip_ct_tcp::last_dir,
    Tracking::retrans = ip_ct_tcp::retrans,
    Tracking::last_index = ip_ct_tcp::last_index,
    Tracking::last_seq = ip_ct_tcp::last_seq,
    Tracking::last_ack = ip_ct_tcp::last_ack,
    Tracking::last_end = ip_ct_tcp::last_end,
    Tracking::last_win = ip_ct_tcp::last_win,
    Tracking::last_wscale = ip_ct_tcp::last_wscale,
    Tracking::last_flags = ip_ct_tcp::last_flags,
}

/// A TCP connection's state, under the connection's lock.
///
/// # Invariants
///
/// The lock of `ct` is held, and `tracking` is its state.
pub(crate) struct TcpGuard<'a> {
    ct: &'a Conn,
    tracking: NonNull<Tracking>,
    timeouts: Timeouts,
    _lock: NotThreadSafe,
}

impl TcpGuard<'_> {
    /// Returns the state, for changing it.
    pub(crate) fn tracking(&mut self) -> &mut Tracking {
        // SAFETY: By the type invariant the lock is held, for as long as the guard is borrowed.
        unsafe { self.tracking.as_mut() }
    }

    /// Returns the timeouts that the connection may get.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
}

impl Drop for TcpGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::nfzr_helper_tcp_end(self.ct.as_raw()) };
    }
}

/// The tracking of a packet's connection, by protocol.
pub(crate) enum Session<'a> {
    /// TCP.
    Tcp(TcpGuard<'a>),
    /// UDP.
    Udp(Stream),
}

impl<'r> HookSkb<'r, PreRouting> {
    /// Reads a packet before conntrack does. Returns `None` if the packet has a connection, is
    /// untracked or comes from br_netfilter; the reason, if it is not of a kind that is looked up.
    #[inline(always)]
    pub(crate) fn probe<'p>(
        &'p self,
        buf: &'p mut ProbeBuf,
    ) -> Option<Result<Probe<'p, 'r>, Untracked>> {
        let (skb, state, to) = (self.as_raw(), self.state(), buf.0.as_mut_ptr());
        // SAFETY: The packet is in this hook, with this state, under RCU.
        if !unsafe { bindings::nfzr_helper_probe(skb, state, to) } {
            return None;
        }
        // SAFETY: The helper filled this field.
        let fit = Untracked::check(unsafe { (*to).why });
        // INVARIANT: Read above.
        Some(fit.map(|()| Probe {
            // SAFETY: The helper filled all fields, because the packet is fit.
            raw: unsafe { buf.0.assume_init_ref() },
            skb: self,
        }))
    }
}

impl<'r> Probe<'_, 'r> {
    pub(in crate::kapi) fn as_raw(&self) -> *const bindings::nfzr_probe {
        self.raw
    }

    /// Returns the read side that the hook is called in.
    #[inline(always)]
    pub(crate) fn rcu(&self) -> &ReadSide<'r> {
        self.skb.rcu()
    }

    /// Returns the packet's zone, if the packet goes in this direction.
    #[inline(always)]
    pub(crate) fn zone(&self, dir: Dir) -> u16 {
        let [original, reply] = self.raw.zone;
        match dir {
            Dir::Original => original,
            Dir::Reply => reply,
        }
    }

    /// Returns the fields of a TCP packet that tracking looks at, if the packet goes in this
    /// direction.
    pub(crate) fn segment(&self, dir: Dir) -> Segment {
        Segment {
            reply: dir == Dir::Reply,
            flags: self.raw.flags,
            plain: self.raw.plain,
            win: self.raw.win,
            seq: self.raw.seq,
            ack: self.raw.ack,
            end: self.raw.end,
        }
    }

    /// Checks that conntrack would accept the packet and do nothing unusual with `ct`, and returns
    /// the inputs of the rest of the tracking. For TCP, this takes the connection's lock.
    #[inline(always)]
    pub(crate) fn begin<'a>(&self, ct: &'a Conn) -> Result<Session<'a>, Untracked> {
        if ct.is_tcp() {
            self.begin_tcp(ct).map(Session::Tcp)
        } else {
            self.begin_udp(ct).map(Session::Udp)
        }
    }

    fn begin_tcp<'a>(&self, ct: &'a Conn) -> Result<TcpGuard<'a>, Untracked> {
        let mut raw = bindings::nfzr_tcp_timeouts::default();
        let mut why = bindings::nfzr_track::NFZR_TRACK;
        // SAFETY: By the type invariant the packet is in this hook, with this state, under RCU, and
        // `raw` was read from it; the connection is TCP.
        let tracking = unsafe {
            bindings::nfzr_helper_tcp_begin(
                self.skb.as_raw(),
                self.skb.state(),
                ct.as_raw(),
                self.as_raw(),
                &mut raw,
                &mut why,
            )
        };
        Untracked::check(why)?;
        // CAST: The layouts are equal, as asserted above.
        let tracking = NonNull::new(tracking.cast()).ok_or(Untracked::Gone)?;
        // INVARIANT: The helper took the lock.
        Ok(TcpGuard {
            ct,
            tracking,
            timeouts: Timeouts {
                established: raw.established,
                retrans: raw.retrans,
                unack: raw.unack,
                max_retrans: raw.max_retrans,
            },
            _lock: NotThreadSafe,
        })
    }

    #[inline(always)]
    fn begin_udp(&self, ct: &Conn) -> Result<Stream, Untracked> {
        let mut raw = MaybeUninit::<bindings::nfzr_udp>::uninit();
        // SAFETY: As in `begin_tcp`; the connection is UDP.
        let why = unsafe {
            bindings::nfzr_helper_udp_begin(
                self.skb.as_raw(),
                self.skb.state(),
                ct.as_raw(),
                self.as_raw(),
                raw.as_mut_ptr(),
            )
        };
        Untracked::check(why)?;
        // SAFETY: The helper filled it.
        let raw = unsafe { raw.assume_init() };
        Ok(Stream {
            now: raw.now,
            since: raw.since,
            assured: raw.assured,
            unreplied: raw.unreplied,
            replied: raw.replied,
        })
    }

    /// Attaches the packet to its connection, in place of a template, and updates the connection's
    /// timeout (in jiffies) and counters.
    #[inline(always)]
    pub(crate) fn attach(&self, ct: ARef<Conn>, dir: Dir, timeout: u32) {
        let ct = ARef::into_raw(ct).as_ptr().cast();
        // SAFETY: The packet is in a hook, and gives up at most a template. It gets our reference.
        unsafe { bindings::nfzr_helper_attach(self.skb.as_raw(), ct, dir.as_raw(), timeout) };
    }
}

impl Conn {
    /// Returns a copy of the tracking state, if the connection is TCP.
    pub(crate) fn tcp(&self) -> Option<Tracking> {
        if !self.is_tcp() {
            return None;
        }
        let mut tracking = Tracking::default();
        // CAST: The layouts are equal, as asserted above.
        let to = core::ptr::from_mut(&mut tracking).cast();
        // SAFETY: A `&Conn` is valid, and so is `to`.
        unsafe { bindings::nfzr_helper_tcp_copy(self.as_raw(), to) };
        Some(tracking)
    }

    /// Returns when the connection expires, as low 32 bits of jiffies, or `None` if its timeout is
    /// fixed.
    pub(crate) fn expiry(&self) -> Option<u32> {
        let mut expiry = 0;
        // SAFETY: A `&Conn` is valid, and so is `expiry`.
        unsafe { bindings::nfzr_helper_ct_expiry(self.as_raw(), &mut expiry) }.then_some(expiry)
    }
}
