// SPDX-License-Identifier: GPL-2.0

//! Whole numbers in a netns' /proc/sys/net.
//!
//! Checking is the kernel's `proc_douintvec_minmax()`: what is no number or out of range is refused
//! with `EINVAL`, and who may write is the netns' own rule (root, or CAP_NET_ADMIN in its user
//! namespace; else `EACCES`). A refused write changes nothing.
//!
//! C header: [`include/linux/sysctl.h`](srctree/include/linux/sysctl.h)

use core::{mem::size_of, ptr::NonNull};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

use crate::{
    bindings,
    kapi::net::netns::Init, //
};

/// The bounds of a number, both allowed.
pub(crate) struct Range {
    /// The least.
    pub(crate) min: u32,
    /// The most.
    pub(crate) max: u32,
}

/// A number: its name, where it is kept, its bounds, and what happens when it is written.
pub(crate) struct Var<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Where the number is kept.
    pub(crate) value: fn(&D) -> &Atomic<u32>,
    /// What may be written.
    pub(crate) range: &'static Range,
    /// Called after a number was written, in process context. On an error the number is put back,
    /// and the writer gets the error. Several may be called at a time.
    pub(crate) changed: fn(&D) -> Result,
}

/// A file: the entry that the C side has, which comes first, and what is done when it is written.
#[repr(C)]
struct File<D> {
    entry: bindings::ctl_table,
    value: fn(&D) -> &Atomic<u32>,
    changed: fn(&D) -> Result,
    data: Arc<D>,
}

/// A file that is there; dropping it waits for who is in it. Process context; sleeps.
///
/// # Invariants
///
/// `header` is of a table that was registered with the entry of `file`, which points into its
/// `data`.
struct Registered<D> {
    header: NonNull<bindings::ctl_table_header>,
    _file: KBox<File<D>>,
}

/// Numbers of a netns, each a file. Process context; dropping it sleeps.
pub(crate) struct Table<D: Send + Sync + 'static> {
    _files: KVec<Registered<D>>,
}

// SAFETY: The C side may be called from any thread, and `data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for Table<D> {}
// SAFETY: A shared reference has no use.
unsafe impl<D: Send + Sync + 'static> Sync for Table<D> {}

impl<D: Send + Sync + 'static> Table<D> {
    /// Makes /proc/sys/`path` with a file for each of `vars`. Process context.
    pub(crate) fn new(init: &Init<'_>, path: &CStr, vars: &[Var<D>], data: Arc<D>) -> Result<Self> {
        let mut files = KVec::with_capacity(vars.len(), GFP_KERNEL)?;
        for var in vars {
            files.push(Registered::new(init, path, var, data.clone())?, GFP_KERNEL)?;
        }
        Ok(Self { _files: files })
    }
}

impl<D: Send + Sync + 'static> Registered<D> {
    fn new(init: &Init<'_>, path: &CStr, var: &Var<D>, data: Arc<D>) -> Result<Self> {
        let file = KBox::new(
            File {
                entry: bindings::ctl_table {
                    procname: var.name.as_char_ptr(),
                    data: (var.value)(&data).as_ptr().cast(),
                    maxlen: size_of::<u32>() as i32,
                    mode: 0o644,
                    proc_handler: Some(Self::handle),
                    extra1: core::ptr::from_ref(&var.range.min).cast_mut().cast(),
                    extra2: core::ptr::from_ref(&var.range.max).cast_mut().cast(),
                    ..Default::default()
                },
                value: var.value,
                changed: var.changed,
                data,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The netns is being set up; the entry is boxed, its name and bounds are static, and
        // its data is kept with it. The C side reads and writes the number by single accesses, as
        // `Atomic` does.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                init.net().as_raw(),
                path.as_char_ptr(),
                core::ptr::from_ref(&file.entry).cast_mut(),
                1,
            )
        };
        // INVARIANT: Registered just so.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _file: file,
        })
    }

    /// The `proc_handler`.
    ///
    /// # Safety
    ///
    /// Called by the C side for the entry of a [`File<D>`].
    unsafe extern "C" fn handle(
        entry: *const bindings::ctl_table,
        write: c_int,
        buffer: *mut c_void,
        lenp: *mut usize,
        ppos: *mut bindings::loff_t,
    ) -> c_int {
        // CAST: The entry comes first in a `File`.
        // SAFETY: By the function's requirement; the file stays while somebody is in it.
        let file = unsafe { &*entry.cast::<File<D>>() };
        let value = (file.value)(&file.data);
        let old = value.load(Relaxed);
        // SAFETY: The arguments are the C side's own.
        let err = unsafe { bindings::proc_douintvec_minmax(entry, write, buffer, lenp, ppos) };
        if err != 0 || write == 0 {
            return err;
        }
        match (file.changed)(&file.data) {
            Ok(()) => 0,
            Err(err) => {
                value.store(old, Relaxed);
                err.to_errno()
            }
        }
    }
}

impl<D> Drop for Registered<D> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}
