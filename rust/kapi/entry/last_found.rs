// SPDX-License-Identifier: GPL-2.0

//! The last entry that each CPU found. A packet's hooks mostly run one after the other on one CPU,
//! so later hooks need not repeat the lookup of the first.
//!
//! An entry is used only under RCU, only for its own connection, and only if the count of ended
//! entries is that of before it was found. The entry was then still linked when the reader read the
//! count, so it outlives the reader's critical section. It must also still be live, because its
//! connection is put before the entry is freed. A softirq may overwrite a CPU's slot at any
//! moment. The count is therefore written after the entry and read before it: an entry can only be
//! paired with an older count, which fails the check or is safe.

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
        entry::Entry,
        nf::conn::Conn,
        sync::rcu::ReadSide, //
    },
};

/// The number of entries that had ended at some time.
#[derive(Clone, Copy)]
pub(in crate::kapi) struct Ended(u64);

/// The last entry that each CPU found.
///
/// # Invariants
///
/// `slots` is a per-CPU allocation of `struct nfzr_last_found`. Each entry there was found in a
/// table of the registry by a lookup. When the lookup began, at least as many entries had ended as
/// are stored there.
pub(crate) struct LastFound<T: Send + Sync> {
    slots: NonNull<bindings::nfzr_last_found>,
    /// The number of entries that have ended.
    ended: Atomic<u64>,
    _entries: PhantomData<fn() -> T>,
}

// SAFETY: Per-CPU memory is made for use by all CPUs, each accessing its own part.
unsafe impl<T: Send + Sync> Send for LastFound<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for LastFound<T> {}

impl<T: Send + Sync> LastFound<T> {
    /// Creates the per-CPU slots, all empty. Process context.
    pub(crate) fn new() -> Result<Self> {
        let size = size_of::<bindings::nfzr_last_found>();
        // SAFETY: The allocation needs process context only. It is zeroed and aligned as a `u64`,
        // like the struct.
        let slots = unsafe { bindings::nfzr_helper_percpu_alloc(size) };
        // INVARIANT: Allocated above, without entries.
        Ok(Self {
            slots: NonNull::new(slots.cast()).ok_or(ENOMEM)?,
            ended: Atomic::new(0),
            _entries: PhantomData,
        })
    }

    /// Returns the number of ended entries, to be read before a lookup. Any context.
    pub(in crate::kapi) fn ended(&self) -> Ended {
        // ORDERING: Acquire: the lookup comes after this load.
        Ended(self.ended.load(Acquire))
    }

    /// Records that an entry was unlinked and is about to be handed to RCU. Any context.
    pub(in crate::kapi) fn end(&self) {
        // ORDERING: Release, pairs with `ended`: a lookup after this count misses the entry.
        self.ended.fetch_add(1, Release);
    }

    /// Records that this CPU found an entry of this registry in a table, by a lookup that began
    /// after `ended` was read. Any context.
    #[inline]
    pub(in crate::kapi) fn found(&self, entry: &Entry<T>, ended: Ended) {
        // SAFETY: By the type invariant `slots` is the allocation that the helper expects.
        unsafe { bindings::nfzr_helper_last_found(self.slots.as_ptr(), entry.links(), ended.0) };
    }

    /// Returns the entry of a connection, if this CPU found that entry last. Any context.
    #[inline]
    pub(crate) fn entry<'r>(&'r self, ct: &Conn, _rcu: &ReadSide<'r>) -> Option<&'r Entry<T>> {
        let (slots, ended) = (self.slots.as_ptr(), self.ended.as_ptr());
        // SAFETY: By the type invariant `slots` is what the helper expects, and this is under RCU.
        let links = unsafe { bindings::nfzr_helper_last_entry(slots, ended) };
        let entry = NonNull::new(links)?.cast::<Entry<T>>();
        // SAFETY: No entry has ended since before this one was found. It was thus linked a moment
        // ago and is not freed before `'r` ends.
        Some(unsafe { entry.as_ref() }).filter(|entry| entry.is_of(ct))
    }
}

impl<T: Send + Sync> Drop for LastFound<T> {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`; this is the only owner.
        unsafe { bindings::free_percpu(self.slots.as_ptr().cast()) };
    }
}
