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
};

static SWITCH: Range = Range { min: 0, max: 1 };

/// The longest age is what an operator may have to wait for a change that raises no event.
static AGE: Range = Range {
    min: 1,
    max: 60_000,
};

/// Makes the directory and its files.
pub(crate) fn table(init: &Init<'_>, state: Arc<NetState>) -> Result<Table<NetState>> {
    let vars = [
        Var {
            name: c"enable",
            value: |state: &NetState| &state.enable,
            range: &SWITCH,
        },
        Var {
            name: c"route_cache",
            value: |state: &NetState| &state.route_cache,
            range: &SWITCH,
        },
        Var {
            name: c"max_age_ms",
            value: |state: &NetState| &state.max_age_ms,
            range: &AGE,
        },
    ];
    Table::new(init, c"net/nf_zoneroute", &vars, state)
}
