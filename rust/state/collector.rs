// SPDX-License-Identifier: GPL-2.0

//! The collector: removes the flows of dead connections, and routes that are of no use any more.
//!
//! It judges each flow on its own and applies the judgement. It looks at [`FLOWS_PER_PASS`] flows
//! each second, and continues at once while much is to be collected.
//!
//! Until the flow of a dead connection is removed, conntrack counts the connection and NAT keeps
//! its port. Conntrack does not announce a connection's death, so other code looks for it, too:
//!
//! * a packet whose tuple is that of a dead connection ends that flow ([`NetState::met_gone`]);
//! * a packet of a new connection looks at a few flows ([`NetState::make_room`]): at more of them
//!   if conntrack is nearly full, so that all have been looked at before it is full;
//! * when a process closes a netlink socket by which it may have deleted connections, flows are
//!   looked at before the process goes on ([`NetState::sweep`]).
//!
//! If any of these finds a dead connection, others may have died with it: the sweeper continues.

use kernel::sync::{
    atomic::Relaxed,
    rcu::read_lock,
    ArcBorrow, //
};

use crate::{
    flow::Flow,
    kapi::{
        entry::Entry,
        net::{family::Family, netns::Net},
        nf::peek::ConnPeek,
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
pub(super) const FLOWS_PER_PASS: usize = 16384;

/// How many flows are looked at for a process, even if none of their connections is dead.
pub(crate) const FLOWS_PER_PROCESS: usize = 131_072;

/// How many flows a packet of a new connection looks at. A connection has at most one flow,
/// so the flows of ended connections do not outgrow the others, even with `learn_after=0`.
const FLOWS_PER_NEW: u32 = 1;

/// The same if conntrack is nearly full. A quarter of its room is left then, so until it is full,
/// twice as many flows are looked at as there can be.
const FLOWS_PER_NEW_WHEN_SCARCE: u32 = 8;

/// The state of a connection, as far as it decides about its flow.
#[derive(Clone, Copy)]
struct ConnFacts {
    gone: bool,
    assured: bool,
    family: Family,
}

impl ConnFacts {
    fn of(conn: &ConnPeek<'_>) -> Self {
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
        self.flows.note_none() || zones != 0
    }

    /// Looks at [`FLOWS_PER_PASS`] flows. Returns where to continue, and whether to do so at once:
    /// because much was collected, or because conntrack needs room.
    fn collect_some(&self, from: u32, mode: Mode) -> (Option<u32>, bool) {
        let net = {
            let guard = read_lock();
            NetFacts::of(&self.net, mode, &ReadSide::of(&guard))
        };
        let mut collected: usize = 0;
        let next = self.flows.for_some(from, FLOWS_PER_PASS, |flow, rcu| {
            let Some(conn) = flow.peek(rcu, ConnFacts::of) else {
                return;
            };
            self.drop_passes(flow, mode, rcu);
            let any = match judge(&conn, &net) {
                Judgement::End(event) => self.end_flow(flow, event, rcu),
                Judgement::DropRoutes(event) => {
                    self.drop_routes(flow, event, rcu, |_, _| Some(Miss::Empty))
                }
                Judgement::DropObsolete(event) => {
                    self.drop_routes(flow, event, rcu, |dir, slot| {
                        let ends = flow.peek(rcu, |conn| conn.ends(dir))?;
                        slot.obsolete(self, || ends, rcu)
                    })
                }
            };
            collected = collected.saturating_add(usize::from(any));
        });
        (next, net.nearly_full || collected >= FLOWS_PER_PASS / 8)
    }

    /// Drops the passes of a flow that are obsolete, or all if packets do not jump.
    pub(super) fn drop_passes(&self, flow: &Entry<Flow>, mode: Mode, rcu: &ReadSide<'_>) {
        self.flows.drop_passes(flow, rcu, |dir, pass| {
            let ends = flow.peek(rcu, |conn| conn.ends(dir));
            !mode.learns_jumps() || ends.is_none_or(|ends| pass.is_obsolete(self, || ends, rcu))
        });
    }

    /// Ends the flow of a dead connection that a packet met, and looks for others. Any context, but
    /// not under a spinlock.
    #[cold]
    pub(crate) fn met_gone(this: ArcBorrow<'_, Self>, flow: &Entry<Flow>, rcu: &ReadSide<'_>) {
        if this.end_flow(flow, Event::FlowGone, rcu) {
            Self::sweep_soon(this);
        }
    }

    /// Ends the flows of dead connections among a few. If conntrack is nearly full, also ends those
    /// of connections that conntrack may drop early: it would count a drop that makes no room while
    /// the flow holds the connection. Called for each new connection. Any context, but not under a
    /// spinlock.
    pub(crate) fn make_room(this: ArcBorrow<'_, Self>, rcu: &ReadSide<'_>) {
        if !this.flows.has_any() {
            return;
        }
        let scarce = this.net.is_conntrack_nearly_full();
        let most = if scarce {
            FLOWS_PER_NEW_WHEN_SCARCE
        } else {
            FLOWS_PER_NEW
        };
        let from = this.collected.looked.load(Relaxed);
        let mut gone = false;
        let next = this.flows.for_few(from, most, rcu, |flow| {
            let read = |conn: &ConnPeek<'_>| (conn.is_gone(), conn.is_assured());
            match flow.peek(rcu, read) {
                Some((true, _)) => gone |= this.end_flow(flow, Event::FlowGone, rcu),
                Some((false, false)) if scarce => {
                    this.end_flow(flow, Event::FlowScarce, rcu);
                }
                _ => (),
            }
        });
        this.collected.looked.store(next, Relaxed);
        if gone {
            Self::sweep_soon(this);
        }
    }

    /// Ends the flows of dead connections. Looks at `least` flows, and at more while there are
    /// many. Process context; lets other tasks run.
    pub(crate) fn sweep(&self, least: usize) {
        if self.refs.flows.load(Relaxed) == 0 {
            return;
        }
        let mut from = self.collected.swept.load(Relaxed);
        // The flows before that are looked at last, if at all.
        let mut last_round = from == 0;
        let mut looked: usize = 0;
        loop {
            let mut gone: usize = 0;
            let next = self.flows.for_some(from, FLOWS_PER_PASS, |flow, rcu| {
                if flow.peek(rcu, |conn| conn.is_gone()) == Some(true) {
                    gone = gone.saturating_add(self.end_flow(flow, Event::FlowGone, rcu).into());
                }
            });
            looked = looked.saturating_add(FLOWS_PER_PASS);
            from = next.unwrap_or(0);
            let enough = looked >= least && gone < FLOWS_PER_PASS / 8;
            if enough || (next.is_none() && last_round) {
                break;
            }
            last_round |= next.is_none();
        }
        self.collected.swept.store(from, Relaxed);
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
