// SPDX-License-Identifier: GPL-2.0

//! What each CPU found last, and which packets it served: the hooks of a packet run one after the other on
//! one CPU, mostly, so that the later ones need not search what the first one found. Hints, which may be
//! another packet's, or gone.
//!
//! An entry is believed only under RCU, for the connection that it is of, and while no entry ended since
//! before it was found: then it was still linked when that was read, so that the grace period after which
//! it is freed cannot end before the reader does. What is there may be written by a softirq at any moment:
//! the count is written after the entry and read before it, so that it is never a later one than the
//! entry's own.

use core::{
    marker::PhantomData,
    mem::size_of,
    ptr::NonNull, //
};

use kernel::{
    prelude::*,
    sync::atomic::{Acquire, Atomic, Release}, //
};

use crate::{
    bindings,
    kapi::{
        entry::registry::Entry,
        nf::{
            conn::Conn,
            packet::SkBuff, //
        },
        sync::rcu::ReadSide, //
    },
};

/// How many entries had ended at some time.
#[derive(Clone, Copy)]
pub(in crate::kapi) struct Ended(u64);

/// The last entry that each CPU found, and the packets that it served.
///
/// # Invariants
///
/// `places` is a per-CPU allocation of `struct nfzr_recent`. The entry in each is one that was found in a
/// table of the registry, by a search that began when no fewer entries had ended than are there with it.
pub(crate) struct Recent<T: Send + Sync> {
    places: NonNull<bindings::nfzr_recent>,
    /// Entries that ended.
    ended: Atomic<u64>,
    _entries: PhantomData<fn() -> T>,
}

// SAFETY: Per-CPU memory is made to be used by all CPUs, each its own part.
unsafe impl<T: Send + Sync> Send for Recent<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Recent<T> {}

impl<T: Send + Sync> Recent<T> {
    /// Nothing was found yet. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = size_of::<bindings::nfzr_recent>();
        // SAFETY: A plain allocation, of zeroes; the alignment is that of a `u64`, as the struct's is.
        let places = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Just allocated, with no entries.
        Ok(Self {
            places: NonNull::new(places.cast()).ok_or(ENOMEM)?,
            ended: Atomic::new(0),
            _entries: PhantomData,
        })
    }

    /// To be asked before an entry is searched. Any context.
    pub(in crate::kapi) fn ended(&self) -> Ended {
        // ORDERING: Acquire: the search comes after it.
        Ended(self.ended.load(Acquire))
    }

    /// An entry is not linked any more, and about to be handed to RCU. Any context.
    pub(in crate::kapi) fn end(&self) {
        // ORDERING: Release, to who reads it before he searches: by then it was unlinked.
        self.ended.fetch_add(1, Release);
    }

    /// This CPU found an entry of this registry in a table, by a search that began after `ended` was asked
    /// for. Any context.
    #[inline]
    pub(in crate::kapi) fn found(&self, entry: &Entry<T>, ended: Ended) {
        // SAFETY: By the type invariant.
        unsafe { bindings::nfzr_helper_recent_found(self.places.as_ptr(), entry.links(), ended.0) };
    }

    /// The entry of a connection, if this CPU found it last. Any context.
    #[inline]
    pub(crate) fn entry<'r>(&'r self, ct: &Conn, _rcu: &ReadSide<'r>) -> Option<&'r Entry<T>> {
        // SAFETY: By the type invariant, and under RCU.
        let links = unsafe {
            bindings::nfzr_helper_recent_entry(
                self.places.as_ptr(),
                self.ended.as_ptr(),
                ct.as_raw(),
            )
        };
        let entry = NonNull::new(links)?.cast::<Entry<T>>();
        // SAFETY: None ended since before it was found, so it was linked a moment ago, and is not freed
        // before `'r` ends.
        Some(unsafe { entry.as_ref() })
    }

    /// Whether this CPU served a packet. Any context.
    #[inline]
    pub(crate) fn serve(&self, skb: &SkBuff, served: bool) {
        // SAFETY: By the type invariant; the packet is only compared.
        unsafe { bindings::nfzr_helper_recent_serve(self.places.as_ptr(), skb.as_raw(), served) };
    }

    /// Whether this CPU served the packet, or one that was where this one is now. Any context.
    #[inline]
    pub(crate) fn is_served(&self, skb: &SkBuff) -> bool {
        // SAFETY: By the type invariant; the packet is only compared.
        unsafe { bindings::nfzr_helper_recent_is_served(self.places.as_ptr(), skb.as_raw()) }
    }
}

impl<T: Send + Sync> Drop for Recent<T> {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`; this is the only owner.
        unsafe { bindings::free_percpu(self.places.as_ptr().cast()) };
    }
}
