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
//! This is the module's own domain. It is here because it needs `unsafe`.

pub(crate) mod last_found;
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
        atomic::Atomic, //
    },
};

use crate::{
    bindings,
    kapi::{
        entry::raw_table::RawTable,
        mem::slab::Object,
        nf::conn::{Conn, Dir}, //
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
    fn links(&self) -> *mut bindings::nfzr_links {
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

    /// Returns the entry's number in the registry: 1 to [`registry::Registry::MAX_INDEX`].
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
