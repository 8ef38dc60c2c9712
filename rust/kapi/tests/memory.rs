// SPDX-License-Identifier: GPL-2.0

//! Objects: when they are freed, and by which owner.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::{rcu_barrier, read_lock},
        Arc, //
    },
    time::{delay::udelay, Delta},
};

use super::{Drops, Job, Tracked};
use crate::{
    bindings,
    kapi::{
        mem::{
            rcu::{RcuBox, RcuCell},
            slab::Cache, //
        },
        sync::{
            percpu::{CounterSet, Counters, PerCpuCell},
            rcu::ReadSide, //
        },
    },
};

pub(super) fn cache() -> Result<Cache<Tracked>> {
    Cache::new(c"nf_zoneroute_kunit")
}

pub(super) fn object(
    cache: &Cache<Tracked>,
    value: u32,
    drops: &Arc<Drops>,
) -> Result<RcuBox<Tracked>> {
    Ok(RcuBox::from(cache.alloc(Tracked::new(value, drops))?))
}

/// Busy-waits 20 ms: long enough for a callback to run that does not wait for readers.
pub(super) fn wait_in_vain() {
    for _ in 0..20 {
        udelay(Delta::from_micros(1000));
    }
}

#[kunit_tests(nfzr_kapi_rcu)]
mod rcu_cases {
    use super::*;

    #[test]
    fn a_dropped_object_lives_as_long_as_its_readers() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let object = object(&cache, 1, &drops)?;
        let guard = read_lock();
        drop(object);
        wait_in_vain();
        let under_guard = drops.count();
        drop(guard);
        rcu_barrier();
        assert_eq!(under_guard, 0);
        assert_eq!(drops.count(), 1);
        Ok(())
    }

    #[test]
    fn a_cell_shows_what_it_holds_and_gives_it_back() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let cell = RcuCell::new();
        let first = cell.swap(Some(object(&cache, 1, &drops)?)).is_none();
        let guard = read_lock();
        let shown = cell.load(&ReadSide::of(&guard)).map(|object| object.value);
        drop(guard);
        let second = cell
            .swap(Some(object(&cache, 2, &drops)?))
            .map(|old| old.value);
        let third = cell.swap(None).map(|old| old.value);
        rcu_barrier();
        assert!(first);
        assert_eq!(shown, Some(1));
        assert_eq!((second, third), (Some(1), Some(2)));
        assert_eq!(drops.count(), 2);
        Ok(())
    }

    #[test]
    fn only_what_was_loaded_is_taken() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let cell = RcuCell::new();
        drop(cell.swap(Some(object(&cache, 1, &drops)?)));
        let newer = object(&cache, 2, &drops)?;
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let old = cell.load(&rcu);
        drop(cell.swap(Some(newer)));
        let taken_old = old.is_some_and(|old| cell.take_if(old, &rcu).is_some());
        let taken_new = cell
            .load(&rcu)
            .is_some_and(|new| new.value == 2 && cell.take_if(new, &rcu).is_some());
        let empty = cell.load(&rcu).is_none();
        drop(guard);
        rcu_barrier();
        assert!(!taken_old);
        assert!(taken_new);
        assert!(empty);
        assert_eq!(drops.count(), 2);
        Ok(())
    }

    #[test]
    fn one_of_two_takers_wins() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let cell = Arc::new(RcuCell::new(), GFP_KERNEL)?;
        let won = Arc::new(Atomic::new(0i32), GFP_KERNEL)?;
        for round in 1..200 {
            drop(cell.swap(Some(object(&cache, round, &drops)?)));
            let take = |cell: &RcuCell<Tracked>, won: &Atomic<i32>| {
                let guard = read_lock();
                let rcu = ReadSide::of(&guard);
                let taken = cell.load(&rcu).and_then(|seen| cell.take_if(seen, &rcu));
                if taken.is_some() {
                    won.add(1, Relaxed);
                }
            };
            let theirs = (cell.clone(), won.clone());
            let job = Job::start(move || take(&theirs.0, &theirs.1))?;
            take(&cell, &won);
            job.wait();
        }
        rcu_barrier();
        assert_eq!(won.load(Relaxed), 199);
        assert_eq!(drops.count(), 199);
        Ok(())
    }

    #[test]
    fn a_cell_that_goes_drops_what_it_holds() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let cell = RcuCell::new();
        drop(cell.swap(Some(object(&cache, 1, &drops)?)));
        drop(cell);
        assert_eq!(drops.count(), 1);
        Ok(())
    }
}

#[kunit_tests(nfzr_kapi_slab)]
mod slab_cases {
    use super::*;

    #[test]
    fn an_object_goes_with_its_owner() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let object = cache.alloc(Tracked::new(7, &drops))?;
        let before = drops.count();
        drop(object);
        assert_eq!((before, drops.count()), (0, 1));
        Ok(())
    }

    #[test]
    fn a_cache_waits_for_what_rcu_still_has() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        for value in 0..100 {
            drop(object(&cache, value, &drops)?);
        }
        drop(cache);
        assert_eq!(drops.count(), 100);
        Ok(())
    }
}

#[kunit_tests(nfzr_kapi_percpu)]
mod percpu_cases {
    use super::*;

    #[derive(Clone, Copy)]
    enum Fruit {
        Apple,
        Pear,
        Stone,
    }

    impl CounterSet for Fruit {
        const COUNT: usize = 2;

        fn index(self) -> usize {
            self as usize
        }
    }

    #[test]
    fn counts_of_all_cpus_add_up() -> Result {
        let counters = Arc::new(Counters::<Fruit>::new()?, GFP_KERNEL)?;
        let mut jobs = KVec::new();
        for _ in 0..4 {
            let counters = counters.clone();
            let job = Job::start(move || {
                for _ in 0..5000 {
                    counters.inc(Fruit::Pear);
                }
            })?;
            jobs.push(job, GFP_KERNEL)?;
        }
        for job in &jobs {
            job.wait();
        }
        assert_eq!(counters.sum(Fruit::Pear), 20_000);
        assert_eq!(counters.sum(Fruit::Apple), 0);
        Ok(())
    }

    #[test]
    fn a_counter_beyond_the_set_counts_nothing() -> Result {
        let counters = Counters::<Fruit>::new()?;
        counters.inc(Fruit::Stone);
        assert_eq!(counters.sum(Fruit::Stone), 0);
        assert_eq!(counters.sum(Fruit::Apple), 0);
        assert_eq!(counters.sum(Fruit::Pear), 0);
        Ok(())
    }

    #[test]
    fn several_are_counted_at_once() -> Result {
        let counters = Counters::<Fruit>::new()?;
        counters.add(Fruit::Apple, 7);
        counters.inc(Fruit::Apple);
        assert_eq!(counters.sum(Fruit::Apple), 8);
        Ok(())
    }

    #[test]
    fn a_cell_gives_back_what_was_put_there_on_that_cpu() -> Result {
        let cell = PerCpuCell::<[u32; 3]>::new()?;
        // Stays on one CPU, as a hook does.
        let guard = read_lock();
        // SAFETY: Bottom halves are enabled again below, on the same thread.
        unsafe { bindings::nfzr_kunit_bh_disable() };
        let seen = [
            cell.replace(Some([1, 2, 3])),
            cell.replace(None),
            cell.replace(Some([4, 5, 6])),
            cell.replace(Some([7, 8, 9])),
            cell.replace(None),
        ];
        // SAFETY: Bottom halves were disabled above, on the same thread.
        unsafe { bindings::nfzr_kunit_bh_enable() };
        drop(guard);
        assert_eq!(
            seen,
            [
                None,
                Some([1, 2, 3]),
                None,
                Some([4, 5, 6]),
                Some([7, 8, 9])
            ]
        );
        Ok(())
    }
}
