// SPDX-License-Identifier: GPL-2.0

//! /proc/sys/net/nf_zoneroute: the sysctls of a netns.

use kernel::{prelude::*, sync::Arc};

use crate::{
    kapi::{
        fs::sysctl::{Range, Table, Var},
        net::netns::Init, //
    },
    netns::Hooks,
    path::verify, //
};

static SWITCH: Range = Range { min: 0, max: 1 };

/// The range of `max_age_ms`. Its maximum bounds how long a change that raises no event may take to
/// become effective.
static AGE: Range = Range {
    min: 1,
    max: 60_000,
};

/// Path of the sysctls below /proc/sys.
const PATH: &CStr = c"net/nf_zoneroute";

/// Registers the directory with all sysctls except `verify`.
pub(crate) fn table(init: &Init<'_>, hooks: Arc<Hooks>) -> Result<Table<Hooks>> {
    let vars = [
        Var {
            name: c"enable",
            value: |hooks: &Hooks| &hooks.state().enable,
            range: &SWITCH,
            changed: Hooks::follow,
        },
        Var {
            name: c"zone_lookup",
            value: |hooks: &Hooks| &hooks.state().zone_lookup,
            range: &SWITCH,
            changed: Hooks::follow,
        },
        Var {
            name: c"route_cache",
            value: |hooks: &Hooks| &hooks.state().route_cache,
            range: &SWITCH,
            changed: Hooks::follow,
        },
        Var {
            name: c"max_age_ms",
            value: |hooks: &Hooks| &hooks.state().max_age_ms,
            range: &AGE,
            changed: Hooks::follow,
        },
    ];
    Table::new(init, PATH, &vars, hooks)
}

/// Registers `verify`, which has hooks of its own.
pub(crate) fn verify(init: &Init<'_>, hooks: Arc<verify::Hooks>) -> Result<Table<verify::Hooks>> {
    let vars = [Var {
        name: c"verify",
        value: verify::Hooks::value,
        range: &SWITCH,
        changed: verify::Hooks::follow,
    }];
    Table::new(init, PATH, &vars, hooks)
}
