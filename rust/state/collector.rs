// SPDX-License-Identifier: GPL-2.0

//! The collector: removes the flows of dead connections, and routes that are of no use any more.
//!
//! It judges each flow on its own and applies the judgement. It looks at [`FLOWS_PER_PASS`] flows
//! each second, and continues at once while much is to be collected.

use kernel::sync::{
    atomic::Relaxed,
    rcu::read_lock, //
};

use crate::{
    flow::Flow,
    kapi::{
        entry::Entry,
        net::{family::Family, netns::Net},
        nf::conn::Conn,
        sync::rcu::ReadSide, //
    },
    route::miss::Miss,
    state::{
        settings::Mode,
        stats::Event,
        NetState, //
    },
};

/// How many flows a pass looks at: few enough that the cost per packet is negligible even with a
/// million flows.
const FLOWS_PER_PASS: usize = 16384;

/// The state of a connection, as far as it decides about its flow.
#[derive(Clone, Copy)]
struct ConnFacts {
    gone: bool,
    assured: bool,
    family: Family,
}

impl ConnFacts {
    fn of(conn: &Conn) -> Self {
        Self {
            gone: conn.is_gone(),
            assured: conn.is_assured(),
            family: conn.family(),
        }
    }
}

/// The state of a netns, as far as it decides about flows.
#[derive(Clone, Copy)]
struct NetFacts {
    /// Conntrack will soon drop unassured connections early.
    nearly_full: bool,
    /// Conntrack is enabled for IPv4, and for IPv6.
    tracking: [bool; 2],
    mode: Mode,
}

impl NetFacts {
    fn of(net: &Net, mode: Mode, rcu: &ReadSide<'_>) -> Self {
        Self {
            nearly_full: net.is_conntrack_nearly_full(),
            tracking: Family::ALL.map(|family| net.is_tracking(family, rcu)),
            mode,
        }
    }

    fn is_tracking(&self, family: Family) -> bool {
        let [ipv4, ipv6] = self.tracking;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }
}

/// What to do with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Remove it, and count the event.
    End(Event),
    /// Drop its routes, and count the event for each.
    DropRoutes(Event),
    /// Drop the routes that the kernel declared obsolete, and count the event for each: an idle
    /// flow must not hold a route that the kernel wants to free.
    DropObsolete(Event),
}

fn judge(conn: &ConnFacts, net: &NetFacts) -> Judgement {
    if conn.gone {
        Judgement::End(Event::FlowGone)
    } else if net.nearly_full && !conn.assured {
        Judgement::End(Event::FlowScarce)
    } else if !net.is_tracking(conn.family) {
        Judgement::End(Event::FlowUntracked)
    } else if !net.mode.is_on() {
        Judgement::End(Event::FlowDisabled)
    } else if !net.mode.caches_routes() {
        Judgement::DropRoutes(Event::SlotDisabled)
    } else {
        Judgement::DropObsolete(Event::SlotObsolete)
    }
}

impl NetState {
    /// Collects flows and zones. Returns whether any are left. Process context; sleeps.
    ///
    /// Continues where the last pass ended. Looks at all flows if the mode changed.
    pub(super) fn collect(&self) -> bool {
        let mode = self.settings.mode();
        let position = &self.collected;
        let changed = position.mode.xchg(mode.as_raw(), Relaxed) != mode.as_raw();
        let mut from = if changed {
            0
        } else {
            position.next.load(Relaxed)
        };
        loop {
            let (next, much) = self.collect_some(from, mode);
            from = next.unwrap_or(0);
            if from == 0 || !(changed || much) {
                break;
            }
        }
        position.next.store(from, Relaxed);
        let zones = self.flows.zones().collect();
        self.refs.flows.load(Relaxed) != 0 || zones != 0
    }

    /// Looks at [`FLOWS_PER_PASS`] flows. Returns where to continue, and whether to do so at once:
    /// because much was collected, or because conntrack needs room.
    fn collect_some(&self, from: u32, mode: Mode) -> (Option<u32>, bool) {
        let facts = self.facts();
        let net = {
            let guard = read_lock();
            NetFacts::of(&self.net, mode, &ReadSide::of(&guard))
        };
        let mut collected: usize = 0;
        let next = self.flows.for_some(from, FLOWS_PER_PASS, |flow, rcu| {
            let any = match judge(&ConnFacts::of(flow.conn()), &net) {
                Judgement::End(event) => self.end_flow(flow, event, rcu),
                Judgement::DropRoutes(event) => {
                    self.drop_routes(flow, event, rcu, |_| Some(Miss::Empty))
                }
                Judgement::DropObsolete(event) => {
                    self.drop_routes(flow, event, rcu, |slot| slot.obsolete(&facts, rcu))
                }
            };
            collected = collected.saturating_add(usize::from(any));
        });
        (next, net.nearly_full || collected >= FLOWS_PER_PASS / 8)
    }

    fn end_flow(&self, flow: &Entry<Flow>, event: Event, rcu: &ReadSide<'_>) -> bool {
        let ended = self.flows.kill(flow, rcu);
        if ended {
            self.stats.count(event);
        }
        ended
    }

    /// Removes every flow. Process context; lets other tasks run.
    pub(crate) fn end_all(&self) {
        self.flows.for_each(|flow, rcu| {
            self.flows.kill(flow, rcu);
        });
    }
}
