// SPDX-License-Identifier: GPL-2.0

//! Packets of tracked connections: the headers that routing looks at, and the packet's route.
//!
//! C headers: [`include/linux/ip.h`](srctree/include/linux/ip.h),
//! [`include/net/route.h`](srctree/include/net/route.h)

use core::{
    marker::PhantomData,
    mem::{offset_of, size_of, MaybeUninit},
    ptr::{self, NonNull}, //
};

use kernel::{static_assert, sync::atomic::Atomic};

use crate::{
    bindings,
    kapi::{
        net::{
            dst::{Choice, Dst, DstId},
            family::Family,
            netns::Net, //
        },
        nf::{
            conn::CtRef,
            key::Key,
            skb::{Forward, HookSkb, Point, PostRouting, PreRouting}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// A reason why a packet or its route is kept out of the cache: `enum nfzr_fit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// IP options, or IPv6 extension headers.
    Options,
    /// A fragment, or reassembled from fragments.
    Fragment,
    /// Not addressed to this host's link-layer address.
    NotHost,
    /// The packet has a socket.
    Socket,
    /// The packet was decapsulated by IPsec.
    Secpath,
    /// The packet comes from br_netfilter.
    Bridge,
    /// The packet has a route.
    HasDst,
    /// A device of the packet or its route is an L3 master or slave.
    L3mdev,
    /// An ICMP error about the connection.
    Related,
    /// Addresses or ports differ from those that conntrack and NAT left.
    Rewritten,
    /// A link-local or multicast address of IPv6.
    Scope,
    /// The kernel has no route.
    NoRoute,
    /// The route is not a plain unicast route to another host.
    NotUnicast,
    /// The route leads back to the receiving device.
    SameDevice,
    /// The route has a lightweight tunnel.
    Lwtunnel,
    /// The route is an exception of IPv6 (a learned MTU or a redirect), or one of IPv4 that the
    /// kernel does not keep.
    Pmtu,
    /// A redirect may change the choice of the route without ending the route.
    Uncached,
    /// The choice of the nexthop depends on more than the connection and the key.
    Multipath,
    /// Rules select by fields that the key lacks.
    Rules,
    /// The route was released while it was looked up.
    Gone,
}

impl Unfit {
    #[inline(always)]
    fn check(fit: bindings::nfzr_fit) -> Result<(), Self> {
        use bindings::nfzr_fit::*;
        Err(match fit {
            NFZR_FIT => return Ok(()),
            NFZR_UNFIT_OPTIONS => Self::Options,
            NFZR_UNFIT_FRAGMENT => Self::Fragment,
            NFZR_UNFIT_NOT_HOST => Self::NotHost,
            NFZR_UNFIT_SOCKET => Self::Socket,
            NFZR_UNFIT_SECPATH => Self::Secpath,
            NFZR_UNFIT_BRIDGE => Self::Bridge,
            NFZR_UNFIT_HAS_DST => Self::HasDst,
            NFZR_UNFIT_L3MDEV => Self::L3mdev,
            NFZR_UNFIT_RELATED => Self::Related,
            NFZR_UNFIT_REWRITTEN => Self::Rewritten,
            NFZR_UNFIT_SCOPE => Self::Scope,
            NFZR_UNFIT_NO_ROUTE => Self::NoRoute,
            NFZR_UNFIT_NOT_UNICAST => Self::NotUnicast,
            NFZR_UNFIT_SAME_DEVICE => Self::SameDevice,
            NFZR_UNFIT_LWTUNNEL => Self::Lwtunnel,
            NFZR_UNFIT_PMTU => Self::Pmtu,
            NFZR_UNFIT_UNCACHED => Self::Uncached,
            NFZR_UNFIT_MULTIPATH => Self::Multipath,
            NFZR_UNFIT_RULES => Self::Rules,
            NFZR_UNFIT_GONE => Self::Gone,
        })
    }
}

/// Why a cached route did not serve a packet: `enum nfzr_served`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The packet may not take it, but others may.
    Other,
    /// It is not valid any more.
    Outdated,
}

/// The key of a packet, and whether a cached route may serve the packet.
pub(crate) struct Headers(bindings::nfzr_headers);

static_assert!(size_of::<Key>() == size_of::<bindings::nfzr_key>());
static_assert!(offset_of!(Key, iif) == offset_of!(bindings::nfzr_key, iif));
static_assert!(offset_of!(Key, mark) == offset_of!(bindings::nfzr_key, mark));
static_assert!(offset_of!(Key, rest) == offset_of!(bindings::nfzr_key, rest));
static_assert!(Key::CLASS_SHIFT == bindings::NFZR_KEY_CLASS_SHIFT);

impl Headers {
    /// Returns the key.
    pub(crate) fn key(&self) -> Key {
        Key {
            iif: self.0.key.iif,
            mark: self.0.key.mark,
            rest: self.0.key.rest,
        }
    }

    /// Returns the hash by which the kernel may choose among nexthops; never 0.
    pub(crate) fn path_hash(&self) -> u16 {
        self.0.path_hash
    }

    /// Returns whether a cached route may serve the packet, or the reason why not.
    #[inline(always)]
    pub(crate) fn fit(&self) -> Result<(), Unfit> {
        Unfit::check(self.0.fit)
    }
}

/// `NFZR_ANY_DSCP` as a flag of [`Choice`].
// CAST: As asserted below.
const ANY_DSCP: u8 = bindings::NFZR_ANY_DSCP as u8;
static_assert!(bindings::NFZR_ANY_DSCP <= u8::MAX as u32);

/// A route that the kernel chose, with the fields that the cache keeps.
pub(crate) struct Route {
    /// The route, with a reference.
    pub(crate) dst: Dst,
    /// The index of the sending device.
    pub(crate) oif: u32,
}

/// The route that the kernel chose for a packet, without a reference of its own.
///
/// # Invariants
///
/// `dst` is a route that was chosen as `choice` says. The packet keeps it for `'p`.
pub(crate) struct Chosen<'p> {
    pub(in crate::kapi) dst: NonNull<bindings::dst_entry>,
    pub(in crate::kapi) choice: Choice,
    pub(in crate::kapi) genid: u32,
    pub(in crate::kapi) oif: u32,
    pub(in crate::kapi) _skb: PhantomData<&'p ()>,
}

impl Chosen<'_> {
    /// If this is the route `old`, chosen in the same way, notes there that the kernel chose it
    /// again. Returns whether it is.
    pub(crate) fn renew(&self, old: &Dst) -> bool {
        let is_same = ptr::eq(self.dst.as_ptr(), old.as_raw()) && self.choice == old.choice();
        if is_same {
            old.set_genid(self.genid);
        }
        is_same
    }

    /// Returns whether packets go the same way by this route as by `old`: by one device, to one
    /// gateway.
    pub(crate) fn leads_as(&self, old: &Dst, _rcu: &ReadSide<'_>) -> bool {
        self.choice == old.choice()
            // SAFETY: Both are routes of one family, and this is under RCU.
            && unsafe { bindings::nfzr_helper_same_way(old.as_raw(), self.dst.as_ptr()) }
    }

    /// Takes a reference on the route.
    pub(crate) fn keep(&self) -> Result<Route, Unfit> {
        // SAFETY: By the type invariant the packet keeps the route.
        if !unsafe { bindings::nfzr_helper_dst_hold(self.dst.as_ptr()) } {
            return Err(Unfit::Gone);
        }
        Ok(Route {
            // SAFETY: The reference was taken above, and the rest holds by the type invariant.
            dst: unsafe { Dst::from_raw(self.dst, self.choice, self.genid) },
            oif: self.oif,
        })
    }
}

/// A forwarded packet of a confirmed connection at POST_ROUTING.
pub(crate) struct Forwarded<'p> {
    /// The packet's connection and direction.
    pub(crate) ct: CtRef<'p>,
    /// The route that the packet takes.
    pub(crate) dst: DstId,
    /// The index of the receiving device.
    pub(crate) iif: u32,
    /// Conntrack may drop the connection early.
    pub(crate) unassured: bool,
    /// The packet goes into IPsec.
    pub(crate) xfrm: bool,
}

impl<P: Point> HookSkb<'_, P> {
    /// Reads the packet's headers. Returns `None` if the packet has no receiving device that is
    /// configured for its family.
    #[inline(always)]
    pub(crate) fn headers(&self, ct: &CtRef<'_>) -> Option<Headers> {
        let read = match self.family() {
            Family::Ipv4 => bindings::nfzr_helper_headers4,
            Family::Ipv6 => bindings::nfzr_helper_headers6,
        };
        let mut raw = MaybeUninit::uninit();
        // SAFETY: The packet is in this hook, with this state, under RCU, and of that family.
        if !unsafe { read(self.as_raw(), self.state(), ct.as_raw(), raw.as_mut_ptr()) } {
            return None;
        }
        // SAFETY: The helper filled it.
        Some(Headers(unsafe { raw.assume_init() }))
    }
}

impl<'r> HookSkb<'r, PreRouting> {
    /// Makes the kernel choose the packet's route, as it would right after this hook, and returns
    /// the choice. `any_dscp` tells that the choice does not depend on the DSCP. A packet that gets
    /// a route keeps it, even if this returns an error. An IPv4 packet without a route gets none,
    /// and the kernel repeats the lookup and drops it with its own reason.
    pub(crate) fn route(&self, any_dscp: bool) -> Result<Chosen<'_>, Unfit> {
        let mut raw = bindings::nfzr_route::default();
        let choose = match self.family() {
            Family::Ipv4 => bindings::nfzr_helper_route4,
            Family::Ipv6 => bindings::nfzr_helper_route6,
        };
        // SAFETY: The packet is in a PRE_ROUTING hook, under RCU, and of that family.
        unsafe { choose(self.as_raw(), &mut raw) };
        Unfit::check(raw.fit)?;
        let dst = NonNull::new(raw.dst).ok_or(Unfit::Gone)?;
        let choice = Choice {
            family: self.family(),
            path_hash: raw.choice.path_hash,
            flags: if any_dscp {
                raw.choice.flags | ANY_DSCP
            } else {
                raw.choice.flags
            },
        };
        // INVARIANT: The helper gave the packet this route. A packet with a route gets no other in
        // this hook.
        Ok(Chosen {
            dst,
            choice,
            genid: raw.choice.genid,
            oif: raw.oif,
            _skb: PhantomData,
        })
    }

    /// Attaches a cached route, without a reference, to a packet of the connection `ct`, if the
    /// route was chosen for packets with the packet's key and is valid for the kernel, and
    /// increments `hits`. Otherwise fails, with both unchanged.
    #[inline(always)]
    pub(crate) fn serve(
        &self,
        ct: &CtRef<'_>,
        dst: &'r Dst,
        key: &Key,
        hits: &Atomic<i64>,
    ) -> Result<(), Unserved> {
        if dst.family() != self.family() {
            return Err(Unserved::Other);
        }
        let (skb, state, ct) = (self.as_raw(), self.state(), ct.as_raw());
        let cached = dst.as_cached();
        // CAST: An `Atomic<i64>` is an `atomic64_t`.
        let hits = hits.as_ptr().cast();
        // CAST: The layouts are equal, as asserted above.
        let key = ptr::from_ref(key).cast();
        let served = match self.family() {
            // SAFETY: The packet is in this hook, with this state and this connection, under RCU.
            // The route is of the packet's family. Its owner outlives `'r`, the read-side critical
            // section in which the packet is processed; code that queues the packet takes a
            // reference.
            Family::Ipv4 => unsafe {
                bindings::nfzr_helper_serve4(skb, state, ct, key, cached, hits)
            },
            // SAFETY: As above.
            Family::Ipv6 => unsafe {
                bindings::nfzr_helper_serve6(skb, state, ct, key, cached, hits)
            },
        };
        match served {
            bindings::nfzr_served::NFZR_SERVED => Ok(()),
            bindings::nfzr_served::NFZR_SERVED_NOT => Err(Unserved::Other),
            bindings::nfzr_served::NFZR_SERVED_ENDED => Err(Unserved::Outdated),
        }
    }
}

impl HookSkb<'_, Forward> {
    /// Returns whether the packet takes the same way as a route. Returns `None` if that cannot be
    /// decided, because the packet's route was chosen before a change, or was replaced.
    pub(crate) fn goes_by(&self, dst: &Dst) -> Option<bool> {
        if dst.family() != self.family() {
            return None;
        }
        let (skb, route, mut known) = (self.as_raw(), dst.as_raw(), false);
        // SAFETY: The packet is in this hook, under RCU, and `dst` is of its family and is kept by
        // its owner.
        let same = unsafe { bindings::nfzr_helper_goes_by(skb, route, &mut known) };
        known.then_some(same)
    }
}

impl HookSkb<'_, PostRouting> {
    /// Reads a forwarded packet. Returns `None` if the packet is not forwarded, or has no confirmed
    /// connection of its own.
    #[inline(always)]
    pub(crate) fn forwarded(&self) -> Option<Forwarded<'_>> {
        let (skb, state) = (self.as_raw(), self.state());
        let mut raw = MaybeUninit::uninit();
        // SAFETY: The packet is in this hook, with this state, under RCU.
        if !unsafe { bindings::nfzr_helper_forwarded(skb, state, raw.as_mut_ptr()) } {
            return None;
        }
        // SAFETY: The helper filled it.
        let raw = unsafe { raw.assume_init() };
        Some(Forwarded {
            // SAFETY: Read from this packet, which is in the hook for as long as it is borrowed.
            ct: unsafe { CtRef::from_raw(raw.ct) },
            dst: DstId(raw.dst),
            iif: raw.iif,
            unassured: raw.unassured,
            xfrm: raw.xfrm,
        })
    }
}

impl Net {
    /// Returns whether forwarded packets of this netns may go into IPsec. Any context.
    pub(crate) fn has_ipsec_policies(&self) -> bool {
        // SAFETY: A `&Net` is valid.
        unsafe { bindings::nfzr_helper_may_transform(self.as_raw()) }
    }
}
