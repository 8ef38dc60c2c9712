// SPDX-License-Identifier: GPL-2.0

//! The entries of a netns, by number.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{self, NonNull}, //
};

use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed, Release},
        rcu, //
    },
};

use crate::{
    bindings,
    kapi::{
        entry::{
            table::TupleTable,
            Entry,
            DEAD,
            LIVE,
            NEW, //
        },
        mem::{
            array::RawArray,
            ids::Ids,
            rcu::RcuBox,
            slab::{Cache, Object}, //
        },
        nf::{
            conn::{Conn, CtRef, Dir},
            skb::{HookSkb, Point}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// An entry to be inserted.
pub(crate) struct NewEntry<'a, T: Send + Sync> {
    /// The connection.
    pub(crate) ct: ARef<Conn>,
    /// The tables of the original and the reply direction.
    pub(crate) tables: [&'a TupleTable<T>; 2],
    /// The value.
    pub(crate) value: T,
}

/// All entries of a netns, by number.
///
/// # Invariants
///
/// Every pointer in `raw` is to the value of an initialised `Object<Entry<T>>` that the registry
/// owns.
#[pin_data(PinnedDrop)]
pub(crate) struct Registry<T: Send + Sync> {
    #[pin]
    raw: RawArray,
    #[pin]
    numbers: Ids,
    /// Whether there ever was an entry.
    used: Atomic<bool>,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> Registry<T> {
    /// The highest number.
    pub(crate) const MAX_INDEX: u32 = bindings::NFZR_MAX_INDEX;

    /// Creates an empty registry.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- RawArray::new(),
            numbers <- Ids::new(),
            used: Atomic::new(false),
            _owner: PhantomData,
        })
    }

    /// Allocates and links an entry. If the tuple is taken by a live entry of a dead connection,
    /// `end` must kill that entry. Otherwise such entries would stay until the next scan for them,
    /// and all entries of one tuple would gather in one bucket. Does not sleep.
    ///
    /// Errors: `EINVAL`, a table has entries of another registry; `EEXIST`, the connection has an
    /// entry in these tables; `EAGAIN`, a table is closed or has too many users; `ENOSPC`, no
    /// number is free; `ENOMEM`; `EBUSY`, too many entries need to be killed, or `end` does not
    /// kill them; and rhashtable's own (`EBUSY`, it is being rebuilt; `E2BIG`).
    pub(crate) fn insert<'r>(
        &'r self,
        cache: &Cache<Entry<T>>,
        new: NewEntry<'_, T>,
        end: impl Fn(&Entry<T>),
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Entry<T>> {
        let [original, reply] = new.tables;
        if !original.raw().adopt(self) || !reply.raw().adopt(self) {
            return Err(EINVAL);
        }
        if !original.raw().enter() {
            return Err(EAGAIN);
        }
        if !reply.raw().enter() {
            original.raw().leave();
            return Err(EAGAIN);
        }
        let entry = Entry {
            links: UnsafeCell::new(bindings::nfzr_links {
                ct: ARef::into_raw(new.ct).cast().as_ptr(),
                state: NEW,
                ..Default::default()
            }),
            // INVARIANT: Both tables count this entry, and it owns the reference on the connection.
            tables: [original.raw, reply.raw],
            value: new.value,
        };
        // On failure the entry is dropped, with everything that it holds.
        let object = RcuBox::from(cache.alloc(entry)?);
        let entry: &Entry<T> = &object;
        // Also for an entry whose insertion fails, because its drop hands it to RCU, too.
        self.used.store(true, Relaxed);
        let index = self.numbers.take(Self::MAX_INDEX)?;
        // SAFETY: The entry is not published yet.
        unsafe { (*entry.links.get()).index = index };
        // The value is the first field of an object.
        let raw = NonNull::from(entry).cast();
        if let Err(err) = self.raw.insert(index, raw) {
            self.numbers.give_back(index);
            return Err(err);
        }
        if let Err(err) = Self::link(entry, &end, rcu) {
            // A new entry is not killed, so only this removes it.
            self.erase(index);
            return Err(err);
        }
        let entry = NonNull::from(entry);
        // INVARIANT: From here on the registry owns the entry.
        core::mem::forget(object);
        // SAFETY: The registry owns the entry and frees it a grace period after it was killed.
        let entry: &'r Entry<T> = unsafe { entry.as_ref() };
        // ORDERING: Release, pairs with the full exchange in `kill`: the killer sees both links.
        entry.state().store(LIVE, Release);
        Ok(entry)
    }

    /// Removes the entry with this number, which is not linked any more.
    fn erase(&self, index: u32) -> *mut c_void {
        let entry = self.raw.erase(index);
        self.numbers.give_back(index);
        entry
    }

    fn link(entry: &Entry<T>, end: &impl Fn(&Entry<T>), rcu: &ReadSide<'_>) -> Result {
        Self::link_one(entry, Dir::Original, end, rcu)?;
        Self::link_one(entry, Dir::Reply, end, rcu).inspect_err(|_| {
            Self::unlink(entry, Dir::Original);
        })
    }

    fn link_one(
        entry: &Entry<T>,
        dir: Dir,
        end: &impl Fn(&Entry<T>),
        _rcu: &ReadSide<'_>,
    ) -> Result {
        /// The most entries to kill. There is at most one, and usually none.
        const MOST: usize = 4;

        let mut left = MOST;
        loop {
            let (table, link) = (entry.table(dir).ht.get(), entry.link(dir));
            // SAFETY: The table counts the entry. The link is in no table yet, and the entry lives
            // until a grace period after it is unlinked.
            let met = from_err_ptr(unsafe { bindings::nfzr_helper_table_insert(table, link) })?;
            let Some(met) = NonNull::new(met) else {
                return Ok(());
            };
            // SAFETY: The link was in the table in this read-side critical section.
            let met = unsafe { TupleTable::<T>::entry_of(met) };
            if ptr::eq(met.ct(), entry.ct()) {
                return Err(EEXIST);
            }
            left = left.checked_sub(1).ok_or(EBUSY)?;
            end(met);
        }
    }

    /// Unlinks a direction of an entry. Returns `false` if its link was not found, which is a bug.
    fn unlink(entry: &Entry<T>, dir: Dir) -> bool {
        // SAFETY: The table counts the entry, and the link is in the table: the caller linked it,
        // or moved the entry from live to dead.
        unsafe { bindings::nfzr_helper_table_remove(entry.table(dir).ht.get(), entry.link(dir)) }
    }

    /// Returns the entry with this number. Any context.
    pub(crate) fn get<'r>(&'r self, index: u32, _rcu: &ReadSide<'r>) -> Option<&'r Entry<T>> {
        let entry = NonNull::new(self.raw.load(index).cast::<Entry<T>>())?;
        // SAFETY: By the type invariant an entry; a removed one is freed after a grace period.
        Some(unsafe { entry.as_ref() })
    }

    /// Reads a packet's connection into `buf`, and counts the packet, as [`HookSkb::count_ct`].
    /// Also returns the connection's entry if the handle is the sum of `zero` and the entry's
    /// number. Any context.
    #[inline(always)]
    pub(crate) fn of_packet<'p, 'b, 'r, P: Point>(
        &'r self,
        skb: &'p HookSkb<'r, P>,
        (first, most): (u64, u8),
        zero: u64,
        buf: &'b mut MaybeUninit<CtRef<'p>>,
    ) -> Option<(&'b CtRef<'p>, Option<&'r Entry<T>>)> {
        let (tree, skb) = (self.raw.tree(), skb.as_raw());
        // CAST: A `CtRef` is transparent.
        let to = buf.as_mut_ptr().cast::<bindings::nfzr_ct_ref>();
        // SAFETY: The packet is in a hook, under RCU. By the type invariant these are entries,
        // which begin with their links.
        if !unsafe { bindings::nfzr_helper_find_entry(skb, first, most, zero, tree, to) } {
            return None;
        }
        // SAFETY: The helper filled it.
        let links = NonNull::new(unsafe { (*to).links });
        // SAFETY: As in `get`: an entry that is not freed before `'r` ends.
        let entry = links.map(|links| unsafe { links.cast().as_ref() });
        // SAFETY: The helper filled it from this packet, which is in a hook while it is borrowed.
        Some((unsafe { buf.assume_init_ref() }, entry))
    }

    /// Returns the first entry numbered `from` or higher, with its number. Any context.
    pub(crate) fn next<'r>(
        &'r self,
        from: u32,
        _rcu: &ReadSide<'r>,
    ) -> Option<(u32, &'r Entry<T>)> {
        let (index, entry) = self.raw.next(from)?;
        // SAFETY: As in `get`: an entry that is not freed before `'r` ends.
        Some((index, unsafe { entry.cast::<Entry<T>>().as_ref() }))
    }

    /// Looks for the first entry numbered `from` or higher, among a bounded count of numbers.
    /// Returns the entry, if any, and the number at which to continue; `None`: there are no more.
    /// Any context.
    pub(crate) fn scan<'r>(
        &'r self,
        from: u32,
        _rcu: &ReadSide<'r>,
    ) -> (Option<&'r Entry<T>>, Option<u32>) {
        const PLACES: u32 = 256;
        let (index, entry) = self.raw.scan(from, PLACES);
        let next = match entry {
            Some(_) => index.checked_add(1),
            None => (index != u32::MAX).then_some(index),
        };
        // SAFETY: As in `get`: an entry that is not freed before `'r` ends.
        let entry = entry.map(|entry| unsafe { entry.cast::<Entry<T>>().as_ref() });
        (entry, next)
    }

    /// Kills an entry of this registry, and gives its reference on the connection back. Returns
    /// whether this call killed it. Any context.
    pub(crate) fn kill(&self, entry: &Entry<T>, rcu: &ReadSide<'_>) -> bool {
        let index = entry.index();
        if !self
            .get(index, rcu)
            .is_some_and(|ours| ptr::eq(ours, entry))
        {
            return false;
        }
        if entry.state().cmpxchg(LIVE, DEAD, Full).is_err() {
            return false;
        }
        let [original, reply] = Dir::ALL.map(|dir| Self::unlink(entry, dir));
        let object = self.erase(index).cast::<Object<Entry<T>>>();
        if kernel::warn_on!(!original || !reply) {
            // Lookups may still meet the entry: leak it to prevent a use after free.
            return true;
        }
        // SAFETY: By the type invariant of `Entry` we owned the reference until here.
        drop(unsafe { entry.owned_conn() });
        if let Some(object) = NonNull::new(object) {
            // SAFETY: The registry owned the entry and gave it up above. The value is the first
            // field of an object, so a pointer to either is a pointer to the other.
            drop(unsafe { RcuBox::from_raw(object) });
        }
        true
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for Registry<T> {
    /// Kills all entries. If there ever were entries, waits until RCU has freed them, so that their
    /// tables may be dropped. Process context.
    fn drop(self: Pin<&mut Self>) {
        let mut from = 0;
        {
            let guard = rcu::read_lock();
            let rcu = ReadSide::of(&guard);
            while let Some((index, entry)) = self.next(from, &rcu) {
                self.kill(entry, &rcu);
                from = index.saturating_add(1);
            }
        }
        if self.used.load(Relaxed) {
            // Also waits for entries that other callers killed just before.
            rcu::rcu_barrier();
        }
    }
}
