// SPDX-License-Identifier: GPL-2.0
#![crate_name = "nf_zoneroute"]

//! Zones and routes for conntrack: a table of connections for each zone, and routes that are cached
//! by connection.
//!
//! README.md says what the module does, docs/design.md how. The way of a packet is in [`path`].

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
mod refs;
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
        nf::track::is_tracking_verified,
        sync::work::CancelOnDrop, //
    },
    netns::{
        sleepers::Sleepers,
        NetNs, //
    },
    state::{settings::Defaults, shared::Shared}, //
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
        learn_after: u8 {
            default: 8,
            description: "The sysctl learn_after of new network namespaces",
        },
    },
}

/// The module.
///
/// Teardown: the notifiers are unregistered. Then the netns are torn down (see [`NetNs`]), ending
/// in `rcu_barrier()`. Then the works of the module are cancelled, and the memory that the netns
/// shared is freed: the stock of zones, and the caches, which wait for RCU once more. Changes
/// between the end of the notifiers and the end of the hooks are detected by the kernel's genids,
/// or bounded by `max_age_ms`.
struct ZoneRoute {
    _notifier: Notifier<NetNs>,
    _poll: CancelOnDrop<Sleepers>,
    _refill: CancelOnDrop<Shared>,
}

impl kernel::Module for ZoneRoute {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let shared = Shared::new(Defaults {
            enable: module_parameters::enable.value(),
            learn_after: module_parameters::learn_after.value(),
        })?;
        // Dropped after the netns if setting those up fails.
        let refill = CancelOnDrop(shared.clone());
        let sleepers = Sleepers::new(shared)?;
        let poll = CancelOnDrop(sleepers.clone());
        let module = Self {
            _notifier: Notifier::new(NetNs::subsys().register(sleepers)?)?,
            _poll: poll,
            _refill: refill,
        };
        pr_info!("loaded\n");
        if !is_tracking_verified() {
            pr_info!("zone_lookup starts as 0: not verified with this series of kernels\n");
        }
        Ok(module)
    }
}

impl Drop for ZoneRoute {
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}
