// SPDX-License-Identifier: GPL-2.0

//! The memory of a table: a `struct rhashtable` of links, its owner and the number of its users.
//!
//! C header: [`include/linux/rhashtable.h`](srctree/include/linux/rhashtable.h)

use core::ptr;

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed, Release},
    types::Opaque, //
};

use crate::bindings;

/// A `struct rhashtable` of links.
#[repr(C)]
pub(super) struct RawTable {
    pub(super) ht: Opaque<bindings::rhashtable>,
    /// Directions of entries, counted from before they are linked until RCU frees their entry.
    /// [`RawTable::CLOSED`]: no new ones are accepted.
    pub(super) users: Atomic<i32>,
    /// The address of the registry whose entries are linked here, for comparison only. Null: no
    /// entry was ever linked.
    owner: Atomic<*mut c_void>,
}

impl RawTable {
    pub(super) const CLOSED: i32 = i32::MIN;

    pub(super) const fn new() -> Self {
        Self {
            ht: Opaque::uninit(),
            users: Atomic::new(0),
            owner: Atomic::new(ptr::null_mut()),
        }
    }

    pub(super) fn enter(&self) -> bool {
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

    pub(super) fn leave(&self) {
        // ORDERING: Release, pairs with the full exchange in `close`: the entry's accesses to the
        // table precede the table's end.
        self.users.fetch_sub(1, Release);
    }

    pub(super) fn close(&self) -> bool {
        self.users.cmpxchg(0, Self::CLOSED, Full).is_ok()
    }

    /// Makes `owner` the table's owner, unless it has another one. Returns whether it is the owner.
    pub(super) fn adopt<T>(&self, owner: *const T) -> bool {
        let owner = owner.cast_mut().cast();
        let set = self.owner.cmpxchg(ptr::null_mut(), owner, Full);
        set.is_ok() || set == Err(owner)
    }
}
