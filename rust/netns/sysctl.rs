// SPDX-License-Identifier: GPL-2.0

//! /proc/sys/net/nf_zoneroute: the sysctls of a netns.

use kernel::{
    prelude::*,
    sync::{atomic::Atomic, Arc}, //
};

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

/// The bounds of `learn_after`.
static PACKETS: Bounds = Bounds { min: 0, max: 255 };

/// The bounds of `jump`.
static JUMPING: Bounds = Bounds { min: 0, max: 2 };

/// The path of the sysctls below /proc/sys.
const PATH: &CStr = c"net/nf_zoneroute";

const fn var(
    name: &'static CStr,
    value: fn(&Hooks) -> &Atomic<u32>,
    bounds: &'static Bounds,
) -> Var<Hooks> {
    Var {
        name,
        value,
        bounds,
        changed: Hooks::apply_settings,
    }
}

/// The bounds of marks.
static MARK: Bounds = Bounds {
    min: 0,
    max: u32::MAX,
};

static VARS: [Var<Hooks>; 11] = [
    var(c"enable", |hooks| &hooks.sysctls.enable, &SWITCH),
    var(c"zone_lookup", |hooks| &hooks.sysctls.zone_lookup, &SWITCH),
    var(c"route_cache", |hooks| &hooks.sysctls.route_cache, &SWITCH),
    var(c"max_age_ms", |hooks| &hooks.sysctls.max_age_ms, &AGE),
    var(c"learn_after", |hooks| &hooks.sysctls.learn_after, &PACKETS),
    var(c"jump", |hooks| &hooks.sysctls.jump, &JUMPING),
    var(c"jump_mark", |hooks| &hooks.sysctls.jump_mark, &MARK),
    var(c"jump_mask", |hooks| &hooks.sysctls.jump_mask, &MARK),
    var(c"drop_mark", |hooks| &hooks.sysctls.drop_mark, &MARK),
    var(c"drop_mask", |hooks| &hooks.sysctls.drop_mask, &MARK),
    var(c"verify", |hooks| &hooks.sysctls.verify, &SWITCH),
];

/// Registers the directory and its files.
pub(super) fn register(init: &Init<'_>, hooks: Arc<Hooks>) -> Result<Sysctls<Hooks>> {
    Sysctls::new(init, PATH, &VARS, hooks)
}
