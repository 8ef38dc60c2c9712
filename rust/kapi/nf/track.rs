// SPDX-License-Identifier: GPL-2.0

//! Packets before conntrack sees them: why conntrack must track a packet itself, the inputs of its
//! tracking, and attaching the packet to its connection.
//!
//! A [`TcpGuard`] holds the lock of its `struct nf_conn`. No other lock is taken under it.
//!
//! C header: [`nf_conntrack_core.h`](srctree/include/net/netfilter/nf_conntrack_core.h)

use core::{
    mem::{offset_of, size_of},
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
            tcp::{Peer, Timeouts, Tracking},
            udp::Stream, //
        },
        sync::percpu::OneCounter, //
    },
};

/// A reason why a packet is left to conntrack: `enum nfzr_track`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untracked {
    /// No table of the packet's zones holds its tuple.
    Unknown,
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
    pub(in crate::kapi) fn check(why: bindings::nfzr_track) -> Result<(), Self> {
        if matches!(why, bindings::nfzr_track::NFZR_TRACK) {
            Ok(())
        } else {
            Self::of(why)
        }
    }

    #[cold]
    fn of(why: bindings::nfzr_track) -> Result<(), Self> {
        use bindings::nfzr_track::*;
        Err(match why {
            // Not a reason.
            NFZR_TRACK => return Ok(()),
            NFZR_UNTRACK_UNKNOWN => Self::Unknown,
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

impl<'a> TcpGuard<'a> {
    /// Locks a connection, and fails if its sequence numbers are rewritten. `timeouts` are those
    /// that it may get.
    ///
    /// # Safety
    ///
    /// The connection is TCP.
    pub(in crate::kapi) unsafe fn lock(
        ct: &'a Conn,
        timeouts: &bindings::nfzr_tcp_timeouts,
    ) -> Result<Self, Untracked> {
        // SAFETY: By the function's requirement.
        let tracking = unsafe { bindings::nfzr_helper_tcp_lock(ct.as_raw()) };
        // CAST: The layouts are equal, as asserted above.
        let tracking = NonNull::new(tracking.cast()).ok_or(Untracked::SeqAdjust)?;
        // INVARIANT: The helper took the lock.
        Ok(Self {
            ct,
            tracking,
            timeouts: Timeouts {
                established: timeouts.established,
                retrans: timeouts.retrans,
                unack: timeouts.unack,
                max_retrans: timeouts.max_retrans,
            },
            _lock: NotThreadSafe,
        })
    }

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
        unsafe { bindings::nfzr_helper_tcp_unlock(self.ct.as_raw()) };
    }
}

/// The tracking of a packet's connection, by protocol.
pub(crate) enum Session<'a> {
    /// TCP.
    Tcp(TcpGuard<'a>),
    /// UDP.
    Udp(Stream),
}

impl HookSkb<'_, PreRouting> {
    /// Attaches the packet to its connection, in place of a template, and updates the connection's
    /// timeout (in jiffies) and counters. Increments `hits`.
    #[inline(always)]
    pub(in crate::kapi) fn attach(
        &self,
        ct: ARef<Conn>,
        dir: Dir,
        timeout: u32,
        hits: [OneCounter<'_>; 2],
    ) {
        let (skb, ct) = (self.as_raw(), ARef::into_raw(ct).as_ptr().cast());
        let [one, two] = hits.map(OneCounter::as_raw);
        // SAFETY: The packet is in a hook, and gives up at most a template. It gets our reference.
        // The counters are borrowed.
        unsafe { bindings::nfzr_helper_attach(skb, ct, dir.as_raw(), timeout, one, two) };
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
