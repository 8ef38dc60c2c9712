// SPDX-License-Identifier: GPL-2.0

//! Packets before conntrack sees them: what is read of one, what decides how conntrack would track
//! it, and how it is given its connection.
//!
//! `struct nf_conn`'s lock is held by a [`TcpGuard`], and nothing else is under it.
//!
//! C header: [`include/net/netfilter/nf_conntrack_core.h`](srctree/include/net/netfilter/nf_conntrack_core.h)

use core::{
    mem::{offset_of, size_of},
    ptr::NonNull, //
};

use kernel::{
    static_assert,
    types::NotThreadSafe, //
};

use crate::{
    bindings,
    kapi::nf::{
        conn::{Conn, Dir},
        hook::State,
        packet::SkBuff,
        tcp::{Peer, Segment, Timeouts, Tracking},
        udp::Stream, //
    },
};

/// Why a packet is left to conntrack: `enum nfzr_track`, without `NFZR_TRACK`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Untracked(u8);

impl Untracked {
    /// How many reasons there are.
    pub(crate) const COUNT: usize = bindings::nfzr_track_NFZR_UNTRACK_COUNT as usize - 1;

    fn from_raw(why: u8) -> Result<(), Self> {
        if u32::from(why) == bindings::nfzr_track_NFZR_TRACK {
            Ok(())
        } else {
            Err(Self(why))
        }
    }

    /// 0 for the first reason.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0.wrapping_sub(1))
    }
}

/// What was read of a packet that conntrack has not seen yet.
pub(crate) struct Probe(bindings::nfzr_probe);

impl Probe {
    /// Of no packet yet.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(bindings::nfzr_probe::default())
    }

    /// Whether it is of a kind that is looked up.
    pub(crate) fn fit(&self) -> Result<(), Untracked> {
        Untracked::from_raw(self.0.why)
    }

    /// The packet's zone, if it goes this way.
    pub(crate) fn zone(&self, dir: Dir) -> u16 {
        let [original, reply] = self.0.zone;
        match dir {
            Dir::Original => original,
            Dir::Reply => reply,
        }
    }

    /// What is looked at of it if it is TCP and goes this way.
    pub(crate) fn segment(&self, dir: Dir) -> Segment {
        Segment {
            reply: dir == Dir::Reply,
            flags: self.0.flags,
            plain: self.0.plain,
            win: self.0.win,
            seq: self.0.seq,
            ack: self.0.ack,
            end: self.0.end,
        }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *const bindings::nfzr_probe {
        &self.0
    }
}

// What `track` changes is conntrack's own.
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
    /// The state, to be changed.
    pub(crate) fn tracking(&mut self) -> &mut Tracking {
        // SAFETY: By the type invariant, for as long as the guard is borrowed.
        unsafe { self.tracking.as_mut() }
    }

    /// The timeouts that the connection may get.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
}

impl Drop for TcpGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: The lock is held, by the type invariant.
        unsafe { bindings::nfzr_helper_tcp_end(self.ct.as_raw()) };
    }
}

/// How a connection that is found is tracked.
pub(crate) enum Protocol<'a> {
    /// TCP.
    Tcp(TcpGuard<'a>),
    /// UDP.
    Udp(Stream),
}

/// What conntrack made of a packet.
pub(crate) struct Attached<'r> {
    /// The connection, which the packet holds a reference on.
    pub(crate) ct: &'r Conn,
    /// Which way the packet goes.
    pub(crate) dir: Dir,
    /// It is of the connection itself, which was answered.
    pub(crate) established: bool,
    /// What the extension holds; `None`: the connection has no extension.
    pub(crate) handle: Option<u64>,
}

impl SkBuff {
    /// Reads a packet at PRE_ROUTING before conntrack does, into a new `probe`; `false`: conntrack knows
    /// it already, or is not to see it.
    #[inline]
    pub(crate) fn probe(&self, probe: &mut Probe, state: &State<'_>) -> bool {
        // SAFETY: The packet is in this hook, with this state, under RCU.
        unsafe { bindings::nfzr_helper_probe(self.as_raw(), state.as_raw(), &mut probe.0) }
    }

    /// Makes sure that conntrack would find nothing wrong with the packet nor unusual with the
    /// connection, and has what decides the rest; for TCP, the connection's lock is taken.
    #[inline]
    pub(crate) fn begin<'a>(
        &self,
        ct: &'a Conn,
        probe: &Probe,
        state: &State<'_>,
    ) -> Result<Protocol<'a>, Untracked> {
        if ct.is_tcp() {
            self.begin_tcp(ct, probe, state).map(Protocol::Tcp)
        } else {
            self.begin_udp(ct, probe, state).map(Protocol::Udp)
        }
    }

    fn begin_tcp<'a>(
        &self,
        ct: &'a Conn,
        probe: &Probe,
        state: &State<'_>,
    ) -> Result<TcpGuard<'a>, Untracked> {
        let mut raw = bindings::nfzr_tcp_timeouts::default();
        let mut why = 0;
        // SAFETY: The packet is in this hook, with this state, under RCU; the connection is TCP.
        let tracking = unsafe {
            bindings::nfzr_helper_tcp_begin(
                self.as_raw(),
                state.as_raw(),
                ct.as_raw(),
                probe.as_raw(),
                &mut raw,
                &mut why,
            )
        };
        // CAST: The layouts are the same, as asserted above.
        let tracking = NonNull::new(tracking.cast()).ok_or(Untracked(why))?;
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

    #[inline]
    fn begin_udp(&self, ct: &Conn, probe: &Probe, state: &State<'_>) -> Result<Stream, Untracked> {
        let mut raw = bindings::nfzr_udp::default();
        // SAFETY: The packet is in this hook, with this state, under RCU; the connection is UDP.
        let why = unsafe {
            bindings::nfzr_helper_udp_begin(
                self.as_raw(),
                state.as_raw(),
                ct.as_raw(),
                probe.as_raw(),
                &mut raw,
            )
        };
        // CAST: There are fewer than 256.
        Untracked::from_raw(why as u8)?;
        Ok(Stream {
            now: raw.now,
            since: raw.since,
            assured: raw.assured,
            unreplied: raw.unreplied,
            replied: raw.replied,
        })
    }

    /// Gives the packet its connection, in the place of a template, and the connection its timeout
    /// (in jiffies) and its counters.
    ///
    /// The packet must be one that [`SkBuff::probe`] read in this hook.
    pub(crate) fn attach(&self, ct: &Conn, dir: Dir, timeout: u32) {
        // SAFETY: The packet is in a hook and has no connection but perhaps a template, which it
        // gives up; a `&Conn` is under a reference.
        unsafe { bindings::nfzr_helper_attach(self.as_raw(), ct.as_raw(), dir.as_raw(), timeout) };
    }

    /// What conntrack made of the packet; `None`: it has no connection.
    pub(crate) fn attached<'r>(&self, _state: &State<'r>) -> Option<Attached<'r>> {
        let mut raw = bindings::nfzr_attached::default();
        // SAFETY: The packet is in this hook.
        if !unsafe { bindings::nfzr_helper_attached(self.as_raw(), &mut raw) } {
            return None;
        }
        Some(Attached {
            // SAFETY: The packet holds a reference on its connection while it is in the hook.
            ct: unsafe { Conn::from_raw(raw.ct) },
            dir: Dir::from_raw(raw.dir),
            established: raw.established,
            handle: raw.has_ext.then_some(raw.handle),
        })
    }
}

impl Conn {
    /// A copy of the state, if the connection is TCP.
    pub(crate) fn tcp(&self) -> Option<Tracking> {
        if !self.is_tcp() {
            return None;
        }
        let mut tracking = Tracking::default();
        // CAST: The layouts are the same, as asserted above.
        let to = core::ptr::from_mut(&mut tracking).cast();
        // SAFETY: A `&Conn` is valid, and so is `to`.
        unsafe { bindings::nfzr_helper_tcp_copy(self.as_raw(), to) };
        Some(tracking)
    }

    /// When the connection's time is up, as low 32 bits of jiffies; `None`: its timeout is fixed.
    pub(crate) fn expiry(&self) -> Option<u32> {
        let mut expiry = 0;
        // SAFETY: A `&Conn` is valid, and so is `expiry`.
        unsafe { bindings::nfzr_helper_ct_expiry(self.as_raw(), &mut expiry) }.then_some(expiry)
    }
}
