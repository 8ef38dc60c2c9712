// SPDX-License-Identifier: GPL-2.0

//! /proc/sys/net/nf_zoneroute: the switches of a netns.

#![deny(unsafe_code)]

use kernel::{prelude::*, sync::Arc};

use crate::{
    kapi::{
        pernet::Init,
        sysctl::{Range, Table, Var}, //
    },
    netns::NetState,
    verify::Hooks,
};

static SWITCH: Range = Range { min: 0, max: 1 };

/// The longest age is what an operator may have to wait for a change that raises no event.
static AGE: Range = Range {
    min: 1,
    max: 60_000,
};

/// Where the files are.
const PATH: &CStr = c"net/nf_zoneroute";

/// What reads a number finds it when it needs it.
fn no_more(_: &NetState) -> Result {
    Ok(())
}

/// Makes the directory and its files but for `verify`.
pub(crate) fn table(init: &Init<'_>, state: Arc<NetState>) -> Result<Table<NetState>> {
    let vars = [
        Var {
            name: c"enable",
            value: |state: &NetState| &state.enable,
            range: &SWITCH,
            changed: no_more,
        },
        Var {
            name: c"zone_lookup",
            value: |state: &NetState| &state.zone_lookup,
            range: &SWITCH,
            changed: no_more,
        },
        Var {
            name: c"route_cache",
            value: |state: &NetState| &state.route_cache,
            range: &SWITCH,
            changed: no_more,
        },
        Var {
            name: c"max_age_ms",
            value: |state: &NetState| &state.max_age_ms,
            range: &AGE,
            changed: no_more,
        },
    ];
    Table::new(init, PATH, &vars, state)
}

/// Makes `verify`, which has hooks of its own.
pub(crate) fn verify(init: &Init<'_>, hooks: Arc<Hooks>) -> Result<Table<Hooks>> {
    let vars = [Var {
        name: c"verify",
        value: Hooks::value,
        range: &SWITCH,
        changed: Hooks::follow,
    }];
    Table::new(init, PATH, &vars, hooks)
}
