// SPDX-License-Identifier: GPL-2.0

//! Integers in a netns' /proc/sys/net.
//!
//! The kernel's `proc_douintvec_minmax()` checks the input: text that is not a number or out of
//! range is refused with `EINVAL`. The netns' own rule decides about write access: root, or
//! CAP_NET_ADMIN in its user namespace, else `EACCES`. A refused write changes nothing.
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

/// The bounds of a number, inclusive.
pub(crate) struct Bounds {
    /// The minimum.
    pub(crate) min: u32,
    /// The maximum.
    pub(crate) max: u32,
}

/// A number: its name, its storage, its bounds, and a callback for writes.
pub(crate) struct Var<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Returns the number's storage.
    pub(crate) value: fn(&D) -> &Atomic<u32>,
    /// The values that may be written.
    pub(crate) bounds: &'static Bounds,
    /// Called after a number was written, in process context. On error the old number is restored,
    /// and the writer gets the error. Calls may run concurrently.
    pub(crate) changed: fn(&D) -> Result,
}

/// A file: the C side's entry, which comes first, and the callback for writes.
#[repr(C)]
struct SysctlEntry<D> {
    entry: bindings::ctl_table,
    value: fn(&D) -> &Atomic<u32>,
    changed: fn(&D) -> Result,
    data: Arc<D>,
}

/// A registered file. Dropping it waits for its users. Process context; sleeps.
///
/// # Invariants
///
/// `header` belongs to a table that was registered with the entry of `file`. The entry points into
/// the `data` of `file`.
struct SysctlFile<D> {
    header: NonNull<bindings::ctl_table_header>,
    _file: KBox<SysctlEntry<D>>,
}

/// The numbers of a netns, one file each. Process context; dropping it sleeps.
pub(crate) struct Sysctls<D: Send + Sync + 'static> {
    _files: KVec<SysctlFile<D>>,
}

// SAFETY: The C side may be called from any thread, and `data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for Sysctls<D> {}
// SAFETY: A shared reference allows no operation.
unsafe impl<D: Send + Sync + 'static> Sync for Sysctls<D> {}

impl<D: Send + Sync + 'static> Sysctls<D> {
    /// Creates /proc/sys/`path` with a file for each of `vars`. Process context.
    pub(crate) fn new(init: &Init<'_>, path: &CStr, vars: &[Var<D>], data: Arc<D>) -> Result<Self> {
        let mut files = KVec::with_capacity(vars.len(), GFP_KERNEL)?;
        for var in vars {
            files.push(SysctlFile::new(init, path, var, data.clone())?, GFP_KERNEL)?;
        }
        Ok(Self { _files: files })
    }
}

impl<D: Send + Sync + 'static> SysctlFile<D> {
    fn new(init: &Init<'_>, path: &CStr, var: &Var<D>, data: Arc<D>) -> Result<Self> {
        let file = KBox::new(
            SysctlEntry {
                entry: bindings::ctl_table {
                    procname: var.name.as_char_ptr(),
                    data: (var.value)(&data).as_ptr().cast(),
                    maxlen: size_of::<u32>() as i32,
                    mode: 0o644,
                    proc_handler: Some(Self::handle),
                    extra1: core::ptr::from_ref(&var.bounds.min).cast_mut().cast(),
                    extra2: core::ptr::from_ref(&var.bounds.max).cast_mut().cast(),
                    ..Default::default()
                },
                value: var.value,
                changed: var.changed,
                data,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The netns is being set up. The entry is boxed, its name and bounds are static,
        // and its data is kept with it. The C side reads and writes the number by single accesses,
        // as `Atomic` does.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                init.net().as_raw(),
                path.as_char_ptr(),
                core::ptr::from_ref(&file.entry).cast_mut(),
                1,
            )
        };
        // INVARIANT: Registered above, with this entry.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _file: file,
        })
    }

    /// The `proc_handler`.
    ///
    /// # Safety
    ///
    /// Called by the C side for the entry of a [`SysctlEntry<D>`].
    unsafe extern "C" fn handle(
        entry: *const bindings::ctl_table,
        write: c_int,
        buffer: *mut c_void,
        lenp: *mut usize,
        ppos: *mut bindings::loff_t,
    ) -> c_int {
        // CAST: `entry` is the first field of a `SysctlEntry`.
        // SAFETY: By the function's requirement; unregistering waits for running calls.
        let file = unsafe { &*entry.cast::<SysctlEntry<D>>() };
        let value = (file.value)(&file.data);
        let old = value.load(Relaxed);
        // SAFETY: The arguments are those that the C side passed.
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

impl<D> Drop for SysctlFile<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the header is registered.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}
