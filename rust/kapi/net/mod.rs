// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, devices and routes.

pub(crate) mod device;
pub(crate) mod dst;
pub(crate) mod fib;
pub(crate) mod netns;
pub(crate) mod notifier;
