// SPDX-License-Identifier: GPL-2.0

//! Files in a netns' /proc/net: tables of rows, and single texts.
//!
//! Each row keeps its number, and a reader stores the number at which it stopped. If the table
//! changes between reads, no row that stays is missed or shown twice.
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
    uaccess::{UserPtr, UserSlice}, //
};

use crate::{
    bindings,
    kapi::{
        net::netns::{Init, Net},
        sync::rcu::ReadSide, //
    },
};

/// A table whose rows are numbered.
pub(crate) trait Rows {
    /// The data that holds the rows.
    type Data: Send + Sync + 'static;

    /// Called before the first row is looked for. Process context; may sleep.
    fn begin(_data: &Self::Data) {}

    /// Returns the number of the first row that is numbered `from` or higher. Process context,
    /// under RCU.
    fn find(data: &Self::Data, from: u32, rcu: &ReadSide<'_>) -> Option<u32>;

    /// Prints the row with this number, unless it went after it was found. Process context, under
    /// RCU.
    fn show(data: &Self::Data, number: u32, to: &SeqFile, rcu: &ReadSide<'_>);
}

/// A table that is also writable.
pub(crate) trait Writable: Rows {
    /// The length of the longest text, in bytes.
    const LONGEST: usize;

    /// Returns the netns of the table.
    fn net(data: &Self::Data) -> &Net;

    /// Applies `text` as a whole or not at all. Process context; may sleep. The writer has
    /// CAP_NET_ADMIN in the netns' user namespace.
    fn write(data: ArcBorrow<'_, Self::Data>, text: &[u8]) -> Result;
}

/// A file of free text.
pub(crate) trait Text {
    /// The data that the text describes.
    type Data: Send + Sync + 'static;

    /// Prints the text. Process context.
    fn show(data: &Self::Data, to: &SeqFile);
}

/// A directory in /proc/net, with its files. Dropping it waits for the files' users and removes
/// all. Process context; sleeps.
///
/// # Invariants
///
/// `dir` is a directory that this value owns; `data` is the data of its files.
pub(crate) struct Directory<D: Send + Sync + 'static> {
    dir: *mut bindings::proc_dir_entry,
    data: Arc<D>,
}

// SAFETY: The C side may be called from any thread, and `data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for Directory<D> {}
// SAFETY: As above; the C side locks when it adds a file.
unsafe impl<D: Send + Sync + 'static> Sync for Directory<D> {}

impl<D: Send + Sync + 'static> Directory<D> {
    /// Creates /proc/net/`name`. Process context.
    pub(crate) fn new(init: &Init<'_>, name: &CStr, data: Arc<D>) -> Result<Self> {
        let net = init.net();
        // SAFETY: The netns is being set up, and its /proc/net exists.
        let dir = unsafe { bindings::nfzr_helper_proc_mkdir(net.as_raw(), name.as_char_ptr()) };
        if dir.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Created above.
        Ok(Self { dir, data })
    }

    fn data(&self) -> *mut c_void {
        Arc::as_ptr(&self.data).cast_mut().cast()
    }

    /// Adds a table that root can read. Process context.
    pub(crate) fn rows<R: Rows<Data = D>>(&self, name: &CStr) -> Result {
        // SAFETY: By the type invariant the directory exists. The operations are static, and the
        // data lives until the files are removed.
        let file = unsafe {
            bindings::proc_create_net_data(
                name.as_char_ptr(),
                0o440,
                self.dir,
                &RowsAdapter::<R>::OPS,
                // Every /proc/net file starts with this state.
                core::mem::size_of::<bindings::seq_net_private>() as u32,
                self.data(),
            )
        };
        if file.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Adds a table that root can read and write. Process context.
    ///
    /// Procfs' own writable files take a page at most. An open file does not keep the netns alive,
    /// because the removal of the directory waits for its users.
    pub(crate) fn writable_rows<R: Writable<Data = D>>(&self, name: &CStr) -> Result {
        // SAFETY: As in `rows`.
        let file = unsafe {
            bindings::proc_create_data(
                name.as_char_ptr(),
                0o640,
                self.dir,
                &RowsAdapter::<R>::FILE,
                self.data(),
            )
        };
        if file.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Adds a text that root can read. Process context.
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

impl<D: Send + Sync + 'static> Drop for Directory<D> {
    fn drop(&mut self) {
        // SAFETY: Ours, by the type invariant. Also removes the files and waits for their users.
        unsafe { bindings::proc_remove(self.dir) };
    }
}

/// The `show` of a [`Text`].
///
/// # Safety
///
/// Called by seq_file for a file that [`Directory::text`] made for `T`.
unsafe extern "C" fn show_text<T: Text>(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: The file was created with a `T::Data` that lives until the file is removed.
    let data = unsafe { &*bindings::nfzr_helper_seq_data(seq).cast::<T::Data>() };
    // SAFETY: seq_file has its own lock.
    T::show(data, unsafe { SeqFile::from_raw(seq) });
    0
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
    /// `seq` belongs to a file that [`Directory::rows`] made for `R`.
    unsafe fn data<'a>(seq: *const bindings::seq_file) -> &'a R::Data {
        // SAFETY: The file was created with an `R::Data` that lives until the file is removed.
        unsafe { &*bindings::nfzr_helper_seq_data(seq).cast() }
    }

    /// Returns the first row at `*pos` or later, as its number plus one, its number in `*pos`;
    /// null: no more rows.
    ///
    /// # Safety
    ///
    /// As for `data`, between `start` and `stop`; `pos` is writable.
    unsafe fn find(seq: *const bindings::seq_file, pos: *mut bindings::loff_t) -> *mut c_void {
        // SAFETY: `start` took the RCU read lock, which `stop` releases.
        let rcu = unsafe { ReadSide::assume_held() };
        // SAFETY: By the function's requirement.
        let Ok(from) = u32::try_from(unsafe { *pos }) else {
            return ptr::null_mut();
        };
        // SAFETY: By the function's requirement.
        match R::find(unsafe { Self::data(seq) }, from, &rcu) {
            Some(number) => {
                // SAFETY: By the function's requirement.
                unsafe { *pos = number.into() };
                // CAST: A pointer is longer than a number.
                ptr::without_provenance_mut((number as usize).wrapping_add(1))
            }
            None => ptr::null_mut(),
        }
    }

    /// # Safety
    ///
    /// Called by seq_file for a file that [`Directory::rows`] made for `R`.
    unsafe extern "C" fn start(
        seq: *mut bindings::seq_file,
        pos: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: By the function's requirement.
        if unsafe { *pos } == 0 {
            // SAFETY: By the function's requirement.
            R::begin(unsafe { Self::data(seq) });
        }
        // `stop` releases the lock; seq_file always calls `stop`.
        core::mem::forget(Guard::new());
        // SAFETY: By the function's requirement, and `start` now holds the RCU read lock.
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
        // SAFETY: `pos` points to seq_file's own variable.
        unsafe { *pos = (*pos).saturating_add(1) };
        // SAFETY: By the function's requirement this is between `start` and `stop`.
        unsafe { Self::find(seq, pos) }
    }

    /// # Safety
    ///
    /// As for `start`, after it.
    unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _row: *mut c_void) {
        // SAFETY: Releases the lock that `start` took.
        unsafe { bindings::rcu_read_unlock() };
    }

    /// # Safety
    ///
    /// As for `start`, between it and `stop`; `row` came from `find`.
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, row: *mut c_void) -> c_int {
        // SAFETY: Between `start` and `stop`, which hold the RCU read lock.
        let rcu = unsafe { ReadSide::assume_held() };
        // SAFETY: seq_file has its own lock.
        let to = unsafe { SeqFile::from_raw(seq) };
        // CAST: `find` made it of a number.
        let number = row.addr().wrapping_sub(1) as u32;
        // SAFETY: By the function's requirement.
        R::show(unsafe { Self::data(seq) }, number, to, &rcu);
        0
    }
}

impl<R: Writable> RowsAdapter<R> {
    const FILE: bindings::proc_ops = bindings::proc_ops {
        proc_open: Some(Self::open),
        proc_read: Some(bindings::seq_read),
        proc_write: Some(Self::write),
        proc_lseek: Some(bindings::seq_lseek),
        proc_release: Some(bindings::seq_release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by procfs for a file that [`Directory::writable_rows`] made for `R`.
    unsafe extern "C" fn open(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By the function's requirement; the operations are static.
        unsafe { bindings::seq_open(file, &Self::OPS) }
    }

    /// # Safety
    ///
    /// As for `open`. `size` bytes at `text` are the writer's memory.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        text: *const c_char,
        size: usize,
        _: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: `open` put the `struct seq_file` there.
        let seq = unsafe { (*file).private_data }.cast();
        // SAFETY: The file was created with the `Arc` of a `Directory`, which lives until the file
        // is removed.
        let data = unsafe { ArcBorrow::from_raw(Self::data(seq)) };
        // SAFETY: By the function's requirement the file is open.
        if !unsafe { bindings::nfzr_helper_may_admin(file, R::net(&data).as_raw()) } {
            return EPERM.to_errno() as isize;
        }
        from_result(|| {
            if size == 0 || size > R::LONGEST {
                return Err(EINVAL);
            }
            let mut copy = KVVec::new();
            UserSlice::new(UserPtr::from_ptr(text.cast_mut().cast()), size)
                .reader()
                .read_all(&mut copy, GFP_KERNEL_ACCOUNT)?;
            R::write(data, &copy)?;
            Ok(isize::try_from(size)?)
        })
    }
}
