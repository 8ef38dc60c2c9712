// SPDX-License-Identifier: GPL-2.0

//! Entries for connections. Each entry owns one reference on its connection, has a number in a
//! registry, and is linked once per direction into a table, where lookups find it by tuple.
//!
//! A table is the kernel's rhashtable, keyed by the tuple in the connection itself. A registry is
//! the kernel's generic radix tree. Both are read under RCU and grow by themselves.
//!
//! # Life of an entry
//!
//! new (being linked) -> live -> dead -> unlinked -> connection put -> [grace period] -> value
//! dropped, memory freed. Only one caller moves an entry from live to dead; it unlinks the entry,
//! gives the reference on the connection back and hands the entry to RCU. Entries are found under
//! RCU and stay valid for that critical section, even when dead.
//!
//! The connection of an entry does not stay valid that long: it is put at once, because until then
//! conntrack counts it and NAT keeps its port. Conntrack may use its memory for another connection
//! without a grace period (`SLAB_TYPESAFE_BY_RCU`). Therefore an entry does not give its connection
//! away, but either a reference of the reader's own ([`Entry::conn_ref`] and [`lookup::Found`]) or
//! what the reader read in it ([`Entry::peek`]). All fail if the entry is not live afterwards.
//!
//! # Locks
//!
//! rhashtable's bucket lock and the lock of the numbers are each taken and released within one
//! call, and never nested. While one is held, we put, allocate and print nothing. Both disable
//! interrupts.
//!
//! This is the module's own domain. It is here because it needs `unsafe`.

pub(crate) mod jump;
pub(crate) mod lookup;
mod raw_table;
pub(crate) mod registry;
pub(crate) mod table;

use core::{
    cell::UnsafeCell,
    ops::Deref,
    ptr::{self, NonNull}, //
};

use kernel::{
    static_assert,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        barrier::{smp_mb, Read}, //
    },
};

use crate::{
    bindings,
    kapi::{
        entry::raw_table::RawTable,
        mem::slab::Object,
        nf::{
            conn::{Conn, Dir},
            peek::ConnPeek, //
        },
        sync::{once::ReadOnce, rcu::ReadSide}, //
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
/// * We own one reference on `links.ct` while the state is new or live, and until both links are
///   unlinked.
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

    fn ct(&self) -> *mut bindings::nf_conn {
        // SAFETY: `ct` does not change once the entry exists.
        unsafe { (*self.links.get()).ct }
    }

    /// Returns whether the entry is live.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        self.state().read_once() == LIVE
    }

    /// Returns a reference on the connection, or `None` if the entry is not live. Any context.
    pub(crate) fn conn_ref(&self, _rcu: &ReadSide<'_>) -> Option<ARef<Conn>> {
        // SAFETY: Under RCU the memory of `links.ct` stays a `struct nf_conn`.
        let got = unsafe { bindings::nfzr_helper_links_get_ct(self.links.get()) };
        // SAFETY: The helper took a reference, which becomes the caller's.
        got.then(|| unsafe { self.owned_conn() })
    }

    /// # Safety
    ///
    /// The caller gives up a reference on the connection.
    unsafe fn owned_conn(&self) -> ARef<Conn> {
        // SAFETY: `ct` is never null.
        let ct = unsafe { NonNull::new_unchecked(self.ct()) };
        // SAFETY: By the function's requirement. `Conn` is transparent over `struct nf_conn`.
        unsafe { ARef::from_raw(ct.cast()) }
    }

    /// Returns what `read` reads in the connection, or `None` if the entry is not live. Takes no
    /// reference. Any context.
    #[inline(always)]
    pub(crate) fn peek<R>(
        &self,
        _rcu: &ReadSide<'_>,
        read: impl FnOnce(&ConnPeek<'_>) -> R,
    ) -> Option<R> {
        // SAFETY: Under RCU the memory stays a `struct nf_conn`.
        let conn = unsafe { ConnPeek::from_raw(self.ct()) };
        let value = read(&conn);
        // ORDERING: The reads precede the check. The killer changes the state before it puts the
        // connection, so if the state is still live, the reads were of the entry's own connection.
        smp_mb(Read);
        self.is_live().then_some(value)
    }

    /// Returns the entry's number in the registry: 1 to [`registry::Registry::MAX_INDEX`].
    pub(crate) fn index(&self) -> u32 {
        // SAFETY: The index was written before the entry was published.
        unsafe { (*self.links.get()).index }
    }

    /// Returns whether this is the live entry of `ct`.
    ///
    /// A dead entry may be of an earlier connection at the same address. It died before that
    /// connection's memory became `ct`, and so before the caller got its reference on `ct`.
    #[inline(always)]
    pub(crate) fn is_of(&self, ct: &Conn) -> bool {
        ptr::eq(self.ct(), ct.as_raw()) && self.is_live()
    }
}

impl<T: Send + Sync> Drop for Entry<T> {
    fn drop(&mut self) {
        if self.state().load(Relaxed) == NEW {
            // SAFETY: By the type invariant we own the reference; it is given up here.
            drop(unsafe { self.owned_conn() });
        }
        for dir in Dir::ALL {
            self.table(dir).leave();
        }
    }
}
