// SPDX-License-Identifier: GPL-2.0
#![crate_name = "nf_zoneroute"]

//! Zones and routes for conntrack: connections listed by zone, and routes kept by the connection.
//!
//! See README.md for what it does, and `kapi` for the rules that the code below it relies on.

mod bindings;
mod kapi;

#[deny(unsafe_code)]
mod flow;
#[deny(unsafe_code)]
mod named_enum;
#[deny(unsafe_code)]
mod netns;
#[deny(unsafe_code)]
mod path;
#[deny(unsafe_code)]
mod route;
#[deny(unsafe_code)]
mod state;
#[deny(unsafe_code)]
mod track;

use kernel::prelude::*;

use crate::{
    kapi::{
        net::{
            netns::PerNet,
            notifier::Notifier, //
        },
        sync::work::CancelOnDrop, //
    },
    netns::{NetNs, Shared}, //
};

module! {
    type: ZoneRoute,
    name: "nf_zoneroute",
    authors: ["The nf_zoneroute developers"],
    description: "Conntrack zones with tables of their own, and routes kept by the connection",
    license: "GPL",
    params: {
        enable: bool {
            default: true,
            description: "Start switched on in every network namespace",
        },
    },
}

/// The module.
///
/// Teardown: the notifiers are unregistered, then the netns are taken down (each as [`NetNs`] says,
/// ending in `rcu_barrier()`), the refilling of the stock is cancelled, and with that goes what the
/// netns shared: the stock of zones and the caches, which wait for RCU once more. What happens between
/// the notifiers' end and the hooks' is bounded by `max_age_ms`, and seen by the kernel's genids.
struct ZoneRoute {
    _notifier: Notifier<NetNs>,
    _refill: CancelOnDrop<Shared>,
}

impl kernel::Module for ZoneRoute {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let shared = Shared::new(module_parameters::enable.value())?;
        // Dropped after the netns if setting those up fails.
        let refill = CancelOnDrop(shared.clone());
        let module = Self {
            _notifier: Notifier::new(NetNs::subsys().register(shared)?)?,
            _refill: refill,
        };
        pr_info!("loaded\n");
        Ok(module)
    }
}

impl Drop for ZoneRoute {
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}
