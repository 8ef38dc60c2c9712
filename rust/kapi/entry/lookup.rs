// SPDX-License-Identifier: GPL-2.0

//! The lookup of a packet in the tables of its zones.
//!
//! One call into C reads the packet, finds its connection, checks that conntrack would do nothing
//! unusual with the packet, and finds out whether the packet may jump.

use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::{self, NonNull}, //
};

use kernel::sync::aref::ARef;

use crate::{
    bindings,
    kapi::{
        entry::{
            table::Tabled,
            Entry, //
        },
        mem::array::RcuArray,
        net::family::Family,
        nf::{
            conn::{Conn, Dir},
            ruleset::Ruleset,
            skb::{HookSkb, PreRouting},
            tcp::Segment,
            track::{Session, TcpGuard, Untracked},
            udp::Stream, //
        },
        sync::{percpu::OneCounter, rcu::ReadSide},
    },
};

/// Memory for a lookup, which is too large to be copied.
pub(crate) struct LookupBuf(pub(super) MaybeUninit<bindings::nfzr_lookup>);

impl LookupBuf {
    /// Creates memory that is not initialised.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

/// The result of a lookup.
pub(crate) struct Looked<'p, 'r, T: Send + Sync, U> {
    /// The packet's connection, or why the packet is left to conntrack.
    pub(crate) result: Result<Found<'p, 'r, T, U>, Untracked>,
    /// What the lookup met.
    pub(crate) trail: Trail<'p, 'r, T, U>,
}

/// What a lookup met besides the packet's entry.
///
/// # Invariants
///
/// `raw` was filled by a lookup in zones of entries `T` in the read-side critical section `'r`.
pub(crate) struct Trail<'p, 'r, T: Send + Sync, U> {
    raw: NonNull<bindings::nfzr_lookup>,
    _buf: PhantomData<&'p mut LookupBuf>,
    _zones: PhantomData<&'r Tabled<T, U>>,
}

impl<'r, T: Send + Sync, U> Trail<'_, 'r, T, U> {
    /// Returns the zone that the packet belongs to if it goes in this direction, if the zone was
    /// searched. The zone of the reply direction is only searched if it is another one.
    #[inline(always)]
    pub(crate) fn zone(&self, dir: Dir) -> Option<&'r Tabled<T, U>> {
        // SAFETY: By the type invariant; every lookup fills this field.
        let [original, reply] = unsafe { (*self.raw.as_ptr()).zone };
        let zone = match dir {
            Dir::Original => original,
            Dir::Reply => reply,
        };
        // SAFETY: By the type invariant the zone was in the array in this read-side critical
        // section.
        NonNull::new(zone).map(|zone| unsafe { zone.cast().as_ref() })
    }

    /// Returns how many entries were compared in [`Trail::zone`] that did not match.
    #[inline(always)]
    pub(crate) fn met(&self, dir: Dir) -> u32 {
        // SAFETY: By the type invariant; every lookup fills this field.
        let [original, reply] = unsafe { (*self.raw.as_ptr()).met };
        match dir {
            Dir::Original => original,
            Dir::Reply => reply,
        }
    }

    /// Returns an entry that the packet would belong to if its connection were not dead. The entry
    /// may have been killed meanwhile.
    pub(crate) fn gone(&self) -> Option<&'r Entry<T>> {
        // SAFETY: By the type invariant; every lookup fills this field.
        let gone = NonNull::new(unsafe { (*self.raw.as_ptr()).gone })?;
        // SAFETY: By the type invariant these are the links of an `Entry<T>`, which begins with
        // them, found in this read-side critical section.
        Some(unsafe { gone.cast().as_ref() })
    }
}

/// A packet that conntrack has not seen yet, and its connection, which is established. Conntrack
/// would do nothing unusual with the packet.
///
/// # Invariants
///
/// `raw` was filled by a lookup of `skb` that found an `Entry<T>`, in zones `Tabled<T, U>` that
/// live for `'r`. We own the reference to the connection that the lookup took.
pub(crate) struct Found<'p, 'r, T: Send + Sync, U, At = PreRouting> {
    pub(super) raw: NonNull<bindings::nfzr_lookup>,
    pub(super) skb: &'p HookSkb<'r, At>,
    pub(super) _zones: PhantomData<&'r Tabled<T, U>>,
}

impl<'r, T: Send + Sync, U, At> Found<'_, 'r, T, U, At> {
    #[inline(always)]
    fn probe(&self) -> &bindings::nfzr_probe {
        // SAFETY: By the type invariant; a lookup that finds an entry fills this field.
        unsafe { &(*self.raw.as_ptr()).probe }
    }

    /// Returns the read side in which the packet was looked up.
    pub(crate) fn rcu(&self) -> &ReadSide<'r> {
        self.skb.rcu()
    }

    /// Returns the packet's entry.
    #[inline(always)]
    pub(crate) fn entry(&self) -> &'r Entry<T> {
        // SAFETY: By the type invariant this field is filled.
        let links = unsafe { (*self.raw.as_ptr()).found };
        // SAFETY: The links of an `Entry<T>` are its beginning. It was found under RCU, so it is
        // not freed before `'r` ends.
        unsafe { &*links.cast() }
    }

    /// Returns the zone in whose table the entry was found.
    #[inline(always)]
    pub(crate) fn zone(&self) -> &'r Tabled<T, U> {
        // SAFETY: By the type invariant this field is filled.
        let zone = unsafe { (*self.raw.as_ptr()).found_in };
        // SAFETY: A zone begins with its table, and is not dropped before `'r` ends.
        unsafe { &*zone.cast() }
    }

    /// Returns the direction in which the packet goes.
    #[inline(always)]
    pub(crate) fn dir(&self) -> Dir {
        // SAFETY: By the type invariant this field is filled.
        if unsafe { (*self.raw.as_ptr()).dir } == Dir::Original.as_raw() {
            Dir::Original
        } else {
            Dir::Reply
        }
    }

    fn conn_ptr(&self) -> NonNull<Conn> {
        // SAFETY: The connection of an entry is never null. `Conn` is transparent over
        // `struct nf_conn`.
        unsafe { NonNull::new_unchecked(self.entry().ct().cast()) }
    }

    /// Returns the connection.
    pub(crate) fn conn(&self) -> &Conn {
        // SAFETY: By the type invariant we own a reference to it.
        unsafe { self.conn_ptr().as_ref() }
    }

    /// Returns the fields of a TCP packet that tracking looks at.
    pub(crate) fn segment(&self) -> Segment {
        let probe = self.probe();
        Segment {
            reply: self.dir() == Dir::Reply,
            flags: probe.flags,
            plain: probe.plain,
            win: probe.win,
            seq: probe.seq,
            ack: probe.ack,
            end: probe.end,
        }
    }

    /// Returns the inputs of conntrack's tracking. For TCP, this takes the connection's lock.
    #[inline(always)]
    pub(crate) fn begin(&self) -> Result<Session<'_>, Untracked> {
        let raw = self.raw.as_ptr();
        if self.probe().is_tcp {
            // SAFETY: By the type invariant; filled for TCP.
            let timeouts = unsafe { &(*raw).tcp };
            // SAFETY: The tuple of a TCP packet is that of a TCP connection.
            return unsafe { TcpGuard::lock(self.conn(), timeouts) }.map(Session::Tcp);
        }
        // SAFETY: By the type invariant; filled for UDP.
        let udp = unsafe { &(*raw).udp };
        Ok(Session::Udp(Stream {
            now: udp.now,
            since: udp.since,
            assured: udp.assured,
            unreplied: udp.unreplied,
            replied: udp.replied,
        }))
    }

    pub(super) fn into_conn(self) -> ARef<Conn> {
        let found = ManuallyDrop::new(self);
        // SAFETY: By the type invariant the reference is ours, and it is not dropped here.
        unsafe { ARef::from_raw(found.conn_ptr()) }
    }
}

impl<T: Send + Sync, U> Found<'_, '_, T, U> {
    /// Attaches the packet to its connection, in place of a template, and updates the connection's
    /// timeout (in jiffies) and counters. Increments `hits`.
    #[inline(always)]
    pub(crate) fn attach(self, timeout: u32, hits: [OneCounter<'_>; 2]) {
        let (skb, dir) = (self.skb, self.dir());
        skb.attach(self.into_conn(), dir, timeout, hits);
    }
}

impl<T: Send + Sync, U, At> Drop for Found<'_, '_, T, U, At> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        drop(unsafe { ARef::from_raw(self.conn_ptr()) });
    }
}

impl<T: Send + Sync, U: Send + Sync> RcuArray<Tabled<T, U>> {
    /// Looks up a packet in the tables of its zones; the array's indices are zone ids. As in
    /// `resolve_normal_ct()`, the zone of the original direction is searched first, then that of
    /// the reply direction. Returns `None` if the packet has a connection, is untracked or comes
    /// from br_netfilter.
    #[inline(always)]
    pub(crate) fn look_up<'p, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'p mut LookupBuf,
    ) -> Option<Looked<'p, 'r, T, U>> {
        // SAFETY: No passes are searched.
        let (result, trail) = unsafe { self.look_up_raw(skb, buf, ptr::null_mut(), None) }?;
        Some(Looked { result, trail })
    }

    /// # Safety
    ///
    /// `passes` is null, or an array whose objects begin with a `struct nfzr_pass`, and are freed a
    /// grace period after they were removed.
    #[inline(always)]
    #[allow(clippy::type_complexity)]
    pub(super) unsafe fn look_up_raw<'p, 'b, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'b mut LookupBuf,
        passes: *mut bindings::__genradix,
        ruleset: Option<&'r Ruleset>,
    ) -> Option<(Result<Found<'p, 'r, T, U>, Untracked>, Trail<'b, 'r, T, U>)> {
        let raw = NonNull::from(&mut buf.0).cast::<bindings::nfzr_lookup>();
        let (tree, ruleset) = (
            self.tree(),
            ruleset.map_or(ptr::null_mut(), Ruleset::as_raw),
        );
        let look_up = match skb.family() {
            Family::Ipv4 => bindings::nfzr_helper_lookup4,
            Family::Ipv6 => bindings::nfzr_helper_lookup6,
        };
        // SAFETY: The packet is in this hook, with this state, under RCU. The array holds
        // `Tabled<T, U>`, which begin with their table. The tables link entries `Entry<T>`. Every
        // registry frees those a grace period after it has unlinked them, so not before `'r` ends.
        // For the passes see the function's requirement.
        let is_new = unsafe {
            look_up(
                skb.as_raw(),
                skb.state(),
                tree,
                passes,
                ruleset,
                raw.as_ptr(),
            )
        };
        if !is_new {
            return None;
        }
        // INVARIANT: Filled above.
        let trail = Trail {
            raw,
            _buf: PhantomData,
            _zones: PhantomData,
        };
        // SAFETY: Every lookup fills this field.
        let why = unsafe { (*raw.as_ptr()).why };
        let result = Untracked::check(why).map(|()| {
            // INVARIANT: The lookup found an entry, and took a reference for us.
            Found {
                raw,
                skb,
                _zones: PhantomData,
            }
        });
        Some((result, trail))
    }
}
