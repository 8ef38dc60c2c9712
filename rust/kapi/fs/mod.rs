// SPDX-License-Identifier: GPL-2.0

//! Files in /proc.

pub(crate) mod proc;
pub(crate) mod sysctl;
