// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, devices, routes and their notifiers.

pub(crate) mod addr;
pub(crate) mod device;
pub(crate) mod dst;
pub(crate) mod family;
pub(crate) mod fib;
pub(crate) mod netns;
pub(crate) mod notifier;
pub(crate) mod prefix;
pub(crate) mod rtm;
