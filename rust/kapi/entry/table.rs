// SPDX-License-Identifier: GPL-2.0

//! Tables of entries, keyed by tuple.
//!
//! C header: [`include/linux/rhashtable.h`](srctree/include/linux/rhashtable.h)

use core::{
    marker::PhantomData,
    mem::{align_of, offset_of},
    ops::Deref,
    ptr::{self, NonNull}, //
};

use kernel::{
    error::to_result,
    prelude::*,
    static_assert,
    sync::atomic::Relaxed, //
};

use crate::{
    bindings,
    kapi::{
        entry::{raw_table::RawTable, Entry},
        nf::conn::{Conn, Dir},
        sync::rcu::ReadSide, //
    },
};

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
#[repr(transparent)]
pub(crate) struct TupleTable<T: Send + Sync> {
    pub(super) raw: NonNull<RawTable>,
    _entries: PhantomData<fn() -> T>,
}

// SAFETY: The C side synchronises accesses to the table.
unsafe impl<T: Send + Sync> Send for TupleTable<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for TupleTable<T> {}

impl<T: Send + Sync> TupleTable<T> {
    /// Creates an empty table. Process context, which rhashtable requires.
    pub(crate) fn new() -> Result<Self> {
        let raw = KBox::new(RawTable::new(), GFP_KERNEL)?;
        // SAFETY: `raw` is boxed, so it does not move.
        to_result(unsafe { bindings::nfzr_helper_table_init(raw.ht.get()) })?;
        // INVARIANT: Initialised above.
        Ok(Self {
            raw: NonNull::from(KBox::leak(raw)),
            _entries: PhantomData,
        })
    }

    pub(super) fn raw(&self) -> &RawTable {
        // SAFETY: By the type invariant `raw` is valid memory of this table.
        unsafe { self.raw.as_ref() }
    }

    /// Returns the live entry of a connection whose direction `dir` is in this table. Any context.
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
        let link = NonNull::new(link)?;
        // SAFETY: Found under RCU, so the entry is not freed before `'r` ends.
        Some(unsafe { Self::entry_of(link) }).filter(|entry| entry.is_of(ct))
    }

    /// Returns the entry that contains a link of this table.
    ///
    /// # Safety
    ///
    /// The link is in the table, or was in this read-side critical section, which lasts for `'r`.
    pub(super) unsafe fn entry_of<'r>(link: NonNull<bindings::rhash_head>) -> &'r Entry<T> {
        // An entry is aligned to 16 bytes, and its two links are its first 16 bytes.
        let offset = link.addr().get() % align_of::<bindings::nfzr_links>();
        // SAFETY: Every link is one of the two at the start of an `Entry<T>`.
        let entry = unsafe { link.byte_sub(offset) }.cast::<Entry<T>>();
        // SAFETY: By the function's requirement the entry is not freed before `'r` ends.
        unsafe { entry.as_ref() }
    }

    /// Calls `f` with every entry. An entry with both directions in this table is visited twice.
    /// `f` may kill the entry. If no entry is killed meanwhile, no entry that stays is missed.
    /// Process context; lets other tasks run.
    ///
    /// Errors, after some entries were visited: `EINTR`, a fatal signal; `EAGAIN`, the table was
    /// resized too often.
    pub(crate) fn walk<F: FnMut(&Entry<T>, &ReadSide<'_>)>(&self, mut f: F) -> Result {
        /// # Safety
        ///
        /// Called by the walk through a `TupleTable<T>`, under RCU, with the context passed to the
        /// walk.
        unsafe extern "C" fn visit<T, F>(context: *mut c_void, link: *mut bindings::rhash_head)
        where
            T: Send + Sync,
            F: FnMut(&Entry<T>, &ReadSide<'_>),
        {
            // SAFETY: By the function's requirement.
            let rcu = unsafe { ReadSide::assume_held() };
            // SAFETY: The walk passes links of the table, which are not null.
            let link = unsafe { NonNull::new_unchecked(link) };
            // SAFETY: The link was in the table in this read-side critical section.
            let entry = unsafe { TupleTable::<T>::entry_of(link) };
            // SAFETY: The context is the walk's own closure, which has no other user meanwhile.
            (unsafe { &mut *context.cast::<F>() })(entry, &rcu);
        }

        // SAFETY: By the type invariant the table is initialised; `f` lives until the walk ends.
        to_result(unsafe {
            bindings::nfzr_helper_table_walk(
                self.raw().ht.get(),
                Some(visit::<T, F>),
                ptr::from_mut(&mut f).cast(),
            )
        })
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

impl<T: Send + Sync> Drop for TupleTable<T> {
    /// Frees the table. Process context.
    fn drop(&mut self) {
        let users = self.raw().users.load(Relaxed);
        if kernel::warn_on!(users != 0 && users != RawTable::CLOSED) {
            // An entry still points here: leak the table to prevent a use after free.
            return;
        }
        // SAFETY: By the type invariant the table is initialised. It has no users now.
        unsafe { bindings::nfzr_helper_table_destroy(self.raw().ht.get()) };
        // SAFETY: The pointer is from `KBox::leak` in `new`.
        drop(unsafe { KBox::from_raw(self.raw.as_ptr()) });
    }
}

/// A table with data of its user, as a lookup of packets expects it: `struct nfzr_tabled`.
#[repr(C)]
pub(crate) struct Tabled<T: Send + Sync, U> {
    /// The table.
    pub(crate) table: TupleTable<T>,
    data: U,
}

static_assert!(offset_of!(Tabled<(), ()>, table) == offset_of!(bindings::nfzr_tabled, table));
// A pointer to the memory of a table is one to its rhashtable.
static_assert!(offset_of!(RawTable, ht) == 0);

impl<T: Send + Sync, U> Tabled<T, U> {
    /// Creates an empty table with this data. Process context.
    pub(crate) fn new(data: U) -> Result<Self> {
        let table = TupleTable::new()?;
        Ok(Self { table, data })
    }
}

impl<T: Send + Sync, U> Deref for Tabled<T, U> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.data
    }
}
