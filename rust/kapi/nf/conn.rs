// SPDX-License-Identifier: GPL-2.0

//! Connections: `struct nf_conn`, its tuples, zones and extension.
//!
//! C header: [`include/net/netfilter/nf_conntrack.h`](srctree/include/net/netfilter/nf_conntrack.h)

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};

use kernel::{
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        net::{
            family::Family,
            netns::Net, //
        },
        nf::skb::{HookSkb, Point},
        sync::rcu::ReadSide, //
    },
};

/// A direction of a connection: `enum ip_conntrack_dir`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dir {
    /// The direction of the connection's first packet.
    Original = 0,
    /// The opposite direction.
    Reply = 1,
}

impl Dir {
    /// Both directions, in C's order.
    pub(crate) const ALL: [Self; 2] = [Self::Original, Self::Reply];

    pub(in crate::kapi) fn as_raw(self) -> u8 {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }
}

/// A connection: `struct nf_conn`. Owned as `ARef<Conn>`, which holds one reference on it.
///
/// A leaked reference keeps the connection's netns alive for ever.
#[repr(transparent)]
pub(crate) struct Conn(Opaque<bindings::nf_conn>);

// SAFETY: A `struct nf_conn` is used by all CPUs, and the operations used here allow that.
unsafe impl Send for Conn {}
// SAFETY: As above.
unsafe impl Sync for Conn {}

// SAFETY: The count is that of `struct nf_conntrack`. A reference is held while a `&Conn` exists,
// so another one may be taken, and the connection lives while a reference is held.
unsafe impl AlwaysRefCounted for Conn {
    fn inc_ref(&self) {
        // SAFETY: A `&Conn` is valid, and a reference on it is held.
        unsafe { bindings::nfzr_helper_ct_get(self.as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up its reference.
        unsafe { bindings::nfzr_helper_ct_put(obj.cast().as_ptr()) };
    }
}

/// Identity of a connection, meaningful only while a reference on the connection is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnId(usize);

impl ConnId {
    pub(in crate::kapi) fn of_raw(ct: *const bindings::nf_conn) -> Self {
        Self(ct as usize)
    }
}

impl Conn {
    /// # Safety
    ///
    /// `ct` is a connection on which a reference is held for `'a`.
    pub(in crate::kapi) unsafe fn from_raw<'a>(ct: *mut bindings::nf_conn) -> &'a Self {
        // CAST: `Conn` is transparent over `struct nf_conn`.
        // SAFETY: By the function's requirement.
        unsafe { &*ct.cast() }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::nf_conn {
        self.0.get()
    }

    /// Returns whether the connection is dying or expired. Neither is announced. Any context.
    pub(crate) fn is_gone(&self) -> bool {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_gone(self.as_raw()) }
    }

    /// Returns the connection's identity, for comparison only.
    pub(crate) fn id(&self) -> ConnId {
        ConnId::of_raw(self.as_raw())
    }

    /// Returns whether the connection is TCP.
    pub(crate) fn is_tcp(&self) -> bool {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_is_tcp(self.as_raw()) }
    }

    /// Returns the connection's mark.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_mark(self.as_raw()) }
    }

    /// Returns the zone assigned to the connection, regardless of the directions it applies to.
    pub(crate) fn own_zone(&self) -> u16 {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_own_zone(self.as_raw()) }
    }

    /// Deletes the connection as `conntrack -D` does, if it is confirmed. Returns whether this call
    /// did. Does not sleep.
    pub(crate) fn delete(&self) -> bool {
        // SAFETY: A reference on a `&Conn` is held.
        unsafe { bindings::nfzr_helper_ct_delete(self.as_raw()) }
    }

    /// Returns the zone id of a direction; mirrors `nf_ct_zone_id()`.
    pub(crate) fn zone(&self, dir: Dir) -> u16 {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_helper_ct_zone(self.as_raw(), dir.as_raw()) }
    }

    /// Replaces the handle `old` in the extension by `new`, if the connection is confirmed and has
    /// the extension. Otherwise returns the content of the extension, or `old` if there is none.
    /// Any context.
    pub(crate) fn replace_handle(&self, mut old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: A `&Conn` is valid, and so is `old`.
        let done = unsafe { bindings::nfzr_helper_ct_ext_replace(self.as_raw(), &mut old, new) };
        done.then_some(()).ok_or(old)
    }
}

/// A packet's connection, and the direction in which the packet goes.
///
/// # Invariants
///
/// `raw` was read from a packet that is in a hook for `'p` and holds a reference on `raw.ct`.
#[repr(transparent)]
pub(crate) struct CtRef<'p> {
    raw: bindings::nfzr_ct_ref,
    _packet: PhantomData<&'p Conn>,
}

impl<'p> CtRef<'p> {
    /// # Safety
    ///
    /// `raw` was read from a packet that is in a hook for `'p`.
    pub(in crate::kapi) unsafe fn from_raw(raw: bindings::nfzr_ct_ref) -> Self {
        // INVARIANT: By the function's requirement. A packet in a hook keeps its connection.
        Self {
            raw,
            _packet: PhantomData,
        }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *const bindings::nfzr_ct_ref {
        &self.raw
    }

    /// Returns the connection.
    #[inline]
    pub(crate) fn conn(&self) -> &'p Conn {
        // SAFETY: By the type invariant.
        unsafe { Conn::from_raw(self.raw.ct) }
    }

    /// Returns the direction in which the packet goes.
    #[inline]
    pub(crate) fn dir(&self) -> Dir {
        // `CTINFO2DIR()`.
        if self.raw.ctinfo >= bindings::ip_conntrack_info_IP_CT_IS_REPLY {
            Dir::Reply
        } else {
            Dir::Original
        }
    }

    /// Returns the content of the extension, or `None` if the connection has no extension.
    #[inline]
    pub(crate) fn handle(&self) -> Option<u64> {
        self.raw.has_ext.then_some(self.raw.handle)
    }

    /// Replaces the content of the extension by `new`, unless it changed after the packet was read.
    /// Returns the content if it did. Any context.
    pub(crate) fn replace_handle(&self, new: u64) -> Result<(), u64> {
        self.conn().replace_handle(self.raw.handle, new)
    }

    /// Returns whether [`HookSkb::count_ct`] counted the packet, or tried to.
    #[inline]
    pub(crate) fn was_counted(&self) -> bool {
        self.raw.counted
    }

    /// Returns whether the connection is confirmed.
    #[inline]
    pub(crate) fn is_confirmed(&self) -> bool {
        self.raw.confirmed
    }

    /// Returns whether the packet belongs to an established connection: `IP_CT_ESTABLISHED` or
    /// `IP_CT_ESTABLISHED_REPLY`.
    pub(crate) fn is_established(&self) -> bool {
        matches!(
            self.raw.ctinfo,
            bindings::ip_conntrack_info_IP_CT_ESTABLISHED
                | bindings::ip_conntrack_info_IP_CT_ESTABLISHED_REPLY
        )
    }

    /// Adds our extension, with `handle`, to the connection. Returns `false` if the connection is
    /// confirmed or has the extension, or if there is no memory. Does not sleep.
    pub(crate) fn add_extension(&self, handle: u64) -> bool {
        // SAFETY: A `&Conn` is valid. If the connection is unconfirmed, which the helper checks,
        // only this packet's hook uses it.
        unsafe { bindings::nfzr_helper_ct_ext_add(self.raw.ct, handle) }
    }
}

impl<P: Point> HookSkb<'_, P> {
    /// Reads the packet's connection. Returns `None` if the packet has none, or is untracked.
    #[inline(always)]
    pub(crate) fn ct(&self) -> Option<CtRef<'_>> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: The packet is in a hook.
        if !unsafe { bindings::nfzr_helper_read_ct(self.as_raw(), raw.as_mut_ptr()) } {
            return None;
        }
        // SAFETY: The helper filled it.
        let raw = unsafe { raw.assume_init() };
        // SAFETY: Read from this packet, which is in a hook for as long as it is borrowed.
        Some(unsafe { CtRef::from_raw(raw) })
    }

    /// As [`Self::ct`], in `buf`. If the connection is confirmed and its extension contains one of
    /// `most` numbers from `first` on, also increments that number, unless it changes just then.
    #[inline(always)]
    pub(crate) fn count_ct<'p, 'b>(
        &'p self,
        (first, most): (u64, u8),
        buf: &'b mut MaybeUninit<CtRef<'p>>,
    ) -> Option<&'b CtRef<'p>> {
        // CAST: A `CtRef` is transparent.
        let (skb, to) = (self.as_raw(), buf.as_mut_ptr().cast());
        // SAFETY: The packet is in a hook.
        if !unsafe { bindings::nfzr_helper_count_ct(skb, first, most, to) } {
            return None;
        }
        // SAFETY: The helper filled it from this packet, which is in a hook while it is borrowed.
        Some(unsafe { buf.assume_init_ref() })
    }
}

impl Net {
    /// Returns whether conntrack is so full in this netns that early drop of unassured connections
    /// will soon begin. A dropped connection frees no room while a reference on it is held. Any
    /// context.
    pub(crate) fn is_conntrack_nearly_full(&self) -> bool {
        // SAFETY: A `&Net` is valid.
        unsafe { bindings::nfzr_helper_ct_nearly_full(self.as_raw()) }
    }

    /// Returns whether a device of the netns forwards packets that conntrack tracks. Any context.
    pub(crate) fn forwards_tracked(&self, _rcu: &ReadSide<'_>) -> bool {
        // SAFETY: A `&Net` is valid, and this is under RCU.
        unsafe { bindings::nfzr_helper_forwards_tracked(self.as_raw()) }
    }

    /// Returns whether conntrack tracks incoming packets of `family`. Any context.
    pub(crate) fn is_tracking(&self, family: Family, _rcu: &ReadSide<'_>) -> bool {
        // CAST: The protocol family is a small number.
        let pf = family.as_raw() as u8;
        // SAFETY: A `&Net` is valid, and this is under RCU.
        unsafe { bindings::nfzr_helper_ct_is_on(self.as_raw(), pf) }
    }
}
