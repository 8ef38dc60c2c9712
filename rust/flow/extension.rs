// SPDX-License-Identifier: GPL-2.0

//! What the extensions of connections say about flows: counts of packets, and the numbers of flows.

use crate::{
    flow::{
        handle::{self, Handle},
        table::FlowTable,
        Flow, //
    },
    kapi::{
        entry::Entry,
        nf::conn::{Conn, CtRef},
        sync::rcu::ReadSide, //
    },
};

impl FlowTable {
    /// Returns the handle of a connection without a flow, of which `count` packets were counted.
    pub(crate) fn handle_of_count(&self, count: u8) -> u64 {
        self.salt.count(count)
    }

    /// Returns whether a handle is that of a count above 0, or of a flow.
    pub(crate) fn is_ours(&self, handle: u64) -> bool {
        match self.salt.decode(handle) {
            Handle::Count(count) => count != 0,
            Handle::Index(_) => true,
            Handle::Foreign => false,
        }
    }

    /// Returns whether a handle is the number of a flow. Does not look at the flow: when it ends,
    /// the handle of the connection becomes a count.
    pub(crate) fn leads_to_flow(&self, handle: u64) -> bool {
        matches!(self.salt.decode(handle), Handle::Index(_))
    }

    /// Makes the extension of a connection lead to the flow that it has, in case it does not.
    #[cold]
    pub(super) fn point_again(&self, ct: &CtRef<'_>, rcu: &ReadSide<'_>) {
        if let Ok(entry) = self.of_conn_by_tuple(ct, rcu) {
            self.point_to(ct, entry, rcu);
        }
    }

    /// Makes the extension of a connection lead to its flow, unless it leads to a newer one by now.
    /// A handle that another module wrote is kept: such a flow is found by its tuple.
    pub(super) fn point_to(&self, ct: &CtRef<'_>, entry: &Entry<Flow>, rcu: &ReadSide<'_>) {
        /// How often the handle may change meanwhile. If it does more often, a later packet leads
        /// here again, by `EEXIST`.
        const TRIES: usize = 8;

        let new = self.salt.index(entry.index());
        let mut old = ct.handle();
        for _ in 0..TRIES {
            let Some(handle) = old else {
                return;
            };
            match self.salt.decode(handle) {
                Handle::Foreign => return,
                Handle::Index(index) if self.by_index(index, ct, rcu).is_some() => return,
                Handle::Index(_) | Handle::Count(_) => (),
            }
            match ct.conn().replace_handle(handle, new) {
                Ok(()) => {
                    // ORDERING: The exchange is a full barrier, as are those of `kill`. Either this
                    // CPU sees that the flow was killed meanwhile, or `kill` sees the new handle.
                    if !entry.is_of(ct.conn()) {
                        self.forget(ct.conn(), entry.index());
                    }
                    return;
                }
                Err(now) => old = Some(now),
            }
        }
    }

    /// Makes the extension of a connection lead to its flow with this number no more.
    pub(super) fn forget(&self, conn: &Conn, index: u32) {
        let (old, new) = (self.salt.index(index), self.salt.count(handle::ENOUGH));
        // If this fails, the handle does not lead to the flow.
        let _ = conn.replace_handle(old, new);
    }
}
