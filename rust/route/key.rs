// SPDX-License-Identifier: GPL-2.0

//! The comparison of a packet's key with a route's.
//!
//! Pure: also built and tested on the host.

use crate::{kapi::nf::key::Key, route::miss::Miss};

/// Returns the first part in which a packet's key differs from a route's. With `any_dscp`, the DSCP
/// is none of them.
pub(crate) fn difference(route: &Key, packet: &Key, any_dscp: bool) -> Option<Miss> {
    let rest = route.rest ^ packet.rest;
    if route.iif != packet.iif {
        Some(Miss::Iif)
    } else if route.mark != packet.mark {
        Some(Miss::Mark)
    } else if rest & Key::CLASS != 0 && !any_dscp {
        Some(Miss::Dscp)
    } else if rest & Key::LABEL != 0 {
        Some(Miss::Flowlabel)
    } else if rest & !Key::CLASS != 0 {
        Some(Miss::SourceCheck)
    } else {
        None
    }
}
