// SPDX-License-Identifier: GPL-2.0

//! Walks over the flows of a netns, by number.

use crate::{
    flow::{table::FlowTable, Flow},
    kapi::{
        entry::Entry,
        sync::{rcu::ReadSide, time}, //
    },
};

impl FlowTable {
    /// Returns the flow with this number. Any context.
    pub(crate) fn get<'r>(&'r self, number: u32, rcu: &ReadSide<'r>) -> Option<&'r Entry<Flow>> {
        self.registry.get(number, rcu)
    }

    /// Returns the first flow numbered `from` or higher, with its number. Any context.
    pub(crate) fn next<'r>(
        &'r self,
        from: u32,
        rcu: &ReadSide<'r>,
    ) -> Option<(u32, &'r Entry<Flow>)> {
        self.registry.next(from, rcu)
    }

    /// Calls `f` with every flow. Returns how many there were. Process context; lets other tasks
    /// run in between.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Entry<Flow>, &ReadSide<'_>)) -> usize {
        let mut count: usize = 0;
        self.for_some(0, usize::MAX, |flow, rcu| {
            f(flow, rcu);
            count = count.saturating_add(1);
        });
        count
    }

    /// Calls `f` with at most `most` flows, from the number `from` on, and after the last flow from
    /// the first one on. Returns the number at which to continue. Any context.
    pub(crate) fn for_few(
        &self,
        mut from: u32,
        most: u32,
        rcu: &ReadSide<'_>,
        mut f: impl FnMut(&Entry<Flow>),
    ) -> u32 {
        for _ in 0..most {
            let (entry, next) = self.registry.scan(from, rcu);
            if let Some(entry) = entry {
                f(entry);
            }
            from = next.unwrap_or(0);
        }
        from
    }

    /// Calls `f` with flows numbered `from` or higher, until `most` or slightly more numbers were
    /// looked at. Returns the number at which to continue, or `None` if there are no more flows.
    /// Context as for [`Self::for_each`].
    pub(crate) fn for_some(
        &self,
        mut from: u32,
        most: usize,
        mut f: impl FnMut(&Entry<Flow>, &ReadSide<'_>),
    ) -> Option<u32> {
        /// How many flows, or gaps between them, one read-side critical section looks at.
        const CHUNK: usize = 256;

        let mut looked: usize = 0;
        while looked < most {
            {
                let guard = kernel::sync::rcu::read_lock();
                let rcu = ReadSide::of(&guard);
                for _ in 0..CHUNK {
                    let (entry, next) = self.registry.scan(from, &rcu);
                    if let Some(entry) = entry {
                        f(entry, &rcu);
                    }
                    from = next?;
                }
            }
            looked = looked.saturating_add(CHUNK);
            time::cond_resched();
        }
        Some(from)
    }
}
