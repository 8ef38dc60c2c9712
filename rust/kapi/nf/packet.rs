// SPDX-License-Identifier: GPL-2.0

//! Packets, as a netfilter hook sees them.
//!
//! A hook's packet is the hook's alone while it runs, so its views copy what they need, and only
//! the connection and the route stay references.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::types::Opaque;

use crate::{
    bindings,
    kapi::{
        net::dst::{Dst, DstId},
        nf::{
            conn::{Conn, Dir},
            hook::{Family, State}, //
        },
    },
};

/// A packet in a hook: `struct sk_buff`.
#[repr(transparent)]
pub(crate) struct SkBuff(Opaque<bindings::sk_buff>);

/// Which packet it is, as long as it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SkbId(usize);

/// Why a packet or its route is kept out of the cache: `enum nfzr_fit`, without `NFZR_FIT`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit(u8);

impl Unfit {
    /// How many reasons there are.
    pub(crate) const COUNT: usize = bindings::nfzr_fit_NFZR_UNFIT_COUNT as usize - 1;

    fn from_raw(fit: u8) -> Option<Self> {
        (u32::from(fit) != bindings::nfzr_fit_NFZR_FIT).then_some(Self(fit))
    }

    /// 0 for the first reason.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0.wrapping_sub(1))
    }
}

/// A packet of a connection at PRE_ROUTING or FORWARD; numbers in host order.
///
/// # Invariants
///
/// `raw` was read of a packet that is in a hook for `'r`, and holds a reference on `raw.ct` meanwhile.
#[repr(transparent)]
pub(crate) struct Packet<'r> {
    raw: bindings::nfzr_packet,
    _packet: PhantomData<&'r SkBuff>,
}

/// Where a packet is read to. It is large, and so stays where it is.
pub(crate) struct Place(bindings::nfzr_packet);

impl Place {
    /// Of no packet yet.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(bindings::nfzr_packet::default())
    }
}

impl<'r> Packet<'r> {
    /// The connection, which the packet holds a reference on.
    #[inline]
    pub(crate) fn ct(&self) -> &'r Conn {
        // SAFETY: By the type invariant.
        unsafe { Conn::from_raw(self.raw.ct) }
    }

    /// Which way the packet goes.
    #[inline]
    pub(crate) fn dir(&self) -> Dir {
        Dir::from_raw(self.raw.dir)
    }

    /// What the extension holds; `None`: the connection has no extension.
    #[inline]
    pub(crate) fn handle(&self) -> Option<u64> {
        self.raw.has_ext.then_some(self.raw.handle)
    }

    /// Whether the connection is confirmed.
    #[inline]
    pub(crate) fn is_confirmed(&self) -> bool {
        self.raw.confirmed
    }

    /// Index of the receiving device.
    #[inline]
    pub(crate) fn iif(&self) -> u32 {
        self.raw.iif
    }

    /// `skb->mark`.
    #[inline]
    pub(crate) fn mark(&self) -> u32 {
        self.raw.mark
    }

    /// The DSCP bits of the TOS byte or traffic class, in place.
    #[inline]
    pub(crate) fn dscp(&self) -> u8 {
        self.raw.dscp
    }

    /// The flow label; IPv4: 0.
    #[inline]
    pub(crate) fn flowlabel(&self) -> u32 {
        self.raw.flowlabel
    }

    /// IPv4: how the receiving device checks sources: `rp_filter | src_valid_mark << 2`.
    #[inline]
    pub(crate) fn source_check(&self) -> u8 {
        self.raw.source_check
    }

    /// Why no cached route can serve the packet.
    #[inline]
    pub(crate) fn unfit(&self) -> Option<Unfit> {
        Unfit::from_raw(self.raw.fit)
    }
}

/// A route that the kernel chose, and what the cache keeps of it.
pub(crate) struct Route {
    /// The route, with a reference.
    pub(crate) dst: Dst,
    /// Index of the sending device.
    pub(crate) oif: u32,
}

/// A forwarded packet of a confirmed connection at POST_ROUTING.
pub(crate) struct Forwarded<'r> {
    /// The connection, which the packet holds a reference on.
    pub(crate) ct: &'r Conn,
    /// Which way the packet goes.
    pub(crate) dir: Dir,
    /// What the extension holds; `None`: the connection has no extension.
    pub(crate) handle: Option<u64>,
    /// The route that the packet goes by.
    pub(crate) dst: DstId,
    /// Index of the device that it came in by.
    pub(crate) iif: u32,
    /// Conntrack may drop the connection early to make room.
    pub(crate) unassured: bool,
    /// It goes into IPsec.
    pub(crate) xfrm: bool,
}

impl SkBuff {
    /// # Safety
    ///
    /// `skb` is a packet that is in a hook, and the hook's alone, for `'a`.
    pub(in crate::kapi) unsafe fn from_raw<'a>(skb: *mut bindings::sk_buff) -> &'a Self {
        // CAST: `SkBuff` is transparent over `struct sk_buff`.
        // SAFETY: By the function's requirement.
        unsafe { &*skb.cast() }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::sk_buff {
        self.0.get()
    }

    /// Whether it has a connection that is not confirmed.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        // SAFETY: The packet is in a hook.
        unsafe { bindings::nfzr_helper_is_unconfirmed(self.as_raw()) }
    }

    /// Reads the packet at PRE_ROUTING or FORWARD; `None`: it has no connection, or is untracked.
    #[inline(always)]
    pub(crate) fn packet<'p, 'r>(
        &self,
        place: &'p mut Place,
        state: &State<'r>,
    ) -> Option<&'p Packet<'r>> {
        let read = match state.family() {
            Family::Ipv4 => bindings::nfzr_helper_packet4,
            Family::Ipv6 => bindings::nfzr_helper_packet6,
        };
        // SAFETY: The packet is in this hook, with this state, under RCU, and of that family.
        if !unsafe { read(self.0.get(), state.as_raw(), &mut place.0) } {
            return None;
        }
        let packet = core::ptr::from_ref(&place.0).cast::<Packet<'r>>();
        // INVARIANT: Read just now.
        // CAST: `Packet` is transparent over it.
        // SAFETY: From a reference that lasts as long.
        Some(unsafe { &*packet })
    }

    /// Adds our extension, with `handle`, to the packet's unconfirmed connection; `false`: it has
    /// one, or there is no memory.
    pub(crate) fn add_extension(&self, packet: &Packet<'_>, handle: u64) -> bool {
        if packet.is_confirmed() {
            return false;
        }
        // SAFETY: The connection is unconfirmed, so nobody but this packet's hook has it.
        unsafe { bindings::nfzr_helper_ct_ext_add(packet.ct().as_raw(), handle) }
    }

    /// Has the kernel choose the packet's route, as it would right after this hook, and tells
    /// which it was. When it chose one the packet has it, whatever the answer; when it found none an
    /// IPv4 packet has none, and the kernel will repeat the lookup and drop it for its own reason.
    pub(crate) fn route(&self, state: &State<'_>) -> Result<Route, Unfit> {
        let mut raw = bindings::nfzr_route::default();
        let choose = match state.family() {
            Family::Ipv4 => bindings::nfzr_helper_route4,
            Family::Ipv6 => bindings::nfzr_helper_route6,
        };
        // SAFETY: The packet is in a PRE_ROUTING hook, under RCU, of that family, and has no route.
        unsafe { choose(self.0.get(), &mut raw) };
        match (Unfit::from_raw(raw.fit), NonNull::new(raw.dst)) {
            (None, Some(dst)) => Ok(Route {
                // SAFETY: The helper took a reference for us, and the cookie with it.
                dst: unsafe { Dst::from_raw(dst, raw.cookie, raw.multipath) },
                oif: raw.oif,
            }),
            (unfit, _) => Err(unfit.unwrap_or(Unfit(bindings::nfzr_fit_NFZR_UNFIT_GONE as u8))),
        }
    }

    /// Gives the packet a cached route without a reference; `false`: the kernel no longer holds
    /// the route for valid, and the packet is as it was.
    ///
    /// The packet must not have a route: [`Packet::unfit`] says so of one that has.
    #[inline(always)]
    pub(crate) fn use_route<'r>(&self, dst: &'r Dst, state: &State<'r>) -> bool {
        let give = match state.family() {
            Family::Ipv4 => bindings::nfzr_helper_use_dst4,
            Family::Ipv6 => bindings::nfzr_helper_use_dst6,
        };
        let (cookie, multipath) = (dst.cookie(), dst.multipath());
        // SAFETY: A connection, and so its routes, is of its packets' family. The slot that owns `dst`
        // outlives the read-side critical section that the packet is handled in, and whoever queues
        // the packet takes a reference of his own.
        unsafe { give(self.0.get(), dst.as_raw(), cookie, multipath) }
    }

    /// Which packet it is, to be compared and for nothing else.
    pub(crate) fn id(&self) -> SkbId {
        SkbId(self.0.get() as usize)
    }

    /// Whether the packet goes the way of a route; `None`: nothing can be said, since its own was
    /// chosen before a change, or replaced. First in FORWARD.
    pub(crate) fn goes_by(&self, dst: &Dst, _state: &State<'_>) -> Option<bool> {
        let (mut known, dst) = (false, dst.as_raw());
        // SAFETY: The packet is in this hook, under RCU; its connection's routes are of its family, and
        // `dst` is kept by its owner.
        let same = unsafe { bindings::nfzr_helper_goes_by(self.0.get(), dst, &mut known) };
        known.then_some(same)
    }

    /// Reads the packet at POST_ROUTING; `None`: it is not forwarded, or has no confirmed
    /// connection of its own.
    #[inline(always)]
    pub(crate) fn forwarded<'r>(&self, state: &State<'r>) -> Option<Forwarded<'r>> {
        let mut raw = bindings::nfzr_forwarded::default();
        // SAFETY: The packet is in this hook, with this state, under RCU.
        if !unsafe { bindings::nfzr_helper_forwarded(self.0.get(), state.as_raw(), &mut raw) } {
            return None;
        }
        Some(Forwarded {
            // SAFETY: The packet holds a reference on its connection while it is in the hook.
            ct: unsafe { Conn::from_raw(raw.ct) },
            dir: Dir::from_raw(raw.dir),
            handle: raw.has_ext.then_some(raw.handle),
            dst: DstId(raw.dst),
            iif: raw.iif,
            unassured: raw.unassured,
            xfrm: raw.xfrm,
        })
    }
}
