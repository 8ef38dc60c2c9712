// SPDX-License-Identifier: GPL-2.0

//! Arrays of objects, and the numbers that are their indices.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu::{rcu_barrier, read_lock},
        Arc, //
    },
    time::{delay::fsleep, Delta},
};

use super::{
    memory::{cache, object, wait_in_vain},
    Drops,
    Job,
    Tracked, //
};
use crate::kapi::{
    mem::{
        array::{RcuArray, RcuBoxArray, Removed},
        ids::Ids, //
    },
    sync::rcu::ReadSide,
};

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

#[kunit_tests(nfzr_kapi_box_array)]
mod box_array_cases {
    use super::*;

    type BoxArray = RcuBoxArray<Tracked>;

    fn array() -> Result<Pin<KBox<BoxArray>>> {
        Ok(KBox::pin_init(BoxArray::new(), GFP_KERNEL)?)
    }

    #[test]
    fn an_object_replaces_the_one_before() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let array = array()?;
        array.put(70_000, object(&cache, 1, &drops)?)?;
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let newer = object(&cache, 2, &drops);
        let old = array.get(70_000, &rcu);
        let put = newer.and_then(|newer| array.put(70_000, newer));
        wait_in_vain();
        let seen = (old.map(|old| old.value), drops.count());
        let now = array.get(70_000, &rcu).map(|object| object.value);
        let other = array.get(70_001, &rcu).is_none();
        drop(guard);
        rcu_barrier();
        let dropped = drops.count();
        drop(array);
        assert!(put.is_ok());
        assert_eq!(seen, (Some(1), 0));
        assert_eq!(now, Some(2));
        assert!(other);
        assert_eq!((dropped, drops.count()), (1, 2));
        Ok(())
    }

    #[test]
    fn only_that_object_is_removed() -> Result {
        let (cache, drops) = (cache()?, Drops::new()?);
        let array = array()?;
        array.put(3, object(&cache, 1, &drops)?)?;
        let newer = object(&cache, 2, &drops)?;
        let guard = read_lock();
        let rcu = ReadSide::of(&guard);
        let old = array.get(3, &rcu);
        let put = array.put(3, newer);
        let removed_old = old.is_some_and(|old| array.remove_if(3, old, &rcu));
        let new = array.get(3, &rcu);
        let removed_new = new.is_some_and(|new| array.remove_if(3, new, &rcu));
        let again = new.is_some_and(|new| array.remove_if(3, new, &rcu));
        let is_empty = array.get(3, &rcu).is_none();
        drop(guard);
        rcu_barrier();
        assert!(put.is_ok());
        assert_eq!((removed_old, removed_new, again), (false, true, false));
        assert!(is_empty);
        assert_eq!(drops.count(), 2);
        Ok(())
    }
}
