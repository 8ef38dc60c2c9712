// SPDX-License-Identifier: GPL-2.0

//! Entries: their references, how they are found, and how they end under concurrent readers.

use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        rcu::{rcu_barrier, read_lock},
        Arc, //
    },
    time::{delay::fsleep, Delta}, //
};

use super::{conn, conn_refs, expire, Drops, Job, Tracked, ZoneDirs};
use crate::kapi::{
    entry::{
        registry::{NewEntry, Registry},
        table::TupleTable,
        Entry, //
    },
    mem::slab::Cache,
    nf::conn::{Conn, Dir},
    sync::rcu::ReadSide, //
};

/// A registry with a table. The cache is dropped last, after `Registry::drop` has waited for RCU.
pub(super) struct Fixture {
    pub(super) registry: Pin<KBox<Registry<Tracked>>>,
    table: TupleTable<Tracked>,
    drops: Arc<Drops>,
    cache: Cache<Entry<Tracked>>,
}

impl Fixture {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            registry: KBox::try_pin_init(Registry::new(), GFP_KERNEL)?,
            table: TupleTable::new()?,
            drops: Drops::new()?,
            cache: Cache::new(c"nf_zoneroute_kunit")?,
        })
    }

    /// Creates the entry of a connection and returns its number. Retries while rhashtable is busy.
    pub(super) fn insert(&self, ct: &Conn, value: u32) -> Result<u32> {
        for _ in 0..100 {
            let guard = read_lock();
            let new = self.entry(ct, value);
            let rcu = ReadSide::of(&guard);
            let made = self.registry.insert(&self.cache, new, |_| (), &rcu);
            let made = made.map(|entry| entry.index());
            drop(guard);
            match made {
                Err(err) if err == EBUSY => fsleep(Delta::from_millis(1)),
                other => return other,
            }
        }
        Err(EBUSY)
    }

    fn entry(&self, ct: &Conn, value: u32) -> NewEntry<'_, Tracked> {
        NewEntry {
            ct: ct.into(),
            tables: [&self.table, &self.table],
            value: Tracked::new(value, &self.drops),
        }
    }

    pub(super) fn kill(&self, index: u32) -> bool {
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        self.registry
            .get(index, &rcu)
            .is_some_and(|entry| self.registry.kill(entry, &rcu))
    }

    /// Returns the value that a lookup by tuple finds.
    fn find(&self, ct: &Conn, dir: Dir) -> Option<u32> {
        let guard = read_lock();
        let found = self.table.find(ct, dir, &ReadSide::of(&guard));
        found.map(|entry| entry.value)
    }
}

pub(super) fn tcp(number: u32) -> Result<ARef<Conn>> {
    conn(number, 0, ZoneDirs::Both)
}

#[kunit_tests(nfzr_kapi_registry)]
mod cases {
    use super::*;

    #[test]
    fn an_entry_holds_one_reference_and_gives_it_back() -> Result {
        let (all, ct) = (Fixture::new()?, tcp(1)?);
        let index = all.insert(&ct, 1)?;
        let held = conn_refs(&ct);
        let killed = all.kill(index);
        let after = conn_refs(&ct);
        rcu_barrier();
        assert_eq!((held, after), (2, 1));
        assert!(killed);
        assert_eq!(conn_refs(&ct), 1);
        assert_eq!(all.drops.count(), 1);
        Ok(())
    }

    #[test]
    fn a_dead_entry_tells_nothing_about_its_connection() -> Result {
        let (all, ct) = (Fixture::new()?, tcp(1)?);
        let index = all.insert(&ct, 1)?;
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let entry = all.registry.get(index, &rcu).ok_or(EINVAL)?;
        let ask = || {
            (
                entry.is_of(&ct),
                entry.conn_ref(&rcu).is_some(),
                entry.peek(&rcu, |conn| conn.id() == ct.id()),
            )
        };
        let live = ask();
        all.registry.kill(entry, &rcu);
        let dead = ask();
        drop(guard);
        assert_eq!(live, (true, true, Some(true)));
        assert_eq!(dead, (false, false, None));
        assert_eq!(conn_refs(&ct), 1);
        Ok(())
    }

    #[test]
    fn an_entry_is_found_by_either_direction_until_it_ends() -> Result {
        let (all, ct, other) = (Fixture::new()?, tcp(1)?, tcp(2)?);
        let index = all.insert(&ct, 77)?;
        let found = Dir::ALL.map(|dir| all.find(&ct, dir));
        let not_found = Dir::ALL.map(|dir| all.find(&other, dir));
        all.kill(index);
        let dead = Dir::ALL.map(|dir| all.find(&ct, dir));
        assert_eq!(found, [Some(77), Some(77)]);
        assert_eq!(not_found, [None, None]);
        assert_eq!(dead, [None, None]);
        Ok(())
    }

    #[test]
    fn the_same_tuple_of_another_connection_is_another_entry() -> Result {
        let (all, ct, twin) = (
            Fixture::new()?,
            conn(5, 1, ZoneDirs::Both)?,
            conn(5, 2, ZoneDirs::Both)?,
        );
        all.insert(&ct, 1)?;
        all.insert(&twin, 2)?;
        let found = [all.find(&ct, Dir::Original), all.find(&twin, Dir::Original)];
        assert_eq!(found, [Some(1), Some(2)]);
        Ok(())
    }

    #[test]
    fn a_connection_has_one_entry() -> Result {
        let (all, ct) = (Fixture::new()?, tcp(1)?);
        let index = all.insert(&ct, 1)?;
        let again = all.insert(&ct, 2);
        rcu_barrier();
        let held = conn_refs(&ct);
        let dropped = all.drops.count();
        let still = Dir::ALL.map(|dir| all.find(&ct, dir));
        all.kill(index);
        rcu_barrier();
        let closed = all.table.close();
        assert_eq!(again, Err(EEXIST));
        assert_eq!((held, dropped), (2, 1));
        assert_eq!(still, [Some(1), Some(1)]);
        assert!(closed);
        Ok(())
    }

    #[test]
    fn an_entry_ends_once() -> Result {
        let (all, other, ct) = (Fixture::new()?, Fixture::new()?, tcp(1)?);
        all.insert(&ct, 1)?;
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let ends = all.table.find(&ct, Dir::Original, &rcu).map(|entry| {
            [
                other.registry.kill(entry, &rcu),
                all.registry.kill(entry, &rcu),
                all.registry.kill(entry, &rcu),
            ]
        });
        drop(guard);
        rcu_barrier();
        assert_eq!(ends, Some([false, true, false]));
        assert_eq!(all.drops.count(), 1);
        assert_eq!(conn_refs(&ct), 1);
        Ok(())
    }

    #[test]
    fn a_dead_entry_is_whole_for_its_reader() -> Result {
        let (all, ct) = (Fixture::new()?, tcp(9)?);
        all.insert(&ct, 9)?;
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let seen = all.table.find(&ct, Dir::Reply, &rcu).map(|entry| {
            all.registry.kill(entry, &rcu);
            (entry.value, entry.is_of(&ct), all.drops.count())
        });
        drop(guard);
        assert_eq!(seen, Some((9, false, 0)));
        Ok(())
    }

    #[test]
    fn a_successor_waits_for_who_is_not_ended_and_leaves_nothing() -> Result {
        let (all, gone, next) = (Fixture::new()?, tcp(1)?, tcp(1)?);
        let index = all.insert(&gone, 1)?;
        expire(&gone);
        let insert = |end: bool| {
            let guard = read_lock();
            let rcu = ReadSide::of(&guard);
            let kill = |met: &Entry<Tracked>| {
                if end {
                    all.registry.kill(met, &rcu);
                }
            };
            let made = all
                .registry
                .insert(&all.cache, all.entry(&next, 2), kill, &rcu);
            made.map(|entry| entry.value)
        };
        let refused = insert(false).err();
        rcu_barrier();
        let refs = (conn_refs(&gone), conn_refs(&next), all.drops.count());
        let made = insert(true).ok();
        rcu_barrier();
        assert_eq!(refused, Some(EBUSY));
        assert_eq!(refs, (2, 1, 1));
        assert_eq!(made, Some(2));
        assert!(!all.kill(index));
        assert_eq!((conn_refs(&gone), conn_refs(&next)), (1, 2));
        Ok(())
    }

    #[test]
    fn a_number_is_given_again_when_it_is_free() -> Result {
        let (all, first, second) = (Fixture::new()?, tcp(1)?, tcp(2)?);
        let numbers = [all.insert(&first, 1)?, all.insert(&second, 2)?];
        let guard = read_lock();
        let before = all.registry.get(1, &ReadSide::of(&guard)).is_some();
        drop(guard);
        all.kill(1);
        let guard = read_lock();
        let after = all.registry.get(1, &ReadSide::of(&guard)).is_some();
        drop(guard);
        let mut highest = 0;
        // More than one bitmap holds.
        for value in 0..1100 {
            let again = all.insert(&first, value)?;
            all.kill(again);
            highest = highest.max(again);
        }
        assert_eq!((numbers, highest), ([1, 2], 1023));
        assert!(before);
        assert!(!after);
        Ok(())
    }

    #[test]
    fn a_table_has_the_entries_of_one_registry() -> Result {
        let (all, ct, other) = (Fixture::new()?, tcp(1)?, tcp(2)?);
        let stranger = KBox::try_pin_init(Registry::<Tracked>::new(), GFP_KERNEL)?;
        all.insert(&ct, 1)?;
        let guard = read_lock();
        let (new, rcu) = (all.entry(&other, 2), ReadSide::of(&guard));
        let refused = stranger.insert(&all.cache, new, |_| (), &rcu).err();
        drop(guard);
        assert_eq!(refused, Some(EINVAL));
        assert_eq!(conn_refs(&other), 1);
        Ok(())
    }

    #[test]
    fn a_closed_table_takes_nothing_and_holds_nothing() -> Result {
        let (all, ct) = (Fixture::new()?, tcp(1)?);
        let closed = all.table.close();
        let refused = all.insert(&ct, 1);
        rcu_barrier();
        assert!(closed);
        assert_eq!(refused, Err(EAGAIN));
        assert_eq!(conn_refs(&ct), 1);
        Ok(())
    }

    #[test]
    fn a_table_with_entries_does_not_close() -> Result {
        let (all, ct) = (Fixture::new()?, tcp(1)?);
        let index = all.insert(&ct, 1)?;
        let live = all.table.close();
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let dead = all.registry.get(index, &rcu).is_some_and(|entry| {
            all.registry.kill(entry, &rcu);
            // The dead entry is not freed yet and still refers to the table.
            all.table.close()
        });
        drop(guard);
        rcu_barrier();
        let freed = all.table.close();
        assert!(!live);
        assert!(!dead);
        assert!(freed);
        Ok(())
    }

    #[test]
    fn a_registry_that_goes_ends_its_entries() -> Result {
        let all = Fixture::new()?;
        let cts = [tcp(1)?, tcp(2)?, tcp(3)?];
        for ct in &cts {
            all.insert(ct, 1)?;
        }
        let drops = all.drops.clone();
        drop(all);
        assert_eq!(drops.count(), 3);
        assert_eq!(cts.each_ref().map(|ct| conn_refs(ct)), [1, 1, 1]);
        Ok(())
    }

    #[test]
    fn a_table_grows_and_shrinks_under_its_readers() -> Result {
        const MANY: u32 = 3000;
        const STAYING: usize = 16;

        let all = Arc::new(Fixture::new()?, GFP_KERNEL)?;
        let mut staying = KVec::new();
        for number in 0..STAYING as u32 {
            let ct = tcp(number)?;
            all.insert(&ct, number)?;
            staying.push(ct, GFP_KERNEL)?;
        }
        let small = all.table.buckets();
        let grown = Arc::new(Atomic::new(0i32), GFP_KERNEL)?;
        let (theirs, theirs_grown) = (all.clone(), grown.clone());
        let job = Job::start(move || {
            let churn = || -> Result {
                let mut indices = KVec::new();
                for number in 0..MANY {
                    let ct = tcp(100_000 + number)?;
                    indices.push(theirs.insert(&ct, number)?, GFP_KERNEL)?;
                }
                theirs_grown.store(i32::try_from(theirs.table.buckets())?, Relaxed);
                for &index in &indices {
                    theirs.kill(index);
                }
                Ok(())
            };
            if churn().is_err() {
                theirs_grown.store(-1, Relaxed);
            }
        })?;
        let (mut looked, mut missed) = (0u32, 0u32);
        while grown.load(Relaxed) == 0 || looked < 50_000 {
            for (number, ct) in staying.iter().enumerate() {
                let expected = u32::try_from(number).ok();
                if Dir::ALL.map(|dir| all.find(ct, dir)) != [expected, expected] {
                    missed = missed.wrapping_add(1);
                }
                looked = looked.wrapping_add(1);
            }
            crate::kapi::sync::time::cond_resched();
        }
        job.wait();
        rcu_barrier();
        let mut waited = 0;
        while all.table.buckets() > 256 && waited < 200 {
            fsleep(Delta::from_millis(50));
            waited += 1;
        }
        let (dropped, shrunk) = (all.drops.count(), all.table.buckets());
        assert!(small <= 64);
        assert!(grown.load(Relaxed) >= 2048);
        assert_eq!(missed, 0);
        assert_eq!(dropped, MANY as i32);
        assert!(shrunk <= 256);
        Ok(())
    }
}
