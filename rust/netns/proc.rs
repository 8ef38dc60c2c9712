// SPDX-License-Identifier: GPL-2.0

//! /proc/net/nf_zoneroute: `zones`, `routes` and `stats`.

use kernel::{
    fmt,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        atomic::Relaxed,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    flow::{
        zone::{self, Tally, Zone},
        Flow, //
    },
    kapi::{
        entry::registry::Entry,
        fs::proc,
        net::netns::Init,
        nf::{
            conn::Dir,
            hook::Family, //
        },
        sync::{
            rcu::ReadSide,
            time, //
        },
    },
    netns::{
        command::{commands, Action, Bad},
        NetState, //
    },
    route::{
        direction::Direction,
        miss::Reason,
        slot::Slot, //
    },
    state::stats::{Counter, Event},
    track::outcome::Outcome, //
};

/// Creates the directory and its files.
pub(crate) fn files(init: &Init<'_>, state: Arc<NetState>) -> Result<proc::Dir<NetState>> {
    let dir = proc::Dir::new(init, c"nf_zoneroute", state)?;
    dir.writable_rows::<Zones>(c"zones")?;
    dir.rows::<Routes>(c"routes")?;
    dir.text::<Stats>(c"stats")?;
    Ok(dir)
}

/// `zones`: one line for each zone in use.
struct Zones;

impl proc::Rows for Zones {
    type Data = NetState;
    type Row = Zone;

    fn find<'r>(net: &'r NetState, from: u32, rcu: &ReadSide<'r>) -> Option<(u32, &'r Zone)> {
        net.flows.zones().next(from, rcu)
    }

    fn show(net: &NetState, zone: &Zone, to: &SeqFile, rcu: &ReadSide<'_>) {
        let limit = net.flows.zones().limit(zone.id(), rcu);
        seq_print!(
            to,
            "zone={} flows={} max={} buckets={} connections={}",
            zone.id(),
            zone.flows(),
            Max(limit.and_then(zone::Limit::max)),
            zone.table.buckets(),
            limit.map_or(0, zone::Limit::connections),
        );
        for &tally in Tally::ALL {
            seq_print!(to, " {}={}", tally.name(), zone.tally(tally));
        }
        seq_print!(to, "\n");
    }
}

impl proc::Writable for Zones {
    /// Carries out the commands of all lines, or of none.
    fn write(net: ArcBorrow<'_, NetState>, text: &[u8]) -> Result {
        for command in commands(text) {
            command.map_err(|bad| match bad {
                Bad::Syntax => EINVAL,
                Bad::Range => ERANGE,
            })?;
        }
        let commands = || commands(text).filter_map(core::result::Result::ok);
        let limits = commands().filter_map(|command| match command.action {
            Action::Max(max) => Some((command.zone, max)),
            Action::Flush => None,
        });
        net.flows.zones().set_max(limits)?;
        for command in commands() {
            if command.action == Action::Flush {
                net.flows.flush(command.zone);
            }
        }
        // The collector frees a zone that nothing but its former limit kept.
        NetState::arm(net);
        Ok(())
    }
}

/// The limit of a zone, for printing.
struct Max(Option<u32>);

impl fmt::Display for Max {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(max) => f.write_fmt(fmt!("{max}")),
            None => f.write_str("none"),
        }
    }
}

/// `routes`: one line for each direction of each flow.
struct Routes;

impl proc::Rows for Routes {
    type Data = NetState;
    type Row = Entry<Flow>;

    fn find<'r>(
        net: &'r NetState,
        from: u32,
        rcu: &ReadSide<'r>,
    ) -> Option<(u32, &'r Entry<Flow>)> {
        net.flows.next(from, rcu)
    }

    fn show(net: &NetState, flow: &Entry<Flow>, to: &SeqFile, rcu: &ReadSide<'_>) {
        for dir in Dir::ALL {
            let tuple = flow.conn().tuple(dir);
            let direction = flow.direction(dir);
            let stale = direction
                .live(rcu)
                .and_then(|slot| slot.stale(net.now(), rcu));
            seq_print!(
                to,
                "{} {} zone={} dir={} src={} dst={} {} {} hits={} last={}\n",
                tuple.l3name(),
                tuple.protocol(),
                tuple.zone(),
                match dir {
                    Dir::Original => "orig",
                    Dir::Reply => "reply",
                },
                tuple.src(),
                tuple.dst(),
                tuple.ports(),
                Shown {
                    flow,
                    direction,
                    stale,
                    rcu
                },
                direction.hits(),
                stale.unwrap_or(flow.last(dir)).name(),
            );
        }
    }
}

/// The route of a direction, for printing: the live one, or else the staged one.
struct Shown<'a> {
    flow: &'a Entry<Flow>,
    direction: &'a Direction,
    /// Why the live route is stale, if it is.
    stale: Option<Reason>,
    rcu: &'a ReadSide<'a>,
}

impl Shown<'_> {
    fn slot(&self, f: &mut fmt::Formatter<'_>, slot: &Slot, state: &str) -> fmt::Result {
        let key = slot.key();
        f.write_str("iif=")?;
        self.device(f, key.iif)?;
        f.write_fmt(fmt!(" mark={:#x} dscp={}", key.mark, key.dscp()))?;
        if self.flow.conn().family() == Family::Ipv6 {
            f.write_fmt(fmt!(" flowlabel={:#x}", key.flowlabel()))?;
        }
        f.write_str(" oif=")?;
        self.device(f, slot.oif())?;
        match slot.dst().gateway() {
            Some(gateway) => f.write_fmt(fmt!(" via={gateway}"))?,
            None => f.write_str(" via=onlink")?,
        }
        let age = time::jiffies32().wrapping_sub(slot.born());
        f.write_fmt(fmt!(" state={state} age_ms={}", time::to_ms(age)))
    }

    /// Prints a device's name, or its index if the device is gone.
    fn device(&self, f: &mut fmt::Formatter<'_>, ifindex: u32) -> fmt::Result {
        match self.flow.conn().net().ifname(ifindex, self.rcu) {
            Some(name) => f.write_fmt(fmt!("{name}")),
            None => f.write_fmt(fmt!("#{ifindex}")),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(slot) = self.direction.live(self.rcu) {
            let state = if self.stale.is_none() {
                "live"
            } else {
                "stale"
            };
            self.slot(f, slot, state)
        } else if let Some(slot) = self.direction.staged(self.rcu) {
            self.slot(f, slot, "staged")
        } else {
            f.write_str("iif=- mark=- dscp=- oif=- via=- state=none age_ms=-")
        }
    }
}

/// `stats`: one line for each counter.
struct Stats;

impl proc::Text for Stats {
    type Data = NetState;

    fn show(net: &NetState, to: &SeqFile) {
        for &outcome in Outcome::ALL {
            let count = net.counters.sum(Counter::Lookup(outcome));
            let kind = if outcome == Outcome::Hit { "" } else { "miss_" };
            seq_print!(to, "lookup_{kind}{} {count}\n", outcome.name());
        }
        for &reason in Reason::ALL {
            let count = net.counters.sum(Counter::Packet(reason));
            let kind = if reason == Reason::Hit { "" } else { "miss_" };
            seq_print!(to, "{kind}{} {count}\n", reason.name());
        }
        for &event in Event::ALL {
            let count = net.counters.sum(Counter::Event(event));
            seq_print!(to, "{} {count}\n", event.name());
        }
        seq_print!(to, "ct_references {}\n", net.held.flows.load(Relaxed));
        seq_print!(to, "dst_references {}\n", net.held.slots.load(Relaxed));
    }
}
