// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of handles, zones and flow tables.

mod track;

use core::cell::Cell;

use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Relaxed,
        rcu::{rcu_barrier, read_lock},
        Arc, //
    },
    time::{delay::fsleep, Delta}, //
};

use super::{
    handle::{Handle, Salt},
    table::{FlowTable, NoFlow, Supply},
    zone::{Stock, Tally},
    Flow,
    Held, //
};
use crate::{
    kapi::{
        entry::registry::Entry,
        mem::slab::Cache,
        nf::conn::{Conn, Dir},
        sync::rcu::ReadSide,
        tests::{
            conn,
            conn_refs,
            conn_without_extension,
            expire,
            handle_of,
            scribble,
            ZoneDirs, //
        },
    },
    route::miss::Reason, //
};

const SALT: Salt = Salt::new(0x1234_5678);

/// The flow table of a netns, without the rest of the module. The cache is dropped last.
struct Fixture {
    flows: Pin<KBox<FlowTable>>,
    held: Arc<Held>,
    stock: Pin<KBox<Stock>>,
    cache: Cache<Entry<Flow>>,
}

impl Fixture {
    fn new() -> Result<Self> {
        let stock = KBox::try_pin_init(Stock::new(), GFP_KERNEL)?;
        stock.refill()?;
        Ok(Self {
            flows: KBox::try_pin_init(FlowTable::new(SALT), GFP_KERNEL)?,
            held: Arc::new(Held::new(), GFP_KERNEL)?,
            stock,
            cache: Cache::new(c"nf_zoneroute_kunit")?,
        })
    }

    /// Creates a connection's flow and returns its number. `handle` is as read from the packet.
    fn make(&self, ct: &Conn, handle: Option<u64>) -> Result<u32, NoFlow> {
        self.make_and_end(ct, handle).0
    }

    /// As `make()`; also returns how many flows were ended for it.
    fn make_and_end(&self, ct: &Conn, handle: Option<u64>) -> (Result<u32, NoFlow>, usize) {
        let guard = read_lock();
        let flow = Flow::new(self.held.clone(), 0);
        let supply = Supply {
            flows: &self.cache,
            zones: &self.stock,
        };
        let ended = Cell::new(0);
        let made = self.flows.make(
            ct,
            handle,
            flow,
            supply,
            || ended.set(ended.get() + 1),
            &ReadSide::of(&guard),
        );
        (made.map(|flow| flow.index()), ended.get())
    }

    /// Returns the number of the flow that a lookup finds.
    fn find(&self, ct: &Conn, handle: Option<u64>, dir: Dir) -> Option<u32> {
        let guard = read_lock();
        let found = self.flows.find(ct, handle, dir, &ReadSide::of(&guard));
        found.map(|flow| flow.index())
    }

    fn kill(&self, index: u32) -> bool {
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        self.flows
            .next(index, &rcu)
            .is_some_and(|(_, flow)| self.flows.kill(flow, &rcu))
    }

    /// Returns the number of flows in a zone, and of flows created there.
    fn zone(&self, id: u16) -> Option<(i64, i64)> {
        let guard = read_lock();
        let zone = self.flows.zones().get(id, &ReadSide::of(&guard));
        // CAST: The tests create few flows, so the tally fits.
        zone.map(|zone| (zone.flows(), zone.tally(Tally::New) as i64))
    }
}

#[kunit_tests(nfzr_conntrack_handle)]
mod handle_cases {
    use super::*;

    #[test]
    fn a_handle_gives_its_number_back() {
        for index in [1, 2, 77, 0x7fff_ffff] {
            assert!(SALT.decode(SALT.encode(index)) == Handle::Index(index));
        }
    }

    #[test]
    fn a_handle_of_an_earlier_load_is_none() {
        let old = Salt::new(0x7abc_def0);
        assert!(SALT.decode(old.encode(5)) == Handle::Empty);
        assert!(SALT.decode(0) == Handle::Empty);
    }

    #[test]
    fn an_interface_index_is_foreign() {
        let handle = SALT.encode(5);
        assert!(SALT.decode(3) == Handle::Foreign);
        assert!(SALT.decode(handle & !0xffff_ffff | 3) == Handle::Foreign);
        assert!(SALT.decode(handle & 0xffff_ffff | 3 << 32) == Handle::Foreign);
    }
}

#[kunit_tests(nfzr_conntrack_flow)]
mod flow_cases {
    use super::*;

    #[test]
    fn a_direction_tries_once_a_jiffy() -> Result {
        let flow = Flow::new(Arc::new(Held::new(), GFP_KERNEL)?, 100);
        let original = [100, 100, 101, 101].map(|now| flow.may_try(Dir::Original, now));
        let reply = [101, 101].map(|now| flow.may_try(Dir::Reply, now));
        assert_eq!(original, [true, false, true, false]);
        assert_eq!(reply, [true, false]);
        Ok(())
    }

    #[test]
    fn trying_survives_the_wrap_of_jiffies() -> Result {
        let flow = Flow::new(Arc::new(Held::new(), GFP_KERNEL)?, u32::MAX);
        let tries = [u32::MAX, u32::MAX, 0, 0, 1].map(|now| flow.may_try(Dir::Original, now));
        assert_eq!(tries, [true, false, true, false, true]);
        Ok(())
    }

    #[test]
    fn each_direction_remembers_its_own_reason() -> Result {
        let flow = Flow::new(Arc::new(Held::new(), GFP_KERNEL)?, 0);
        let before = Dir::ALL.map(|dir| flow.last(dir));
        flow.note(Dir::Reply, Reason::Mark);
        let after = Dir::ALL.map(|dir| flow.last(dir));
        assert!(before == [Reason::Empty, Reason::Empty]);
        assert!(after == [Reason::Empty, Reason::Mark]);
        Ok(())
    }

    #[test]
    fn a_flow_is_counted_while_it_is_there() -> Result {
        let held = Arc::new(Held::new(), GFP_KERNEL)?;
        let flow = Flow::new(held.clone(), 0);
        let during = held.flows.load(Relaxed);
        drop(flow);
        assert_eq!((during, held.flows.load(Relaxed)), (1, 0));
        Ok(())
    }
}

/// Creates `count` connections, each with a flow.
fn many(all: &Fixture, count: u32) -> Result<KVec<ARef<Conn>>> {
    let mut cts = KVec::new();
    for number in 0..count {
        let ct = conn(number, 0, ZoneDirs::Both)?;
        // rhashtable may be growing for a moment.
        let mut tries = 0;
        while all.make(&ct, Some(0)).is_err() && tries < 1000 {
            fsleep(Delta::from_millis(1));
            tries += 1;
        }
        cts.push(ct, GFP_KERNEL)?;
    }
    Ok(cts)
}

#[kunit_tests(nfzr_conntrack_table)]
mod table_cases {
    use super::*;

    #[test]
    fn a_flow_is_found_by_its_handle() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 0, ZoneDirs::Both)?);
        let made = all.make(&ct, Some(handle_of(&ct))).ok();
        let handle = handle_of(&ct);
        let found = Dir::ALL.map(|dir| all.find(&ct, Some(handle), dir));
        assert!(made.is_some());
        assert_eq!(Some(handle), made.map(|index| SALT.encode(index)));
        assert_eq!(found, [made, made]);
        Ok(())
    }

    #[test]
    fn a_handle_is_only_its_own_connections() -> Result {
        let (all, ct, other) = (
            Fixture::new()?,
            conn(1, 0, ZoneDirs::Both)?,
            conn(2, 0, ZoneDirs::Both)?,
        );
        all.make(&ct, Some(0)).map_err(|_| EINVAL)?;
        let stolen = all.find(&other, Some(handle_of(&ct)), Dir::Original);
        assert_eq!(stolen, None);
        Ok(())
    }

    #[test]
    fn a_handle_of_an_ended_flow_finds_nothing() -> Result {
        let (all, ct, other) = (
            Fixture::new()?,
            conn(1, 0, ZoneDirs::Both)?,
            conn(2, 0, ZoneDirs::Both)?,
        );
        let index = all.make(&ct, Some(0)).map_err(|_| EINVAL)?;
        let old = handle_of(&ct);
        let killed = all.kill(index);
        let ended = all.find(&ct, Some(old), Dir::Original);
        // Another connection gets the same number, after all others of its bitmap.
        let mut next = all.make(&other, Some(0)).map_err(|_| EINVAL)?;
        for _ in 0..1100 {
            if next == index {
                break;
            }
            all.kill(next);
            next = all.make(&other, Some(0)).map_err(|_| EINVAL)?;
        }
        let found = [
            all.find(&ct, Some(old), Dir::Original),
            all.find(&other, Some(handle_of(&other)), Dir::Original),
        ];
        assert!(killed);
        assert_eq!(ended, None);
        assert_eq!((next, found), (index, [None, Some(next)]));
        Ok(())
    }

    #[test]
    fn without_a_handle_a_flow_is_found_by_its_tuple() -> Result {
        let (all, ct) = (Fixture::new()?, conn_without_extension(1)?);
        let made = all.make(&ct, None).ok();
        let found = Dir::ALL.map(|dir| all.find(&ct, None, dir));
        let other = all.find(&*conn_without_extension(2)?, None, Dir::Original);
        assert!(made.is_some());
        assert_eq!(found, [made, made]);
        assert_eq!(other, None);
        Ok(())
    }

    #[test]
    fn what_somebody_else_wrote_stays() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 0, ZoneDirs::Both)?);
        scribble(&ct, 3);
        let made = all.make(&ct, Some(3)).ok();
        let found = Dir::ALL.map(|dir| all.find(&ct, Some(3), dir));
        assert!(made.is_some());
        assert_eq!(handle_of(&ct), 3);
        assert_eq!(found, [made, made]);
        Ok(())
    }

    #[test]
    fn a_connection_gets_one_flow() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 0, ZoneDirs::Both)?);
        let first = all.make(&ct, Some(0)).is_ok();
        let second = all.make(&ct, Some(0)).err();
        rcu_barrier();
        assert!(first);
        assert!(second == Some(NoFlow::Busy));
        assert_eq!(all.held.flows.load(Relaxed), 1);
        assert_eq!(conn_refs(&ct), 2);
        assert_eq!(all.zone(0), Some((1, 1)));
        Ok(())
    }

    #[test]
    fn a_flow_takes_the_place_of_one_whose_connection_is_gone() -> Result {
        let all = Fixture::new()?;
        let (old, other, new) = (
            conn(1, 5, ZoneDirs::Both)?,
            conn(1, 6, ZoneDirs::Both)?,
            conn(1, 5, ZoneDirs::Both)?,
        );
        for ct in [&old, &other] {
            all.make(ct, None).map_err(|_| EINVAL)?;
        }
        let twin = conn(1, 5, ZoneDirs::Both)?;
        let (_, alive) = all.make_and_end(&twin, None);
        expire(&old);
        let (made, gone) = all.make_and_end(&new, None);
        rcu_barrier();
        assert_eq!(alive, 0);
        assert!(made.is_ok());
        assert_eq!(gone, 1);
        assert_eq!((conn_refs(&old), conn_refs(&other)), (1, 2));
        assert_eq!((conn_refs(&new), conn_refs(&twin)), (2, 2));
        assert_eq!(all.zone(5), Some((2, 3)));
        Ok(())
    }

    #[test]
    fn a_flow_stands_in_the_zone_of_each_direction() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 5, ZoneDirs::Reply)?);
        let made = all.make(&ct, None).map_err(|_| EINVAL)?;
        let found = Dir::ALL.map(|dir| all.find(&ct, None, dir));
        let during = (all.zone(0), all.zone(5));
        all.kill(made);
        let after = (all.zone(0), all.zone(5));
        assert_eq!(found, [Some(made), Some(made)]);
        assert_eq!(during, (Some((1, 1)), Some((1, 1))));
        assert_eq!(after, (Some((0, 1)), Some((0, 1))));
        Ok(())
    }

    #[test]
    fn a_flow_with_both_directions_in_a_zone_counts_once() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 5, ZoneDirs::Both)?);
        let made = all.make(&ct, None).map_err(|_| EINVAL)?;
        let during = (all.zone(0), all.zone(5));
        all.kill(made);
        assert_eq!(during, (None, Some((1, 1))));
        assert_eq!(all.zone(5), Some((0, 1)));
        Ok(())
    }

    #[test]
    fn flows_are_visited_some_at_a_time() -> Result {
        let all = Fixture::new()?;
        let _cts = many(&all, 300)?;
        let visit = |from| {
            let mut visited = 0;
            let next = all.flows.for_some(from, 1, |_, _| visited += 1);
            (next, visited)
        };
        let (first, second) = (visit(0), visit(257));
        assert_eq!(first, (Some(257), 256));
        assert_eq!(second, (None, 44));
        Ok(())
    }

    #[test]
    fn every_flow_is_visited_once() -> Result {
        let all = Fixture::new()?;
        let cts = many(&all, 600)?;
        // Numbers ascend, so no flow is visited twice.
        let (mut last, mut ascending) = (0, true);
        let visited = all.flows.for_each(|flow, _| {
            ascending &= flow.index() > last;
            last = flow.index();
        });
        drop(all);
        let refs: i32 = cts.iter().map(|ct| conn_refs(ct)).sum();
        assert_eq!(visited, 600);
        assert!(ascending);
        assert_eq!(refs, 600);
        Ok(())
    }
}

#[kunit_tests(nfzr_conntrack_zone)]
mod zone_cases {
    use super::*;

    #[test]
    fn zones_come_from_the_stock_until_it_is_used_up() -> Result {
        let all = Fixture::new()?;
        let before = all.stock.was_asked();
        let mut made = 0;
        let mut refused = false;
        for id in 0..64 {
            let ct = conn(id.into(), id, ZoneDirs::Both)?;
            match all.make(&ct, None) {
                Ok(_) => made += 1,
                Err(err) => refused = err == NoFlow::Zone,
            }
        }
        let asked = all.stock.was_asked();
        let asked_again = all.stock.was_asked();
        all.stock.refill()?;
        let ct = conn(100, 100, ZoneDirs::Both)?;
        let after = all.make(&ct, None).is_ok();
        assert!(!before);
        assert_eq!(made, 32);
        assert!(refused);
        assert!(asked);
        assert!(!asked_again);
        assert!(after);
        Ok(())
    }

    #[test]
    fn a_zone_goes_when_it_was_idle_for_two_looks() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 5, ZoneDirs::Both)?);
        let index = all.make(&ct, None).map_err(|_| EINVAL)?;
        let busy = [all.flows.zones().collect(), all.flows.zones().collect()];
        all.kill(index);
        rcu_barrier();
        let idle = [all.flows.zones().collect(), all.flows.zones().collect()];
        assert_eq!(busy, [1, 1]);
        assert_eq!(idle, [1, 0]);
        assert_eq!(all.zone(5), None);
        Ok(())
    }

    #[test]
    fn a_zone_that_got_a_flow_between_two_looks_stays() -> Result {
        let all = Fixture::new()?;
        let (first, second) = (conn(1, 5, ZoneDirs::Both)?, conn(2, 5, ZoneDirs::Both)?);
        let index = all.make(&first, None).map_err(|_| EINVAL)?;
        all.kill(index);
        rcu_barrier();
        let look = all.flows.zones().collect();
        let index = all.make(&second, None).map_err(|_| EINVAL)?;
        all.kill(index);
        rcu_barrier();
        // The zone was used in between: the first look does not count.
        let looks = [all.flows.zones().collect(), all.flows.zones().collect()];
        assert_eq!(look, 1);
        assert_eq!(looks, [1, 0]);
        Ok(())
    }

    #[test]
    fn a_zone_with_a_limit_stays_until_it_has_none() -> Result {
        let all = Fixture::new()?;
        let zones = all.flows.zones();
        let max = |id| {
            let guard = read_lock();
            let rcu = ReadSide::of(&guard);
            zones
                .get(id, &rcu)
                .map(|_| zones.limit(id, &rcu).and_then(|limit| limit.max()))
        };
        zones.set_max([(5, Some(10)), (6, None)].into_iter())?;
        let (limited, any) = ([max(5), max(6)], zones.is_any_limited());
        let looks = [zones.collect(), zones.collect(), zones.collect()];
        let stayed = max(5);
        zones.set_max([(5, Some(0))].into_iter())?;
        let changed = max(5);
        zones.set_max([(5, None)].into_iter())?;
        let (unlimited, none) = (max(5), !zones.is_any_limited());
        let idle = [zones.collect(), zones.collect()];
        assert_eq!(limited, [Some(Some(10)), None]);
        assert!(any);
        assert_eq!(looks, [0, 0, 0]);
        assert_eq!(stayed, Some(Some(10)));
        assert_eq!(changed, Some(Some(0)));
        assert_eq!(unlimited, Some(None));
        assert!(none);
        assert_eq!(idle, [1, 0]);
        assert_eq!(max(5), None);
        Ok(())
    }
}
