// SPDX-License-Identifier: GPL-2.0

//! Jumps: packets that leave the host from the hook before conntrack, because it is known what
//! would become of them.
//!
//! Softirq.

use core::{
    marker::PhantomData,
    mem::{offset_of, size_of},
    ptr::{self, NonNull}, //
};

use kernel::{static_assert, sync::aref::ARef};

use crate::{
    bindings,
    kapi::{
        mem::slab::Object,
        net::{dst::Dst, family::Family},
        nf::{
            conn::Conn,
            skb::{HookSkb, Ingress, PreRouting, SkbId, Verdict}, //
        },
        sync::percpu::OneCounter,
    },
};

/// A reason why a packet does not jump: `enum nfzr_stay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    /// Its direction has no pass.
    Unlearned,
    /// The firewall has changed.
    Rules,
    /// There are IPsec policies for forwarded packets.
    Ipsec,
    /// The packet is of a kind that never jumps.
    Packet,
    /// The packet differs from the one that was observed.
    Entry,
    /// Its TTL ends here.
    Ttl,
    /// It is larger than the MTU.
    Mtu,
    /// The connection has another mark.
    CtMark,
    /// The connection has labels.
    CtLabels,
    /// The route is not valid any more.
    Route,
    /// A device does not forward, or not send, packets of the family.
    Device,
    /// There is no memory for a neighbour, or its device does not allow one.
    Neighbour,
    /// There is no memory.
    NoMemory,
    /// An earlier packet of the direction may still be on its way.
    Order,
    /// Events of the connection wait to be reported.
    Events,
    /// Conntrack may drop the connection early.
    Unassured,
}

impl Stays {
    /// Returns the reason for a number of C's, if it is one.
    #[inline(always)]
    pub(in crate::kapi) fn check(stay: bindings::nfzr_stay) -> Result<(), Self> {
        if matches!(stay, bindings::nfzr_stay::NFZR_JUMP) {
            Ok(())
        } else {
            Self::of(stay)
        }
    }

    #[cold]
    fn of(stay: bindings::nfzr_stay) -> Result<(), Self> {
        use bindings::nfzr_stay::*;
        Err(match stay {
            // Not a reason.
            NFZR_JUMP => return Ok(()),
            NFZR_STAY_UNLEARNED => Self::Unlearned,
            NFZR_STAY_RULES => Self::Rules,
            NFZR_STAY_IPSEC => Self::Ipsec,
            NFZR_STAY_PACKET => Self::Packet,
            NFZR_STAY_ENTRY => Self::Entry,
            NFZR_STAY_TTL => Self::Ttl,
            NFZR_STAY_MTU => Self::Mtu,
            NFZR_STAY_CT_MARK => Self::CtMark,
            NFZR_STAY_CT_LABELS => Self::CtLabels,
            NFZR_STAY_ROUTE => Self::Route,
            NFZR_STAY_DEVICE => Self::Device,
            NFZR_STAY_NEIGHBOUR => Self::Neighbour,
            NFZR_STAY_NO_MEMORY => Self::NoMemory,
            NFZR_STAY_ORDER => Self::Order,
            NFZR_STAY_EVENTS => Self::Events,
            NFZR_STAY_UNASSURED => Self::Unassured,
        })
    }
}

/// The identity of the owner of a pass: the address of its connection's entry.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct OwnerId(usize);

impl OwnerId {
    /// Returns the identity of an entry, which means something only while the entry exists.
    #[inline(always)]
    pub(crate) fn new<T>(entry: &T) -> Self {
        Self(ptr::from_ref(entry).addr())
    }
}

/// What becomes of the packets of a connection's direction: their route, and the fields that rules
/// may have changed.
#[repr(C)]
pub(crate) struct Pass {
    dst: Dst,
    entry: bindings::nfzr_entry,
    ct_mark: u32,
    mark: u32,
    priority: u32,
    owner: OwnerId,
}

static_assert!(size_of::<Pass>() == size_of::<bindings::nfzr_pass>());
static_assert!(offset_of!(Pass, dst) == offset_of!(bindings::nfzr_pass, cached));
static_assert!(offset_of!(Pass, entry) == offset_of!(bindings::nfzr_pass, entry));
static_assert!(offset_of!(Pass, ct_mark) == offset_of!(bindings::nfzr_pass, ct_mark));
static_assert!(offset_of!(Pass, mark) == offset_of!(bindings::nfzr_pass, mark));
static_assert!(offset_of!(Pass, priority) == offset_of!(bindings::nfzr_pass, priority));
static_assert!(offset_of!(Pass, owner) == offset_of!(bindings::nfzr_pass, owner));

impl Pass {
    /// Returns what becomes of the owner's packets by a route, otherwise as `observed`.
    pub(super) fn new(dst: Dst, observed: bindings::nfzr_pass, owner: OwnerId) -> Self {
        Self {
            dst,
            entry: observed.entry,
            ct_mark: observed.ct_mark,
            mark: observed.mark,
            priority: observed.priority,
            owner,
        }
    }
}

/// A pass, and the terms on which packets may jump by it. The helpers read the pass.
#[repr(C)]
pub(crate) struct Learned<T> {
    pass: Pass,
    terms: T,
}

static_assert!(offset_of!(Learned<()>, pass) == 0);
static_assert!(offset_of!(Object<Learned<()>>, value) == 0);

impl<T> Learned<T> {
    /// Joins a pass and its terms.
    pub(crate) fn new(pass: Pass, terms: T) -> Self {
        Self { pass, terms }
    }

    /// Returns the route.
    #[inline(always)]
    pub(crate) fn dst(&self) -> &Dst {
        &self.pass.dst
    }

    /// Returns the terms.
    #[inline(always)]
    pub(crate) fn terms(&self) -> &T {
        &self.terms
    }

    /// Returns the identity of the entry whose packets it is for.
    #[inline(always)]
    pub(crate) fn owner(&self) -> OwnerId {
        self.pass.owner
    }
}

/// The marks of the connections whose packets may jump.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The mark, in the bits of the mask.
    pub(crate) mark: u32,
    /// If it is 0, there are no such connections.
    pub(crate) mask: u32,
}

impl Marks {
    /// Returns whether this is the mark of such a connection.
    #[inline(always)]
    pub(crate) fn has(self, mark: u32) -> bool {
        self.mask != 0 && mark & self.mask == self.mark
    }
}

/// A packet that is tracked and leaves: all checks are done.
///
/// # Invariants
///
/// `raw` was filled by a lookup of the packet `skb` that found `conn`, and a pass by which the
/// packet may jump.
pub(crate) struct Jump<'b, 'r, At = PreRouting> {
    raw: NonNull<bindings::nfzr_lookup>,
    skb: SkbId,
    conn: ARef<Conn>,
    timeout: u32,
    counters: [OneCounter<'r>; 2],
    _buf: PhantomData<&'b mut bindings::nfzr_lookup>,
    _at: PhantomData<At>,
}

impl<'r, At> Jump<'_, 'r, At> {
    /// # Safety
    ///
    /// `raw` was filled by a lookup of `skb` that found `conn`, and a pass by which the packet may
    /// jump. It is valid for `'b`, and what it points to for `'r`.
    #[inline(always)]
    pub(in crate::kapi) unsafe fn from_raw(
        raw: NonNull<bindings::nfzr_lookup>,
        skb: SkbId,
        conn: ARef<Conn>,
        timeout: u32,
        counters: [OneCounter<'r>; 2],
    ) -> Self {
        // INVARIANT: By the function's requirement.
        Self {
            raw,
            skb,
            conn,
            timeout,
            counters,
            _buf: PhantomData,
            _at: PhantomData,
        }
    }
}

impl<'r, At> HookSkb<'r, At> {
    /// # Safety
    ///
    /// `leave` is the helper for packets at this point, of this family.
    #[inline(always)]
    unsafe fn leave(self, jump: Jump<'_, 'r, At>, leave: Leave) -> Verdict {
        if jump.skb != self.id() {
            return self.accept();
        }
        let (raw, timeout) = (jump.raw.as_ptr(), jump.timeout);
        let [in_zone, in_net] = jump.counters.map(OneCounter::as_raw);
        // The helper gives the reference to the packet.
        let _ = ARef::into_raw(jump.conn);
        // SAFETY: By the type invariants of the jump, which is this packet's. The packet is given
        // up here. The counters are borrowed.
        unsafe { leave(self.as_raw(), self.state(), raw, timeout, in_zone, in_net) };
        Verdict::stolen()
    }
}

/// Attaches a packet to its connection, and sends it.
type Leave = unsafe extern "C" fn(
    *mut bindings::sk_buff,
    *const bindings::nf_hook_state,
    *const bindings::nfzr_lookup,
    u32,
    *mut u64,
    *mut u64,
);

impl<'r> HookSkb<'r, PreRouting> {
    /// Attaches the packet to its connection, updates the connection's timeout and counters, and
    /// sends the packet, if the jump is this packet's. Otherwise lets it continue.
    #[inline(always)]
    pub(crate) fn jump(self, jump: Jump<'_, 'r>) -> Verdict {
        let leave = match self.family() {
            Family::Ipv4 => bindings::nfzr_helper_leave4,
            Family::Ipv6 => bindings::nfzr_helper_leave6,
        };
        // SAFETY: As chosen above.
        unsafe { self.leave(jump, leave) }
    }
}

impl<'r> HookSkb<'r, Ingress> {
    /// As for a packet in PRE_ROUTING.
    #[inline(always)]
    pub(crate) fn jump(self, jump: Jump<'_, 'r, Ingress>) -> Verdict {
        // SAFETY: The helper is for both families.
        unsafe { self.leave(jump, bindings::nfzr_helper_ingress_leave) }
    }
}
