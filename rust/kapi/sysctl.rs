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
    sync::{atomic::Atomic, Arc}, //
};

use crate::{
    bindings,
    kapi::pernet::Init, //
};

/// The bounds of a number, both allowed.
pub(crate) struct Range {
    /// The least.
    pub(crate) min: u32,
    /// The most.
    pub(crate) max: u32,
}

/// A number: its name, where it is kept, and its bounds.
pub(crate) struct Var<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Where the number is kept.
    pub(crate) value: fn(&D) -> &Atomic<u32>,
    /// What may be written.
    pub(crate) range: &'static Range,
}

/// A directory of numbers; dropping it waits for who is in a file. Process context; sleeps.
///
/// # Invariants
///
/// `header` is of a table that was registered with the entries in `table`, which point into
/// `data`.
pub(crate) struct Table<D: Send + Sync + 'static> {
    header: NonNull<bindings::ctl_table_header>,
    _table: KVec<bindings::ctl_table>,
    _data: Arc<D>,
}

// SAFETY: The C side may be called from any thread, and `data` may be sent and shared.
unsafe impl<D: Send + Sync + 'static> Send for Table<D> {}
// SAFETY: A shared reference has no use.
unsafe impl<D: Send + Sync + 'static> Sync for Table<D> {}

impl<D: Send + Sync + 'static> Table<D> {
    /// Makes /proc/sys/`path` with a file for each of `vars`. Process context.
    pub(crate) fn new(init: &Init<'_>, path: &CStr, vars: &[Var<D>], data: Arc<D>) -> Result<Self> {
        let mut table = KVec::with_capacity(vars.len(), GFP_KERNEL)?;
        for var in vars {
            let entry = bindings::ctl_table {
                procname: var.name.as_char_ptr(),
                data: (var.value)(&data).as_ptr().cast(),
                maxlen: size_of::<u32>() as i32,
                mode: 0o644,
                proc_handler: Some(bindings::proc_douintvec_minmax),
                extra1: core::ptr::from_ref(&var.range.min).cast_mut().cast(),
                extra2: core::ptr::from_ref(&var.range.max).cast_mut().cast(),
                ..Default::default()
            };
            table.push(entry, GFP_KERNEL)?;
        }
        // SAFETY: The netns is being set up; `table`'s memory does not move with the vector, its
        // names and bounds are static, and its data is kept by `data`. The C side reads and writes
        // the numbers by single accesses, as `Atomic` does.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                init.net().as_raw(),
                path.as_char_ptr(),
                table.as_ptr(),
                table.len(),
            )
        };
        // INVARIANT: Registered just so.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _table: table,
            _data: data,
        })
    }
}

impl<D: Send + Sync + 'static> Drop for Table<D> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}
