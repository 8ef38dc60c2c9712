// SPDX-License-Identifier: GPL-2.0

//! Entries for connections: this module's own domain, here because it needs `unsafe`.

pub(crate) mod last_found;
pub(crate) mod registry;
