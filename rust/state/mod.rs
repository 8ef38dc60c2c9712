// SPDX-License-Identifier: GPL-2.0

//! What the stages of a netns share. Knows no hook.

pub(crate) mod stats;
