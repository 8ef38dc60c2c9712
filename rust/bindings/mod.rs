// SPDX-License-Identifier: GPL-2.0

//! Generated bindings of the kernel's C types and functions and of this module's C helpers.
//!
//! Only [`crate::kapi`] may use them. If the `kernel` crate has bindings for a type, that type is
//! re-exported here, so that both are the same type.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub(crate) use kernel::bindings::*;

use kernel::ffi;
use pin_init::MaybeZeroable;

// Local items win over the glob above.
include!("bindings_generated.rs");
