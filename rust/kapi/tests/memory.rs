// SPDX-License-Identifier: GPL-2.0

//! Objects: when they are freed, and by which owner.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::{rcu_barrier, read_lock},
        Arc, //
    },
    time::{
        delay::{fsleep, udelay},
        Delta, //
    },
};

use super::{Drops, Job, Tracked};
use crate::{
    bindings,
    kapi::{
        mem::{
            array::{RcuArray, Removed},
            ids::Ids,
            rcu::{RcuBox, RcuCell},
            slab::Cache, //
        },
        sync::{
            percpu::{CounterSet, Counters, PerCpuCell},
            rcu::ReadSide, //
        },
    },
};

fn cache() -> Result<Cache<Tracked>> {
    Cache::new(c"nf_zoneroute_kunit")
}

fn object(cache: &Cache<Tracked>, value: u32, drops: &Arc<Drops>) -> Result<RcuBox<Tracked>> {
    Ok(RcuBox::from(cache.alloc(Tracked::new(value, drops))?))
}

/// Busy-waits 20 ms: long enough for a callback to run that does not wait for readers.
fn wait_in_vain() {
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

#[kunit_tests(nfzr_kapi_array)]
mod array_cases {
    use super::*;

    fn array() -> Result<Pin<KBox<RcuArray<Tracked>>>> {
        Ok(KBox::pin_init(RcuArray::new(), GFP_KERNEL)?)
    }

    fn shared(value: u32, drops: &Arc<Drops>) -> Result<Arc<Tracked>> {
        Ok(Arc::new(Tracked::new(value, drops), GFP_KERNEL)?)
    }

    #[test]
    fn numbers_go_on_in_their_bitmap_before_the_lowest_is_given() -> Result {
        let numbers = KBox::pin_init(Ids::new(), GFP_KERNEL)?;
        let mut taken = KVec::new();
        for _ in 0..1500 {
            taken.push(numbers.take(5000)?, GFP_KERNEL)?;
        }
        (1..=1000).for_each(|number| numbers.give_back(number));
        let mut again = KVec::new();
        for _ in 0..1000 {
            again.push(numbers.take(5000)?, GFP_KERNEL)?;
        }
        // Numbers 454 to 1000 are free.
        let refused = numbers.take(453).is_err();
        assert!(taken.iter().copied().eq(1..=1500));
        assert!(again
            .iter()
            .copied()
            .eq(Iterator::chain(1501..=2047, 1..=453)));
        assert!(refused);
        Ok(())
    }

    #[test]
    fn a_taken_index_gives_the_object_back() -> Result {
        let (array, drops) = (array()?, Drops::new()?);
        let first = array.insert(5, shared(1, &drops)?).is_ok();
        let refused = array.insert(5, shared(2, &drops)?).err();
        let given_back = refused.map(|(err, object)| (err == EBUSY, object.value));
        let guard = read_lock();
        let kept = array
            .get(5, &ReadSide::of(&guard))
            .map(|object| object.value);
        drop(guard);
        assert!(first);
        assert_eq!(given_back, Some((true, 2)));
        assert_eq!(kept, Some(1));
        assert_eq!(drops.count(), 1);
        Ok(())
    }

    #[test]
    fn the_next_object_goes_by_index() -> Result {
        let (array, drops) = (array()?, Drops::new()?);
        for index in [0, 7, 65_535] {
            array
                .insert(index, shared(index, &drops)?)
                .map_err(|(err, _)| err)?;
        }
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let next = [0, 1, 8, 65_536].map(|from| array.next(from, &rcu).map(|(index, _)| index));
        drop(guard);
        drop(array);
        assert_eq!(next, [Some(0), Some(7), Some(65_535), None]);
        assert_eq!(drops.count(), 3);
        Ok(())
    }

    #[test]
    fn what_is_removed_lives_as_long_as_its_readers() -> Result {
        let drops = Drops::new()?;
        let array = Arc::pin_init(RcuArray::new(), GFP_KERNEL)?;
        array
            .insert(1, shared(1, &drops)?)
            .map_err(|(err, _)| err)?;
        let reading = Arc::new(Atomic::new(0i32), GFP_KERNEL)?;
        let early = Arc::new(Atomic::new(-1i32), GFP_KERNEL)?;
        let theirs = (array.clone(), reading.clone(), early.clone(), drops.clone());
        let job = Job::start(move || {
            let (array, reading, early, drops) = theirs;
            let guard = read_lock();
            let seen = array.get(1, &ReadSide::of(&guard)).is_some();
            reading.store(if seen { 1 } else { -1 }, Relaxed);
            wait_in_vain();
            early.store(drops.count(), Relaxed);
        })?;
        while reading.load(Relaxed) == 0 {
            fsleep(Delta::from_micros(100));
        }
        let mut removed = KVVec::new();
        removed.push(array.remove(1).ok_or(ENOENT)?, GFP_KERNEL)?;
        Removed::drop_all(removed);
        let dropped = drops.count();
        job.wait();
        assert_eq!(reading.load(Relaxed), 1);
        assert_eq!(early.load(Relaxed), 0);
        assert_eq!(dropped, 1);
        Ok(())
    }

    #[test]
    fn what_is_kept_outlives_its_removal() -> Result {
        let (array, drops) = (array()?, Drops::new()?);
        array
            .insert(1, shared(9, &drops)?)
            .map_err(|(err, _)| err)?;
        let guard = read_lock();
        let kept = array.get_arc(1, &ReadSide::of(&guard));
        drop(guard);
        drop(array.remove(1));
        let during = drops.count();
        let value = kept.as_ref().map(|kept| kept.value);
        drop(kept);
        assert_eq!((during, value, drops.count()), (0, Some(9), 1));
        Ok(())
    }

    #[test]
    fn one_removed_object_waits_by_itself() -> Result {
        let (array, drops) = (array()?, Drops::new()?);
        array
            .insert(1, shared(1, &drops)?)
            .map_err(|(err, _)| err)?;
        drop(array.remove(1));
        let gone = array.remove(1).is_none();
        assert_eq!(drops.count(), 1);
        assert!(gone);
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
