// SPDX-License-Identifier: GPL-2.0

//! The comparison of a packet's key with a route's.
//!
//! Pure: also built and tested on the host.

use crate::{kapi::nf::key::Key, route::miss::Miss};

/// Returns the first part in which a packet's key differs from a route's.
pub(crate) fn difference(route: &Key, packet: &Key) -> Option<Miss> {
    let rest = route.rest ^ packet.rest;
    if route.iif != packet.iif {
        Some(Miss::Iif)
    } else if route.mark != packet.mark {
        Some(Miss::Mark)
    } else if rest & Key::CLASS != 0 {
        Some(Miss::Dscp)
    } else if rest & Key::LABEL != 0 {
        Some(Miss::Flowlabel)
    } else if rest != 0 {
        Some(Miss::SourceCheck)
    } else {
        None
    }
}
