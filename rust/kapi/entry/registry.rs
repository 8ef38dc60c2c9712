// SPDX-License-Identifier: GPL-2.0

//! Entries for connections. Each entry owns one reference on its connection, has a number in a
//! registry, and is linked once per direction into a table, where lookups find it by tuple.
//!
//! A table is the kernel's rhashtable, keyed by the tuple in the connection itself. A registry is
//! the kernel's generic radix tree. Both are read under RCU and grow by themselves.
//!
//! # Life of an entry
//!
//! new (being linked) -> live -> dead -> unlinked -> [grace period] -> value dropped, connection
//! put, memory freed. Only one caller moves an entry from live to dead; it unlinks the entry and
//! hands it to RCU. Entries are found under RCU and stay valid for that critical section, even when
//! dead.
//!
//! # Locks
//!
//! rhashtable's bucket lock and the lock of the numbers are each taken and released within one
//! call, and never nested. While one is held, we put, allocate and print nothing. Both disable
//! interrupts.
//!
//! C header: [`include/linux/rhashtable.h`](srctree/include/linux/rhashtable.h)

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::align_of,
    ops::Deref,
    ptr::{self, NonNull}, //
};

use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
    static_assert,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed, Release},
        rcu, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        entry::last_found::Recent,
        mem::{
            array::{Numbers, RawArray},
            slab::{Cache, Object}, //
        },
        nf::{
            conn::{Conn, Dir},
            track::Probe, //
        },
        sync::rcu::{RcuBox, ReadSide}, //
    },
};

// CAST: The states are small numbers.
const NEW: i32 = bindings::nfzr_state_NFZR_NEW as i32;
const LIVE: i32 = bindings::nfzr_state_NFZR_LIVE as i32;
const DEAD: i32 = bindings::nfzr_state_NFZR_DEAD as i32;

/// The entry of a connection, which holds a value.
///
/// Owners: the registry, from `insert` to the end of `kill`; then RCU.
///
/// # Invariants
///
/// * We own one reference on `links.ct`.
/// * While the state is live, `links.link[dir]` is in `tables[dir]`. Each table counts the entry as
///   a user until the entry is dropped.
#[repr(C)]
pub(crate) struct Entry<T: Send + Sync> {
    links: UnsafeCell<bindings::nfzr_links>,
    tables: [NonNull<RawTable>; 2],
    value: T,
}

// SAFETY: The C side and atomics synchronise `links`; the other fields do not change.
unsafe impl<T: Send + Sync> Send for Entry<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Entry<T> {}

static_assert!(core::mem::offset_of!(Object<Entry<()>>, value) == 0);
static_assert!(core::mem::offset_of!(Entry<()>, links) == 0);

impl<T: Send + Sync> Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Send + Sync> Entry<T> {
    pub(in crate::kapi) fn links(&self) -> *mut bindings::nfzr_links {
        self.links.get()
    }

    fn link(&self, dir: Dir) -> *mut bindings::rhash_head {
        // CAST: The two links are the first field of `links`.
        let first = self.links.get().cast::<bindings::rhash_head>();
        // SAFETY: The array has two elements.
        unsafe { first.add(usize::from(dir.as_raw())) }
    }

    fn table(&self, dir: Dir) -> &RawTable {
        let [original, reply] = &self.tables;
        let table = match dir {
            Dir::Original => original,
            Dir::Reply => reply,
        };
        // SAFETY: By the type invariant the table counts this entry, and so is not freed.
        unsafe { table.as_ref() }
    }

    fn state(&self) -> &Atomic<i32> {
        // SAFETY: The field is valid as long as `self`.
        let state = unsafe { ptr::addr_of_mut!((*self.links.get()).state) };
        // SAFETY: Once the entry exists, its state is accessed only by this atomic, and read by
        // `READ_ONCE()` in C.
        unsafe { Atomic::from_ptr(state) }
    }

    /// Returns the connection.
    pub(crate) fn conn(&self) -> &Conn {
        // SAFETY: `ct` does not change once the entry exists, and by the type invariant we own a
        // reference on it.
        unsafe { Conn::from_raw((*self.links.get()).ct) }
    }

    /// Returns the entry's number in the registry: 1 to [`Registry::MAX_INDEX`].
    pub(crate) fn index(&self) -> u32 {
        // SAFETY: The index was written before the entry was published.
        unsafe { (*self.links.get()).index }
    }

    /// Returns whether this is the entry of `ct`.
    pub(crate) fn is_of(&self, ct: &Conn) -> bool {
        ptr::eq(self.conn(), ct)
    }
}

impl<T: Send + Sync> Drop for Entry<T> {
    fn drop(&mut self) {
        let ct = NonNull::from(self.conn());
        // SAFETY: By the type invariant we own the reference; it is given up here.
        drop(unsafe { ARef::from_raw(ct) });
        for dir in Dir::ALL {
            self.table(dir).leave();
        }
    }
}

/// A `struct rhashtable` of links, and the number of its users.
struct RawTable {
    ht: Opaque<bindings::rhashtable>,
    /// Directions of entries, counted from before they are linked until RCU frees their entry.
    /// [`CLOSED`]: no new ones are accepted.
    users: Atomic<i32>,
}

const CLOSED: i32 = i32::MIN;

impl RawTable {
    fn enter(&self) -> bool {
        let mut users = self.users.load(Relaxed);
        loop {
            if users < 0 || users == i32::MAX {
                return false;
            }
            match self.users.cmpxchg(users, users.wrapping_add(1), Full) {
                Ok(_) => return true,
                Err(now) => users = now,
            }
        }
    }

    fn leave(&self) {
        // ORDERING: Release, pairs with the full exchange in `close`: the entry's accesses to the
        // table precede the table's end.
        self.users.fetch_sub(1, Release);
    }

    fn close(&self) -> bool {
        self.users.cmpxchg(0, CLOSED, Full).is_ok()
    }
}

/// Draws the secret that keys the hash of all tables. Called once, while the module is loaded and
/// before the first table is created.
pub(crate) fn draw_secret() {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_helper_table_draw_secret() };
}

/// A table of entries, keyed by tuple.
///
/// # Invariants
///
/// `raw` is boxed memory owned by the table, with an initialised rhashtable.
pub(crate) struct Table<T: Send + Sync> {
    raw: NonNull<RawTable>,
    _entries: PhantomData<fn() -> T>,
}

// SAFETY: The C side synchronises accesses to the table.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

impl<T: Send + Sync> Table<T> {
    /// Creates an empty table. Process context, which rhashtable requires.
    pub(crate) fn new() -> Result<Self> {
        let raw = KBox::new(
            RawTable {
                ht: Opaque::uninit(),
                users: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: `raw` is boxed, so it does not move.
        to_result(unsafe { bindings::nfzr_helper_table_init(raw.ht.get()) })?;
        // INVARIANT: Initialised above.
        Ok(Self {
            raw: NonNull::from(KBox::leak(raw)),
            _entries: PhantomData,
        })
    }

    fn raw(&self) -> &RawTable {
        // SAFETY: By the type invariant `raw` is valid memory of this table.
        unsafe { self.raw.as_ref() }
    }

    /// Returns the entry of a connection whose direction `dir` is in this table. Any context.
    pub(crate) fn find<'r>(
        &self,
        ct: &Conn,
        dir: Dir,
        _rcu: &ReadSide<'r>,
    ) -> Option<&'r Entry<T>> {
        // SAFETY: By the type invariant the table is initialised, and this is under RCU.
        let link = unsafe {
            bindings::nfzr_helper_table_find(self.raw().ht.get(), ct.as_raw(), dir.as_raw())
        };
        NonNull::new(link).map(|link| {
            // SAFETY: Found under RCU, so the entry is not freed before `'r` ends.
            unsafe { Self::entry_of(link) }.0
        })
    }

    /// Returns the entry of the connection that a packet belongs to, and the packet's direction, if
    /// the packet's zone is `zone`, which is this table's. Also returns the number of non-matching
    /// entries compared during the lookup (chain length). Any context.
    pub(crate) fn lookup<'r>(
        &self,
        probe: &Probe,
        zone: u16,
        _rcu: &ReadSide<'r>,
    ) -> (Option<(&'r Entry<T>, Dir)>, u32) {
        let mut query = bindings::nfzr_query {
            probe: probe.as_raw(),
            zone,
            others: 0,
        };
        // SAFETY: By the type invariant the table is initialised, and this is under RCU.
        let link = unsafe { bindings::nfzr_helper_table_lookup(self.raw().ht.get(), &mut query) };
        let found = NonNull::new(link).map(|link| {
            // SAFETY: Found under RCU, so the entry is not freed before `'r` ends.
            unsafe { Self::entry_of(link) }
        });
        (found, query.others)
    }

    /// Returns the entry that contains a link of this table, and the link's direction.
    ///
    /// # Safety
    ///
    /// The link is in the table, or was in this read-side critical section, which lasts for `'r`.
    unsafe fn entry_of<'r>(link: NonNull<bindings::rhash_head>) -> (&'r Entry<T>, Dir) {
        // An entry is aligned to 16 bytes, and its two links are its first 16 bytes.
        let offset = link.addr().get() % align_of::<bindings::nfzr_links>();
        let dir = if offset == 0 {
            Dir::Original
        } else {
            Dir::Reply
        };
        // SAFETY: Every link is one of the two at the start of an `Entry<T>`.
        let entry = unsafe { link.byte_sub(offset) }.cast::<Entry<T>>();
        // SAFETY: By the function's requirement the entry is not freed before `'r` ends.
        (unsafe { entry.as_ref() }, dir)
    }

    /// Calls `f` with every entry and the direction that it has in this table. An entry with both
    /// directions in this table is visited twice. `f` may kill the entry. If no entry is killed
    /// meanwhile, no entry that stays is missed. Process context; lets other tasks run.
    pub(crate) fn walk<F: FnMut(&Entry<T>, Dir, &ReadSide<'_>)>(&self, mut f: F) {
        /// # Safety
        ///
        /// Called by the walk through a `Table<T>`, under RCU, with the context passed to the walk.
        unsafe extern "C" fn visit<T, F>(context: *mut c_void, link: *mut bindings::rhash_head)
        where
            T: Send + Sync,
            F: FnMut(&Entry<T>, Dir, &ReadSide<'_>),
        {
            // SAFETY: By the function's requirement.
            let rcu = unsafe { ReadSide::assume_held() };
            // SAFETY: The walk passes links of the table, which are not null.
            let link = unsafe { NonNull::new_unchecked(link) };
            // SAFETY: The link was in the table in this read-side critical section.
            let (entry, dir) = unsafe { Table::<T>::entry_of(link) };
            // SAFETY: The context is the walk's own closure, which has no other user meanwhile.
            (unsafe { &mut *context.cast::<F>() })(entry, dir, &rcu);
        }

        // SAFETY: By the type invariant the table is initialised; `f` lives until the walk ends.
        unsafe {
            bindings::nfzr_helper_table_walk(
                self.raw().ht.get(),
                Some(visit::<T, F>),
                ptr::from_mut(&mut f).cast(),
            )
        };
    }

    /// Returns the table's current number of buckets.
    pub(crate) fn buckets(&self) -> u32 {
        // SAFETY: By the type invariant the table is initialised.
        unsafe { bindings::nfzr_helper_table_buckets(self.raw().ht.get()) }
    }

    /// Closes the table for good if it has no users. Returns whether this call closed it.
    pub(crate) fn close(&self) -> bool {
        self.raw().close()
    }
}

impl<T: Send + Sync> Drop for Table<T> {
    /// Frees the table. Process context.
    fn drop(&mut self) {
        let users = self.raw().users.load(Relaxed);
        if kernel::warn_on!(users != 0 && users != CLOSED) {
            // An entry still points here: leak the table to prevent a use after free.
            return;
        }
        // SAFETY: By the type invariant the table is initialised. It has no users now.
        unsafe { bindings::nfzr_helper_table_destroy(self.raw().ht.get()) };
        // SAFETY: The pointer is from `KBox::leak` in `new`.
        drop(unsafe { KBox::from_raw(self.raw.as_ptr()) });
    }
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
    numbers: Numbers,
    /// Whether there ever was an entry.
    used: Atomic<bool>,
    /// The entry that each CPU found last.
    recent: Recent<T>,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> Registry<T> {
    /// The highest number.
    pub(crate) const MAX_INDEX: u32 = i32::MAX as u32;

    /// Creates an empty registry.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- RawArray::new(),
            numbers <- Numbers::new(),
            used: Atomic::new(false),
            recent: Recent::new()?,
            _owner: PhantomData,
        })
    }

    /// Allocates and links an entry. If the tuple is taken by a live entry of a dead connection,
    /// `end` must kill that entry. Otherwise such entries would stay until the next scan for them,
    /// and all entries of one tuple would gather in one bucket. Does not sleep.
    ///
    /// Errors: `EEXIST`, the connection has an entry in these tables; `EAGAIN`, a table is closed;
    /// `ENOMEM`; `EBUSY`, too many entries need to be killed, or `end` does not kill them; and
    /// rhashtable's own (`EBUSY`, it is being rebuilt; `E2BIG`).
    pub(crate) fn insert<'r>(
        &'r self,
        cache: &Cache<Entry<T>>,
        ct: ARef<Conn>,
        tables: [&Table<T>; 2],
        value: T,
        end: impl Fn(&Entry<T>),
        rcu: &ReadSide<'r>,
    ) -> Result<&'r Entry<T>> {
        let [original, reply] = tables;
        if !original.raw().enter() {
            return Err(EAGAIN);
        }
        if !reply.raw().enter() {
            original.raw().leave();
            return Err(EAGAIN);
        }
        let entry = Entry {
            links: UnsafeCell::new(bindings::nfzr_links {
                ct: ARef::into_raw(ct).cast().as_ptr(),
                state: NEW,
                ..Default::default()
            }),
            // INVARIANT: Both tables count this entry, and it owns the reference on the connection.
            tables: [original.raw, reply.raw],
            value,
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
        // A lookup may have found the entry, even before both its links were made.
        self.recent.end();
        let entry = self.raw.erase(index);
        self.numbers.give_back(index);
        entry
    }

    fn link(entry: &Entry<T>, end: &impl Fn(&Entry<T>), rcu: &ReadSide<'_>) -> Result {
        Self::link_one(entry, Dir::Original, end, rcu)?;
        Self::link_one(entry, Dir::Reply, end, rcu)
            .inspect_err(|_| Self::unlink(entry, Dir::Original))
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
            let (met, _) = unsafe { Table::<T>::entry_of(met) };
            if ptr::eq(met.conn(), entry.conn()) {
                return Err(EEXIST);
            }
            left = left.checked_sub(1).ok_or(EBUSY)?;
            end(met);
        }
    }

    fn unlink(entry: &Entry<T>, dir: Dir) {
        // SAFETY: The table counts the entry, and the link is in the table: the caller linked it,
        // or moved the entry from live to dead.
        unsafe { bindings::nfzr_helper_table_remove(entry.table(dir).ht.get(), entry.link(dir)) };
    }

    /// Returns the entries that each CPU found last.
    pub(crate) fn recent(&self) -> &Recent<T> {
        &self.recent
    }

    /// Returns the entry with this number. Any context.
    pub(crate) fn get<'r>(&'r self, index: u32, _rcu: &ReadSide<'r>) -> Option<&'r Entry<T>> {
        let entry = NonNull::new(self.raw.load(index).cast::<Entry<T>>())?;
        // SAFETY: By the type invariant an entry; a removed one is freed after a grace period.
        Some(unsafe { entry.as_ref() })
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

    /// Returns the entry that a packet belongs to, as [`Table::lookup`] does, and records it as the
    /// last one that this CPU found. The table must be one of this registry's. Any context.
    #[inline(always)]
    pub(crate) fn lookup<'r>(
        &'r self,
        table: &Table<T>,
        probe: &Probe,
        zone: u16,
        rcu: &ReadSide<'r>,
    ) -> (Option<(&'r Entry<T>, Dir)>, u32) {
        let ended = self.recent.ended();
        let (found, others) = table.lookup(probe, zone, rcu);
        if let Some((entry, _)) = found {
            self.recent.found(entry, ended);
        }
        (found, others)
    }

    /// Kills an entry of this registry. Returns whether this call killed it. Any context.
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
        for dir in Dir::ALL {
            Self::unlink(entry, dir);
        }
        let object = self.erase(index).cast::<Object<Entry<T>>>();
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
