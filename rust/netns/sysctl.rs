// SPDX-License-Identifier: GPL-2.0

//! /proc/sys/net/nf_zoneroute: the sysctls of a netns.

use kernel::{prelude::*, sync::Arc};

use crate::{
    kapi::{
        fs::sysctl::{Bounds, Sysctls, Var},
        net::netns::Init, //
    },
    netns::hooks::Hooks, //
};

static SWITCH: Bounds = Bounds { min: 0, max: 1 };

/// The bounds of `max_age_ms`. The maximum limits how long a change that raises no event may take
/// to become effective.
static AGE: Bounds = Bounds {
    min: 1,
    max: 60_000,
};

/// The path of the sysctls below /proc/sys.
const PATH: &CStr = c"net/nf_zoneroute";

/// Registers the directory and its files.
pub(super) fn register(init: &Init<'_>, hooks: Arc<Hooks>) -> Result<Sysctls<Hooks>> {
    let var = |name, value, bounds| Var {
        name,
        value,
        bounds,
        changed: Hooks::apply_settings,
    };
    let vars = [
        var(
            c"enable",
            |hooks: &Hooks| &hooks.state().settings.enable,
            &SWITCH,
        ),
        var(
            c"zone_lookup",
            |hooks| &hooks.state().settings.zone_lookup,
            &SWITCH,
        ),
        var(
            c"route_cache",
            |hooks| &hooks.state().settings.route_cache,
            &SWITCH,
        ),
        var(
            c"max_age_ms",
            |hooks| &hooks.state().settings.max_age_ms,
            &AGE,
        ),
        var(c"verify", |hooks| &hooks.state().settings.verify, &SWITCH),
    ];
    Sysctls::new(init, PATH, &vars, hooks)
}
