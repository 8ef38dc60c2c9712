// SPDX-License-Identifier: GPL-2.0

//! /proc/net/nf_zoneroute: `zones`, `routes` and `stats`.

use kernel::{
    fmt,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        atomic::Relaxed,
        rcu::read_lock,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    flow::zone::Tally,
    kapi::{
        fs::proc::{
            Directory,
            Rows,
            Text,
            Writable, //
        },
        net::{
            family::Family,
            netns::{Init, Net, NetHandle}, //
        },
        nf::{conn::Dir, peek::ConnPeek, ruleset::Unskippable},
        sync::{rcu::ReadSide, time}, //
    },
    netns::{
        command::{commands, Action, Bad},
        hooks::Hooks, //
    },
    route::{
        miss::Miss,
        pass::{Fate, Pass},
        slot::{Changes, Slot},
        stay::Stay, //
    },
    state::{
        jump::Epoch,
        stats::{Counter, Event},
        NetState, //
    },
    track::outcome::LookupMiss, //
};

/// Creates the directory and its files.
pub(super) fn files(init: &Init<'_>, hooks: Arc<Hooks>) -> Result<Directory<Hooks>> {
    let dir = Directory::new(init, c"nf_zoneroute", hooks)?;
    dir.writable_rows::<Zones>(c"zones")?;
    dir.rows::<Routes>(c"routes")?;
    dir.text::<Stats>(c"stats")?;
    Ok(dir)
}

/// `zones`: one line for each zone that has flows or a limit.
struct Zones;

impl Rows for Zones {
    type Data = Hooks;

    fn begin(hooks: &Hooks) {
        if let Some(state) = hooks.state() {
            state.flows.zones().count_connections();
        }
    }

    fn find(hooks: &Hooks, from: u32, rcu: &ReadSide<'_>) -> Option<u32> {
        hooks.state()?.flows.zones().next(from, rcu)
    }

    fn show(hooks: &Hooks, number: u32, to: &SeqFile, rcu: &ReadSide<'_>) {
        let zones = hooks.state().map(|state| state.flows.zones());
        let Some(zone) = zones.and_then(|zones| zones.info(u16::try_from(number).ok()?, rcu))
        else {
            return;
        };
        seq_print!(
            to,
            "zone={} flows={} max={} buckets={} connections={}",
            number,
            zone.flows(),
            OrWord(zone.max(), "none"),
            zone.buckets(),
            zone.connections(),
        );
        for &tally in Tally::ALL {
            seq_print!(to, " {}={}", tally.name(), zone.tally(tally));
        }
        seq_print!(to, "\n");
    }
}

impl Writable for Zones {
    /// A line for each zone fits.
    const LONGEST: usize = 2 << 20;

    fn net(hooks: &Hooks) -> &Net {
        hooks.net()
    }

    /// Carries out the commands of all lines, or of none. If a flush is cut short, carries out the
    /// others, and returns its error.
    fn write(hooks: ArcBorrow<'_, Hooks>, text: &[u8]) -> Result {
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
        if hooks.state().is_none() && limits.clone().all(|(_, max)| max.is_none()) {
            // There is nothing to remove or to flush.
            return Ok(());
        }
        let net = hooks.get_or_make_state()?;
        let zones = net.flows.zones();
        zones.set_max(limits, || hooks.enforce_limits())?;
        let mut result = Ok(());
        for command in commands() {
            if command.action == Action::Flush {
                result = result.and(net.flows.flush(command.zone));
            }
        }
        result
    }
}

/// A value, or a word if there is none, for printing.
struct OrWord<T>(Option<T>, &'static str);

impl<T: fmt::Display> fmt::Display for OrWord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}

/// `routes`: one line for each direction of each flow.
struct Routes;

impl Rows for Routes {
    type Data = Hooks;

    fn find(hooks: &Hooks, from: u32, rcu: &ReadSide<'_>) -> Option<u32> {
        Some(hooks.state()?.flows.next(from, rcu)?.0)
    }

    fn show(hooks: &Hooks, number: u32, to: &SeqFile, rcu: &ReadSide<'_>) {
        let Some(net) = hooks.state() else {
            return;
        };
        let Some((_, flow)) = net.flows.next(number, rcu).filter(|&(at, _)| at == number) else {
            return;
        };
        let read = |conn: &ConnPeek<'_>| {
            (
                Dir::ALL.map(|dir| (dir, conn.tuple(dir), conn.ends(dir))),
                conn.family(),
            )
        };
        // A flow that ends meanwhile is not shown.
        let Some((tuples, family)) = flow.peek(rcu, read) else {
            return;
        };
        let fate = |dir, ends| {
            let epoch = net.jumps.epoch(family, rcu);
            let epoch = epoch.filter(|epoch| epoch.ruleset.is_current(&net.net, rcu));
            let pass = net.flows.pass(flow, dir, rcu);
            let is_good = |&(pass, epoch): &(&Pass, &Epoch)| {
                pass.check(epoch.number, &**net, || ends).is_ok() && pass.dst().is_valid(rcu)
            };
            let (pass, _) = pass.zip(epoch).filter(is_good)?;
            pass.terms().fate().ok()
        };
        for (dir, tuple, ends) in tuples {
            let direction = flow.direction(dir);
            let show = |row: Row<'_>, hits: Option<i64>| {
                seq_print!(
                    to,
                    "{} {} zone={} dir={} src={} dst={} {} {} hits={} last={} path={} stay={}\n",
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
                        net: net.net,
                        family,
                        row: &row,
                        rcu
                    },
                    // The second route has no count of its own.
                    OrWord(hits, "-"),
                    row.stale.unwrap_or(flow.last(dir)).name(),
                    match (fate(dir, ends), row.state) {
                        (Some(Fate::Leaves), _) => "jump",
                        (Some(Fate::Dropped), _) => "drop",
                        (None, "live") => "serve",
                        (None, _) => "none",
                    },
                    flow.last_stay(dir).name(),
                );
            };
            let live = |slot| {
                let stale = Slot::check_now(slot, &**net, || ends, rcu).err();
                let state = if stale.is_none() { "live" } else { "stale" };
                Row::new(slot, state, stale, &**net)
            };
            let hits = Some(direction.hits());
            let mut routes = direction.live(rcu);
            match (routes.next(), direction.staged(rcu)) {
                (Some(slot), _) => show(live(slot), hits),
                (None, Some(slot)) => show(Row::new(slot, "staged", None, &**net), hits),
                (None, None) => show(Row::NONE, hits),
            }
            if let Some(slot) = routes.next() {
                show(live(slot), None);
            }
        }
    }
}

/// A route of a direction, or none.
struct Row<'a> {
    /// With its age in jiffies.
    slot: Option<(&'a Slot, u32)>,
    state: &'static str,
    /// Why the route is stale, if it is.
    stale: Option<Miss>,
}

impl<'a> Row<'a> {
    const NONE: Self = Self {
        slot: None,
        state: "none",
        stale: None,
    };

    fn new(
        slot: &'a Slot,
        state: &'static str,
        stale: Option<Miss>,
        changes: &impl Changes,
    ) -> Self {
        let stamp = slot.stamp();
        // Read after the stamp, so that the stamp is not younger.
        let facts = changes.facts();
        Self {
            slot: Some((slot, stamp.age(&facts))),
            state,
            stale,
        }
    }
}

/// A row, for printing.
struct Shown<'a> {
    net: NetHandle,
    family: Family,
    row: &'a Row<'a>,
    rcu: &'a ReadSide<'a>,
}

impl Shown<'_> {
    /// Prints a device's name, or its index if the device is gone.
    fn device(&self, f: &mut fmt::Formatter<'_>, ifindex: u32) -> fmt::Result {
        match self.net.ifname(ifindex, self.rcu) {
            Some(name) => f.write_fmt(fmt!("{name}")),
            None => f.write_fmt(fmt!("#{ifindex}")),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((slot, age)) = self.row.slot else {
            return f.write_str("iif=- mark=- dscp=- oif=- via=- state=none age_ms=-");
        };
        let key = slot.key();
        f.write_str("iif=")?;
        self.device(f, key.iif)?;
        f.write_fmt(fmt!(" mark={:#x} dscp=", key.mark))?;
        if slot.dst().is_for_any_dscp() {
            f.write_str("any")?;
        } else {
            f.write_fmt(fmt!("{}", key.dscp()))?;
        }
        if self.family == Family::Ipv6 {
            f.write_fmt(fmt!(" flowlabel={:#x}", key.flowlabel()))?;
        }
        f.write_str(" oif=")?;
        self.device(f, slot.oif())?;
        match slot.dst().gateway() {
            Some(gateway) => f.write_fmt(fmt!(" via={gateway}"))?,
            None => f.write_str(" via=onlink")?,
        }
        let (state, age_ms) = (self.row.state, time::to_ms(age));
        f.write_fmt(fmt!(" state={state} age_ms={age_ms}"))
    }
}

/// `stats`: one line for each counter.
struct Stats;

impl Text for Stats {
    type Data = Hooks;

    fn show(hooks: &Hooks, to: &SeqFile) {
        // A netns without a state has counted nothing.
        let state = hooks.state();
        let sum = |counter| state.map_or(0, |state| state.stats.sum(counter));
        // Packets that jumped were found, and took their cached route.
        let at_ingress = sum(Counter::JumpedAtIngress);
        let jumped = sum(Counter::Jumped).saturating_add(at_ingress);
        let hits = |counter| sum(counter).saturating_add(jumped);
        seq_print!(to, "lookup_hit {}\n", hits(Counter::LookupHit));
        for &miss in LookupMiss::ALL {
            let count = sum(Counter::LookupMiss(miss));
            seq_print!(to, "lookup_miss_{} {count}\n", miss.name());
        }
        seq_print!(to, "hit {}\n", hits(Counter::Hit));
        for &miss in Miss::ALL {
            seq_print!(to, "miss_{} {}\n", miss.name(), sum(Counter::Miss(miss)));
        }
        seq_print!(to, "jumped {jumped}\njumped_at_ingress {at_ingress}\n");
        for &stay in Stay::ALL {
            seq_print!(to, "stay_{} {}\n", stay.name(), sum(Counter::Stay(stay)));
        }
        for &event in Event::ALL {
            seq_print!(to, "{} {}\n", event.name(), sum(Counter::Event(event)));
        }
        let flows = state.map_or(0, |state| state.refs.flows.load(Relaxed));
        let slots = state.map_or(0, |state| state.refs.slots.count());
        if let Some(state) = state {
            show_rules(state, to);
        }
        seq_print!(to, "ct_references {flows}\n");
        seq_print!(to, "dst_references {slots}\n");
    }
}

/// Prints whether packets may skip the recorded firewall of each family, or why not.
fn show_rules(state: &NetState, to: &SeqFile) {
    let guard = read_lock();
    let rcu = ReadSide::of(&guard);
    for family in Family::ALL {
        let Some(epoch) = state.jumps.epoch(family, &rcu) else {
            continue;
        };
        let name = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let why = match epoch.ruleset.check() {
            Ok(()) => "skippable",
            Err(Unskippable::Many) => "many",
            Err(Unskippable::Behind) => "behind",
            Err(Unskippable::Unknown) => {
                seq_print!(to, "rules_{name} unknown:{}\n", epoch.ruleset.unknown());
                continue;
            }
        };
        seq_print!(to, "rules_{name} {why}\n");
    }
}
