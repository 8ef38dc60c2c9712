// SPDX-License-Identifier: GPL-2.0

//! Entries for connections: each owns one reference on its connection, has a number in a registry,
//! and is linked once per direction into a table, where it is found by tuple.
//!
//! A table is the kernel's rhashtable, keyed by the tuple in the connection itself; a registry is
//! its generic radix tree. Both are read under RCU and grow on their own.
//!
//! # Life of an entry
//!
//! new (being linked) -> live -> dead -> unlinked -> [grace period] -> value dropped, connection
//! put, memory freed. Live to dead has one winner, who unlinks and hands the entry to RCU. Whoever
//! finds an entry is under RCU, so it is whole for as long as he looks at it, dead or not.
//!
//! # Locks
//!
//! rhashtable's bucket lock, that of the numbers: each inside one call, never one in the other, and
//! nothing is put, allocated by us or printed under them. Both keep interrupts off.
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

// CAST: Small numbers.
const NEW: i32 = bindings::nfzr_state_NFZR_NEW as i32;
const LIVE: i32 = bindings::nfzr_state_NFZR_LIVE as i32;
const DEAD: i32 = bindings::nfzr_state_NFZR_DEAD as i32;

/// The entry of a connection, with a value.
///
/// Owners: the registry, from `insert` to the end of `kill`; then RCU.
///
/// # Invariants
///
/// * One reference on `links.ct` is ours.
/// * `links.link[dir]` is in `tables[dir]` while the state is live; each table counts the entry as
///   a user until the entry is dropped.
#[repr(C)]
pub(crate) struct Entry<T: Send + Sync> {
    links: UnsafeCell<bindings::nfzr_links>,
    tables: [NonNull<RawTable>; 2],
    value: T,
}

// SAFETY: The C side and atomics synchronise what is in `links`; the rest is not changed.
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
        // CAST: `links` starts with the two links.
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
        // SAFETY: By the type invariant the table counts us, and so stays.
        unsafe { table.as_ref() }
    }

    fn state(&self) -> &Atomic<i32> {
        // SAFETY: The field is valid as long as `self`.
        let state = unsafe { ptr::addr_of_mut!((*self.links.get()).state) };
        // SAFETY: Nothing but this accesses the state once the entry is made.
        unsafe { Atomic::from_ptr(state) }
    }

    /// The connection.
    pub(crate) fn conn(&self) -> &Conn {
        // SAFETY: Not changed once the entry is made, and by the type invariant we hold a
        // reference.
        unsafe { Conn::from_raw((*self.links.get()).ct) }
    }

    /// The number in the registry: 1 to [`Registry::MAX_INDEX`].
    pub(crate) fn index(&self) -> u32 {
        // SAFETY: Written before anyone could find the entry.
        unsafe { (*self.links.get()).index }
    }

    /// Whether the entry is the connection's.
    pub(crate) fn is_of(&self, ct: &Conn) -> bool {
        ptr::eq(self.conn(), ct)
    }
}

impl<T: Send + Sync> Drop for Entry<T> {
    fn drop(&mut self) {
        let ct = NonNull::from(self.conn());
        // SAFETY: The reference is ours, by the type invariant; this is where it goes.
        drop(unsafe { ARef::from_raw(ct) });
        for dir in Dir::ALL {
            self.table(dir).leave();
        }
    }
}

/// A `struct rhashtable` of links, and how many entries' directions count on it.
struct RawTable {
    ht: Opaque<bindings::rhashtable>,
    /// Entries' directions that are linked or were until RCU frees them; [`CLOSED`]: no more.
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
        // ORDERING: Release, to the full exchange of `close`: what the entry did to the table
        // comes before the table's end.
        self.users.fetch_sub(1, Release);
    }

    fn close(&self) -> bool {
        self.users.cmpxchg(0, CLOSED, Full).is_ok()
    }
}

/// Draws the secret that keys the hash of all tables. Once, while the module is loaded and before the
/// first table is made.
pub(crate) fn draw_secret() {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_helper_table_draw_secret() };
}

/// A table of entries by tuple.
///
/// # Invariants
///
/// `raw` is boxed memory of ours with an initialised rhashtable.
pub(crate) struct Table<T: Send + Sync> {
    raw: NonNull<RawTable>,
    _entries: PhantomData<fn() -> T>,
}

// SAFETY: The C side synchronises what is in the table.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

impl<T: Send + Sync> Table<T> {
    /// An empty table. Process context: rhashtable's own rule.
    pub(crate) fn new() -> Result<Self> {
        let raw = KBox::new(
            RawTable {
                ht: Opaque::uninit(),
                users: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: Boxed, so it stays where it is.
        to_result(unsafe { bindings::nfzr_helper_table_init(raw.ht.get()) })?;
        // INVARIANT: Initialised just now.
        Ok(Self {
            raw: NonNull::from(KBox::leak(raw)),
            _entries: PhantomData,
        })
    }

    fn raw(&self) -> &RawTable {
        // SAFETY: By the type invariant.
        unsafe { self.raw.as_ref() }
    }

    /// The entry of a connection that is in this table with that direction. Any context.
    pub(crate) fn find<'r>(
        &self,
        ct: &Conn,
        dir: Dir,
        _rcu: &ReadSide<'r>,
    ) -> Option<&'r Entry<T>> {
        // SAFETY: Initialised, and under RCU.
        let link = unsafe {
            bindings::nfzr_helper_table_find(self.raw().ht.get(), ct.as_raw(), dir.as_raw())
        };
        NonNull::new(link).map(|link| {
            // SAFETY: Found under RCU, so the entry is not freed before `'r` ends.
            unsafe { Self::entry_of(link) }.0
        })
    }

    /// The entry, and its direction, of the connection that a packet belongs to if its zone is
    /// `zone`, which is this table's; and how many entries of others were met. Any context.
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
        // SAFETY: Initialised, and under RCU.
        let link = unsafe { bindings::nfzr_helper_table_lookup(self.raw().ht.get(), &mut query) };
        let found = NonNull::new(link).map(|link| {
            // SAFETY: Found under RCU, so the entry is not freed before `'r` ends.
            unsafe { Self::entry_of(link) }
        });
        (found, query.others)
    }

    /// The entry that a link of this table is of, and the link's direction.
    ///
    /// # Safety
    ///
    /// The link is in the table, or was in this read-side critical section, which lasts for `'r`.
    unsafe fn entry_of<'r>(link: NonNull<bindings::rhash_head>) -> (&'r Entry<T>, Dir) {
        // An entry's address is a multiple of 16, and its links are its first 16 bytes.
        let offset = link.addr().get() % align_of::<bindings::nfzr_links>();
        let dir = if offset == 0 {
            Dir::Original
        } else {
            Dir::Reply
        };
        // SAFETY: Every link is one of the two that an `Entry<T>` starts with.
        let entry = unsafe { link.byte_sub(offset) }.cast::<Entry<T>>();
        // SAFETY: By the function's requirement it is not freed before `'r` ends.
        (unsafe { entry.as_ref() }, dir)
    }

    /// Calls `f` with every entry and the direction that it has in this table; one with both
    /// directions here comes twice. `f` may end it. An entry that stays while none ends is not
    /// missed. Process context; lets others run.
    pub(crate) fn walk<F: FnMut(&Entry<T>, Dir, &ReadSide<'_>)>(&self, mut f: F) {
        /// # Safety
        ///
        /// Called by the walk through a `Table<T>`, under RCU, with the context that it was given.
        unsafe extern "C" fn visit<T, F>(context: *mut c_void, link: *mut bindings::rhash_head)
        where
            T: Send + Sync,
            F: FnMut(&Entry<T>, Dir, &ReadSide<'_>),
        {
            // SAFETY: By the function's requirement.
            let rcu = unsafe { ReadSide::assume_held() };
            // SAFETY: The walk hands us links of the table, which are not null.
            let link = unsafe { NonNull::new_unchecked(link) };
            // SAFETY: In the table until now, in this read-side critical section.
            let (entry, dir) = unsafe { Table::<T>::entry_of(link) };
            // SAFETY: The context is the walk's own closure, which nothing else uses meanwhile.
            (unsafe { &mut *context.cast::<F>() })(entry, dir, &rcu);
        }

        // SAFETY: Initialised; `f` stays until the walk ends.
        unsafe {
            bindings::nfzr_helper_table_walk(
                self.raw().ht.get(),
                Some(visit::<T, F>),
                ptr::from_mut(&mut f).cast(),
            )
        };
    }

    /// How many buckets the table has now.
    pub(crate) fn buckets(&self) -> u32 {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::nfzr_helper_table_buckets(self.raw().ht.get()) }
    }

    /// Closes the table for good if nothing counts on it; `true`: it is closed.
    pub(crate) fn close(&self) -> bool {
        self.raw().close()
    }
}

impl<T: Send + Sync> Drop for Table<T> {
    /// Process context.
    fn drop(&mut self) {
        let users = self.raw().users.load(Relaxed);
        if kernel::warn_on!(users != 0 && users != CLOSED) {
            // An entry still points here: keep the memory rather than have it used after.
            return;
        }
        // SAFETY: Initialised, and nothing is linked into it nor will be.
        unsafe { bindings::nfzr_helper_table_destroy(self.raw().ht.get()) };
        // SAFETY: From `KBox::leak` in `new`.
        drop(unsafe { KBox::from_raw(self.raw.as_ptr()) });
    }
}

/// All entries of a netns, by number.
///
/// # Invariants
///
/// Every pointer in `raw` is to the value of an initialised `Object<Entry<T>>`, which the registry
/// owns.
#[pin_data(PinnedDrop)]
pub(crate) struct Registry<T: Send + Sync> {
    #[pin]
    raw: RawArray,
    #[pin]
    numbers: Numbers,
    /// There was an entry once.
    used: Atomic<bool>,
    /// What each CPU found last of them.
    recent: Recent<T>,
    _owner: PhantomData<T>,
}

impl<T: Send + Sync> Registry<T> {
    /// The highest number.
    pub(crate) const MAX_INDEX: u32 = i32::MAX as u32;

    /// An empty registry.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- RawArray::new(),
            numbers <- Numbers::new(),
            used: Atomic::new(false),
            recent: Recent::new()?,
            _owner: PhantomData,
        })
    }

    /// Makes and links an entry. A live one that stands there by the same tuple, of a connection that is
    /// gone, `end` is to kill: it would stay until somebody looks for such ones, as many as are made of one
    /// and the same tuple, all in one bucket. Does not sleep.
    ///
    /// Errors: `EEXIST`, the connection has one in these tables; `EAGAIN`, a table is closed;
    /// `ENOMEM`; `EBUSY`, there are too many to be killed, or `end` does not; and what rhashtable has
    /// (`EBUSY`, it is being rebuilt; `E2BIG`).
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
            // INVARIANT: Both count us, and the reference on the connection is ours.
            tables: [original.raw, reply.raw],
            value,
        };
        // On failure the entry is dropped, and with it what it holds.
        let object = RcuBox::from(cache.alloc(entry)?);
        let entry: &Entry<T> = &object;
        // What is dropped is handed to RCU, too.
        self.used.store(true, Relaxed);
        let index = self.numbers.take(Self::MAX_INDEX)?;
        // SAFETY: Nobody can find the entry yet.
        unsafe { (*entry.links.get()).index = index };
        // The value comes first in an object.
        let raw = NonNull::from(entry).cast();
        if let Err(err) = self.raw.insert(index, raw) {
            self.numbers.give_back(index);
            return Err(err);
        }
        if let Err(err) = Self::link(entry, &end, rcu) {
            // Nobody kills an entry that is new, so this is its only end.
            self.erase(index);
            return Err(err);
        }
        let entry = NonNull::from(entry);
        // INVARIANT: From here on the registry is the owner.
        core::mem::forget(object);
        // SAFETY: The registry's, which frees it a grace period after somebody ended it.
        let entry: &'r Entry<T> = unsafe { entry.as_ref() };
        // ORDERING: Release, to the full exchange of `kill`: who kills sees both links.
        entry.state().store(LIVE, Release);
        Ok(entry)
    }

    /// Takes the entry with a number out, which is linked no more.
    fn erase(&self, index: u32) -> *mut c_void {
        // Somebody may have found it, even before all its links were made.
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
        /// How many are killed: there is one, mostly none.
        const MOST: usize = 4;

        let mut left = MOST;
        loop {
            let (table, link) = (entry.table(dir).ht.get(), entry.link(dir));
            // SAFETY: The table counts the entry; the link is in no table yet, and the entry
            // stays until it is unlinked and a grace period after.
            let met = from_err_ptr(unsafe { bindings::nfzr_helper_table_insert(table, link) })?;
            let Some(met) = NonNull::new(met) else {
                return Ok(());
            };
            // SAFETY: Met in the table, in this read-side critical section.
            let (met, _) = unsafe { Table::<T>::entry_of(met) };
            if ptr::eq(met.conn(), entry.conn()) {
                return Err(EEXIST);
            }
            left = left.checked_sub(1).ok_or(EBUSY)?;
            end(met);
        }
    }

    fn unlink(entry: &Entry<T>, dir: Dir) {
        // SAFETY: The table counts the entry, and the link is in it: the caller linked it, or won
        // its death.
        unsafe { bindings::nfzr_helper_table_remove(entry.table(dir).ht.get(), entry.link(dir)) };
    }

    /// What each CPU found last.
    pub(crate) fn recent(&self) -> &Recent<T> {
        &self.recent
    }

    /// The entry with a number. Any context.
    pub(crate) fn get<'r>(&'r self, index: u32, _rcu: &ReadSide<'r>) -> Option<&'r Entry<T>> {
        let entry = NonNull::new(self.raw.load(index).cast::<Entry<T>>())?;
        // SAFETY: By the type invariant; an entry that left is freed after a grace period.
        Some(unsafe { entry.as_ref() })
    }

    /// The first entry with the number `from` or a later one. Any context.
    pub(crate) fn next<'r>(
        &'r self,
        from: u32,
        _rcu: &ReadSide<'r>,
    ) -> Option<(u32, &'r Entry<T>)> {
        let (index, entry) = self.raw.next(from)?;
        // SAFETY: As in `get`.
        Some((index, unsafe { entry.cast::<Entry<T>>().as_ref() }))
    }

    /// Looks for the first entry with the number `from` or a later one, among as many numbers as may be
    /// looked at at a time: it, and where to go on; `None`: there are no more. Any context.
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
        // SAFETY: As in `get`.
        let entry = entry.map(|entry| unsafe { entry.cast::<Entry<T>>().as_ref() });
        (entry, next)
    }

    /// The entry that a packet belongs to: [`Table::lookup`], remembered as what this CPU found last.
    /// The table must be one of this registry's. Any context.
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

    /// Ends an entry of this registry; `true`: by this call. Any context.
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
            // SAFETY: The registry owned it and gave it up just now. The value comes first in an
            // object, so a pointer to the one is a pointer to the other.
            drop(unsafe { RcuBox::from_raw(object) });
        }
        true
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for Registry<T> {
    /// Process context: if there ever were entries, waits until RCU has freed them, so that their
    /// tables may be dropped.
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
            // Also for entries that others killed just before.
            rcu::rcu_barrier();
        }
    }
}
