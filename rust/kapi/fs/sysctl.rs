// SPDX-License-Identifier: GPL-2.0

//! Integers in a netns' /proc/sys/net.
//!
//! The kernel's `proc_douintvec_minmax()` checks the input: text that is not a number or out of
//! range is refused with `EINVAL`. The netns' own rule decides about write access: root, or
//! CAP_NET_ADMIN in its user namespace, else `EACCES`. A refused write changes nothing.
//!
//! C header: [`include/linux/sysctl.h`](srctree/include/linux/sysctl.h)

use core::{
    mem::size_of,
    ptr::{self, NonNull}, //
};

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

/// The numbers of a netns, one file each. Dropping it waits for the files' users. Process context;
/// sleeps.
///
/// # Invariants
///
/// `header` is the registration of `_table`. In each entry, `data` points to the number in `_data`,
/// `extra1` to its [`Var`] and `extra2` to the value of `_data`.
pub(crate) struct Sysctls<D: Send + Sync + 'static> {
    header: NonNull<bindings::ctl_table_header>,
    _table: KVec<bindings::ctl_table>,
    _data: Arc<D>,
}

// SAFETY: The C side may be called from any thread, and `_data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for Sysctls<D> {}
// SAFETY: A shared reference allows no operation.
unsafe impl<D: Send + Sync + 'static> Sync for Sysctls<D> {}

impl<D: Send + Sync + 'static> Sysctls<D> {
    /// Creates /proc/sys/`path` with a file for each of `vars`. Process context.
    pub(crate) fn new(
        init: &Init<'_>,
        path: &CStr,
        vars: &'static [Var<D>],
        data: Arc<D>,
    ) -> Result<Self> {
        let mut table = KVec::with_capacity(vars.len(), GFP_KERNEL)?;
        for var in vars {
            let entry = bindings::ctl_table {
                procname: var.name.as_char_ptr(),
                data: (var.value)(&data).as_ptr().cast(),
                maxlen: size_of::<u32>() as i32,
                mode: 0o644,
                proc_handler: Some(Self::handle),
                extra1: ptr::from_ref(var).cast_mut().cast(),
                extra2: Arc::as_ptr(&data).cast_mut().cast(),
                ..Default::default()
            };
            table.push(entry, GFP_KERNEL)?;
        }
        // SAFETY: The netns is being set up. The table does not move, its names are static, and its
        // data is kept with it. The C side reads and writes a number by single accesses, as
        // `Atomic` does.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                init.net().as_raw(),
                path.as_char_ptr(),
                table.as_mut_ptr(),
                table.len(),
            )
        };
        // INVARIANT: Registered above, with the entries that were made above.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _table: table,
            _data: data,
        })
    }

    /// The `proc_handler`.
    ///
    /// # Safety
    ///
    /// Called by the C side for an entry of a `Sysctls<D>`.
    unsafe extern "C" fn handle(
        entry: *const bindings::ctl_table,
        write: c_int,
        buffer: *mut c_void,
        lenp: *mut usize,
        ppos: *mut bindings::loff_t,
    ) -> c_int {
        // SAFETY: By the function's requirement; unregistering waits for running calls.
        let entry = unsafe { &*entry };
        // SAFETY: By the type invariant.
        let var = unsafe { &*entry.extra1.cast::<Var<D>>() };
        // SAFETY: By the type invariant.
        let data = unsafe { &*entry.extra2.cast::<D>() };
        let value = (var.value)(data);
        let old = value.load(Relaxed);
        let bounded = bindings::ctl_table {
            extra1: ptr::from_ref(&var.bounds.min).cast_mut().cast(),
            extra2: ptr::from_ref(&var.bounds.max).cast_mut().cast(),
            ..*entry
        };
        // SAFETY: The entry's number, with its bounds, and the arguments that the C side passed.
        let err = unsafe { bindings::proc_douintvec_minmax(&bounded, write, buffer, lenp, ppos) };
        if err != 0 || write == 0 {
            return err;
        }
        match (var.changed)(data) {
            Ok(()) => 0,
            Err(err) => {
                value.store(old, Relaxed);
                err.to_errno()
            }
        }
    }
}

impl<D: Send + Sync + 'static> Drop for Sysctls<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the header is registered.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}
