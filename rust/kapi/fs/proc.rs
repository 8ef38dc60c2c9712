// SPDX-License-Identifier: GPL-2.0

//! Files in a netns' /proc/net: tables of rows, and single texts.
//!
//! Rows are found by a number that stays theirs, and a reader remembers the number where he
//! stopped: so while the table changes under him, no row that stays is missed or shown twice.
//!
//! C header: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h)

use core::{marker::PhantomData, ptr};

use kernel::{
    error::from_result,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        rcu::Guard,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    bindings,
    kapi::{
        net::netns::Init,
        sync::rcu::ReadSide, //
    },
};

/// A table whose rows are numbered.
pub(crate) trait Rows {
    /// Where the rows are.
    type Data: Send + Sync + 'static;
    /// A row.
    type Row;

    /// The first row with the number `from` or a later one. Process context, under RCU.
    fn find<'r>(
        data: &'r Self::Data,
        from: u32,
        rcu: &ReadSide<'r>,
    ) -> Option<(u32, &'r Self::Row)>;

    /// Prints a row. Process context, under RCU.
    fn show(data: &Self::Data, row: &Self::Row, to: &SeqFile, rcu: &ReadSide<'_>);
}

/// A table that can be written to.
pub(crate) trait Writable: Rows {
    /// Does what the text says, which is at most a page, or nothing of it. Process context; may sleep.
    /// The writer has CAP_NET_ADMIN in the netns' user namespace.
    fn write(data: ArcBorrow<'_, Self::Data>, text: &[u8]) -> Result;
}

/// A text.
pub(crate) trait Text {
    /// What it tells of.
    type Data: Send + Sync + 'static;

    /// Prints it. Process context.
    fn show(data: &Self::Data, to: &SeqFile);
}

/// A directory of /proc/net and its files; dropping it waits for their readers and removes it.
/// Process context; sleeps.
///
/// # Invariants
///
/// `dir` is a directory that this owns; its files' data is `data`.
pub(crate) struct Dir<D: Send + Sync + 'static> {
    dir: *mut bindings::proc_dir_entry,
    data: Arc<D>,
}

// SAFETY: The C side may be called from any thread, and `data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for Dir<D> {}
// SAFETY: As above; adding files locks on the C side.
unsafe impl<D: Send + Sync + 'static> Sync for Dir<D> {}

impl<D: Send + Sync + 'static> Dir<D> {
    /// Makes /proc/net/`name`. Process context.
    pub(crate) fn new(init: &Init<'_>, name: &CStr, data: Arc<D>) -> Result<Self> {
        let net = init.net().as_raw();
        // SAFETY: The netns is being set up, and has its /proc/net.
        let dir = unsafe { bindings::nfzr_helper_proc_mkdir(net, name.as_char_ptr()) };
        if dir.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Made just now.
        Ok(Self { dir, data })
    }

    fn data(&self) -> *mut c_void {
        Arc::as_ptr(&self.data).cast_mut().cast()
    }

    /// Adds a table, for root to read. Process context.
    pub(crate) fn rows<R: Rows<Data = D>>(&self, name: &CStr) -> Result {
        // SAFETY: The directory is there, the operations are static, and the data stays until
        // the files are removed.
        let file = unsafe {
            bindings::proc_create_net_data(
                name.as_char_ptr(),
                0o440,
                self.dir,
                &RowsAdapter::<R>::OPS,
                // The state that every /proc/net file starts with.
                core::mem::size_of::<bindings::seq_net_private>() as u32,
                self.data(),
            )
        };
        if file.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Adds a table that can be written to, for root. Process context.
    pub(crate) fn writable_rows<R: Writable<Data = D>>(&self, name: &CStr) -> Result {
        // SAFETY: As in `rows`.
        let file = unsafe {
            bindings::proc_create_net_data_write(
                name.as_char_ptr(),
                0o640,
                self.dir,
                &RowsAdapter::<R>::OPS,
                Some(write_rows::<R>),
                core::mem::size_of::<bindings::seq_net_private>() as u32,
                self.data(),
            )
        };
        if file.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Adds a text, for root to read. Process context.
    pub(crate) fn text<T: Text<Data = D>>(&self, name: &CStr) -> Result {
        // SAFETY: As in `rows`.
        let file = unsafe {
            bindings::proc_create_net_single(
                name.as_char_ptr(),
                0o440,
                self.dir,
                Some(show_text::<T>),
                self.data(),
            )
        };
        if file.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }
}

impl<D: Send + Sync + 'static> Drop for Dir<D> {
    fn drop(&mut self) {
        // SAFETY: Ours, by the type invariant; removes the files too, and waits for who is in one.
        unsafe { bindings::proc_remove(self.dir) };
    }
}

/// The `show` of a [`Text`].
///
/// # Safety
///
/// Called by seq_file for a file that [`Dir::text`] made for `T`.
unsafe extern "C" fn show_text<T: Text>(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: The file was made with a `T::Data` that stays until the file is removed.
    let data = unsafe { &*bindings::nfzr_helper_seq_data(seq).cast::<T::Data>() };
    // SAFETY: seq_file has its own lock.
    T::show(data, unsafe { SeqFile::from_raw(seq) });
    0
}

/// The `write` of a [`Writable`].
///
/// # Safety
///
/// Called by procfs for a file that [`Dir::writable_rows`] made for `R`, with a copy of what was
/// written.
unsafe extern "C" fn write_rows<R: Writable>(
    file: *mut bindings::file,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: The file is open.
    if !unsafe { bindings::nfzr_helper_seq_may_admin(file) } {
        return EPERM.to_errno();
    }
    // SAFETY: A file of procfs' seq_file has its `struct seq_file` there.
    let seq = unsafe { (*file).private_data }.cast();
    // SAFETY: The file was made with the `Arc` of a `Dir`, which stays until the file is removed.
    let data = unsafe { ArcBorrow::from_raw(RowsAdapter::<R>::data(seq)) };
    // SAFETY: By the function's requirement.
    let text = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), size) };
    from_result(|| R::write(data, text).map(|()| 0))
}

/// The `seq_operations` of a table.
struct RowsAdapter<R>(PhantomData<R>);

impl<R: Rows> RowsAdapter<R> {
    const OPS: bindings::seq_operations = bindings::seq_operations {
        start: Some(Self::start),
        stop: Some(Self::stop),
        next: Some(Self::next),
        show: Some(Self::show),
    };

    /// # Safety
    ///
    /// `seq` is of a file that [`Dir::rows`] made for `R`.
    unsafe fn data<'a>(seq: *const bindings::seq_file) -> &'a R::Data {
        // SAFETY: The file was made with an `R::Data` that stays until the file is removed.
        unsafe { &*bindings::nfzr_helper_seq_data(seq).cast() }
    }

    /// The row at `*pos` or the next one, whose number goes to `*pos`; null: no more.
    ///
    /// # Safety
    ///
    /// As for `data`, between `start` and `stop`; `pos` can be written.
    unsafe fn find(seq: *const bindings::seq_file, pos: *mut bindings::loff_t) -> *mut c_void {
        // SAFETY: `start` took the RCU read lock, which `stop` gives back.
        let rcu = unsafe { ReadSide::assume_held() };
        // SAFETY: By the function's requirement.
        let Ok(from) = u32::try_from(unsafe { *pos }) else {
            return ptr::null_mut();
        };
        // SAFETY: By the function's requirement.
        match R::find(unsafe { Self::data(seq) }, from, &rcu) {
            Some((number, row)) => {
                // SAFETY: By the function's requirement.
                unsafe { *pos = number.into() };
                ptr::from_ref(row).cast_mut().cast()
            }
            None => ptr::null_mut(),
        }
    }

    /// # Safety
    ///
    /// Called by seq_file for a file that [`Dir::rows`] made for `R`.
    unsafe extern "C" fn start(
        seq: *mut bindings::seq_file,
        pos: *mut bindings::loff_t,
    ) -> *mut c_void {
        // `stop` drops it; seq_file always calls that.
        core::mem::forget(Guard::new());
        // SAFETY: By the function's requirement, and RCU is held.
        unsafe { Self::find(seq, pos) }
    }

    /// # Safety
    ///
    /// As for `start`.
    unsafe extern "C" fn next(
        seq: *mut bindings::seq_file,
        _row: *mut c_void,
        pos: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: seq_file's own variable.
        unsafe { *pos = (*pos).saturating_add(1) };
        // SAFETY: By the function's requirement, between `start` and `stop`.
        unsafe { Self::find(seq, pos) }
    }

    /// # Safety
    ///
    /// As for `start`, after it.
    unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _row: *mut c_void) {
        // SAFETY: Gives back what `start` took.
        unsafe { bindings::rcu_read_unlock() };
    }

    /// # Safety
    ///
    /// As for `start`, between it and `stop`; `row` came from `find`.
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, row: *mut c_void) -> c_int {
        // SAFETY: Between `start` and `stop`.
        let rcu = unsafe { ReadSide::assume_held() };
        // SAFETY: From `find`, in the same read-side critical section.
        let row = unsafe { &*row.cast::<R::Row>() };
        // SAFETY: seq_file has its own lock.
        let to = unsafe { SeqFile::from_raw(seq) };
        // SAFETY: By the function's requirement.
        R::show(unsafe { Self::data(seq) }, row, to, &rcu);
        0
    }
}
