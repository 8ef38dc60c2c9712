// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of handles, flows and flow tables.

mod random;
mod renewal;
mod track;
mod zones;

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
    handle::{Handle, Salt, MAX_INDEX},
    table::{Allocators, FlowTable, NoFlow},
    zone::{stock::Stock, Tally},
    Flow, //
};
use crate::{
    kapi::{
        entry::Entry,
        mem::slab::Cache,
        nf::conn::{Conn, Dir},
        sync::rcu::ReadSide,
        tests::{
            conn,
            conn_refs,
            conn_without_extension,
            ct_ref,
            expire,
            handle_of,
            init_net_handle,
            scribble,
            ZoneDirs, //
        },
    },
    refs::RefCounts,
    route::miss::Miss, //
};

const SALT: Salt = Salt::new(0x1234_5678);

/// The flow table of a netns, without the rest of the module. The cache is dropped last.
struct Fixture {
    flows: Pin<KBox<FlowTable>>,
    refs: Arc<RefCounts>,
    stock: Pin<KBox<Stock>>,
    cache: Cache<Entry<Flow>>,
}

impl Fixture {
    fn new() -> Result<Self> {
        let stock = KBox::try_pin_init(Stock::new(), GFP_KERNEL)?;
        stock.refill()?;
        let refs = Arc::new(RefCounts::new()?, GFP_KERNEL)?;
        let flows = FlowTable::new(init_net_handle(), SALT, refs.clone());
        Ok(Self {
            flows: KBox::try_pin_init(flows, GFP_KERNEL)?,
            refs,
            stock,
            cache: Cache::new(c"nf_zoneroute_kunit")?,
        })
    }

    /// Creates a connection's flow and returns its number. `handle` is as read from the packet.
    fn make(&self, ct: &Conn, handle: Option<u64>) -> Result<u32, NoFlow> {
        self.make_and_end(ct, handle).0
    }

    /// As `make()`; also returns how many flows were ended for it.
    fn make_and_end(&self, ct: &Conn, handle: Option<u64>) -> (Result<u32, NoFlow>, u32) {
        let guard = read_lock();
        let flow = Flow::new(0);
        let from = Allocators {
            flows: &self.cache,
            zones: &self.stock,
        };
        let ct = ct_ref(ct, handle, Dir::Original);
        let made = self.flows.make(&ct, flow, &from, &ReadSide::of(&guard));
        (made.flow.map(|flow| flow.index()), made.ended)
    }

    /// Returns the number of the flow of a connection.
    fn find(&self, ct: &Conn, handle: Option<u64>, dir: Dir) -> Option<u32> {
        let guard = read_lock();
        let ct = ct_ref(ct, handle, dir);
        let found = self.flows.of_conn(&ct, &ReadSide::of(&guard));
        found.map(|flow| flow.index()).ok()
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
        for index in [1, 2, 77, MAX_INDEX] {
            assert!(SALT.decode(SALT.index(index)) == Handle::Index(index));
        }
    }

    #[test]
    fn a_handle_gives_its_count_back() {
        for count in [0, 1, 255] {
            assert!(SALT.decode(SALT.count(count)) == Handle::Count(count));
        }
    }

    #[test]
    fn a_handle_of_an_earlier_load_is_none() {
        let old = Salt::new(0x7abc_def0);
        assert!(SALT.decode(old.index(5)) == Handle::Count(0));
        assert!(SALT.decode(0) == Handle::Count(0));
    }

    #[test]
    fn an_interface_index_is_foreign() {
        let handle = SALT.index(5);
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
        let flow = Flow::new(100);
        let original = [100, 100, 101, 101].map(|now| flow.may_try(Dir::Original, now));
        let reply = [101, 101].map(|now| flow.may_try(Dir::Reply, now));
        assert_eq!(original, [true, false, true, false]);
        assert_eq!(reply, [true, false]);
        Ok(())
    }

    #[test]
    fn trying_survives_the_wrap_of_jiffies() -> Result {
        let flow = Flow::new(u32::MAX);
        let tries = [u32::MAX, u32::MAX, 0, 0, 1].map(|now| flow.may_try(Dir::Original, now));
        assert_eq!(tries, [true, false, true, false, true]);
        Ok(())
    }

    #[test]
    fn each_direction_remembers_its_own_reason() -> Result {
        let flow = Flow::new(0);
        let before = Dir::ALL.map(|dir| flow.last(dir));
        flow.note(Dir::Reply, Miss::Mark);
        let after = Dir::ALL.map(|dir| flow.last(dir));
        assert!(before == [Miss::Empty, Miss::Empty]);
        assert!(after == [Miss::Empty, Miss::Mark]);
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
        assert_eq!(Some(handle), made.map(|index| SALT.index(index)));
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
        assert_eq!(all.refs.flows.load(Relaxed), 1);
        assert_eq!(conn_refs(&ct), 2);
        assert_eq!(all.zone(0), Some((1, 1)));
        Ok(())
    }

    #[test]
    fn a_flow_that_ends_gives_its_connection_back_at_once() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 0, ZoneDirs::Both)?);
        let made = all.make(&ct, None).map_err(|_| EINVAL)?;
        let during = (all.refs.flows.load(Relaxed), conn_refs(&ct));
        let guard = read_lock();
        // No grace period ends here.
        all.kill(made);
        let after = (all.refs.flows.load(Relaxed), conn_refs(&ct));
        drop(guard);
        assert_eq!((during, after), ((1, 2), (0, 1)));
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
