// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of keys and slots, and fixtures for that of directions.

mod direction;

use kernel::{
    prelude::*,
    sync::{
        rcu::read_lock, //
    }, //
};

use super::{
    key::difference,
    miss::Miss,
    slot::{Changes, Slot},
    stamp::{Facts, Stamp},
    stay::Stay, //
};
use crate::{
    kapi::{
        mem::{rcu::RcuBox, slab::Cache},
        net::{dst::Dst, prefix::Ends},
        nf::key::Key,
        sync::{percpu::CounterSet, rcu::ReadSide},  //
        tests::{init_net, routes_changed, TestDst}, //
    },
    refs::RefCounts,
    state::stats::{Counter, Event},
    track::outcome::LookupMiss, //
};

/// Returns a key.
fn new_key(iif: u32, mark: u32, dscp: u32, flowlabel: u32, source_check: u32) -> Key {
    let rest = flowlabel | dscp << Key::CLASS_SHIFT | source_check << 28;
    Key { iif, mark, rest }
}

/// Returns the key of the slots in these tests.
fn key() -> Key {
    new_key(3, 7, 0x28, 0x12345, 1)
}

const NOW: Facts = Facts {
    jiffies: u32::MAX - 10,
    generation: 5,
    cause: Miss::RuleChanged.as_raw(),
    max_age: 250,
};

/// A netns in which each change may have changed each route.
impl Changes for Facts {
    fn facts(&self) -> Facts {
        *self
    }

    fn spare(&self, _stamp: &Stamp, _dst: &Dst, _ends: impl FnOnce() -> Ends) -> Option<u32> {
        None
    }
}

/// A netns in which no change has changed this route, up to a genid.
struct Unchanged(Facts, u32);

impl Changes for Unchanged {
    fn facts(&self) -> Facts {
        self.0
    }

    fn spare(&self, _stamp: &Stamp, _dst: &Dst, ends: impl FnOnce() -> Ends) -> Option<u32> {
        (ends() == self::ends()).then_some(self.1)
    }
}

/// Returns the addresses of the packets in these tests.
fn ends() -> Ends {
    Ends { to: 1, from: 2 }
}

/// A cache for slots, and their counter. The cache is dropped last.
struct Fixture {
    refs: RefCounts,
    cache: Cache<Slot>,
}

impl Fixture {
    fn new() -> Result<Self> {
        Ok(Self {
            refs: RefCounts::new()?,
            cache: Cache::new(c"nf_zoneroute_kunit")?,
        })
    }

    fn slot(&self, dst: &TestDst) -> Slot {
        Slot::new(dst.route(9), key(), Stamp::new(&NOW), &self.refs)
    }

    fn boxed(&self, dst: &TestDst) -> Result<RcuBox<Slot>> {
        Ok(RcuBox::from(self.cache.alloc(self.slot(dst))?))
    }

    /// Returns a slot for packets that a device receives.
    fn boxed_for(&self, dst: &TestDst, iif: u32) -> Result<RcuBox<Slot>> {
        let slot = Slot::new(
            dst.route(9),
            Key { iif, ..key() },
            Stamp::new(&NOW),
            &self.refs,
        );
        Ok(RcuBox::from(self.cache.alloc(slot)?))
    }

    fn count(&self) -> u64 {
        self.refs.slots.count()
    }
}

/// Runs `f` in an RCU read-side critical section.
fn read<R>(f: impl FnOnce(&ReadSide<'_>) -> R) -> R {
    let guard = read_lock();
    f(&ReadSide::of(&guard))
}

#[kunit_tests(nfzr_route_key)]
mod key_cases {
    use super::*;

    #[test]
    fn each_part_of_the_key_counts() {
        let any_dscp = difference(&key(), &new_key(3, 7, 0, 0x12345, 1), true);
        let difference = |other| difference(&key(), &other, false);
        assert!(any_dscp.is_none());
        assert!(difference(key()).is_none());
        assert!(difference(new_key(4, 7, 0x28, 0x12345, 1)) == Some(Miss::Iif));
        assert!(difference(new_key(3, 0, 0x28, 0x12345, 1)) == Some(Miss::Mark));
        assert!(difference(new_key(3, 7, 0, 0x12345, 1)) == Some(Miss::Dscp));
        assert!(difference(new_key(3, 7, 0x28, 0x12344, 1)) == Some(Miss::Flowlabel));
        assert!(difference(new_key(3, 7, 0x28, 0x12345, 5)) == Some(Miss::SourceCheck));
        assert_eq!((key().dscp(), key().flowlabel()), (0xa, 0x12345));
    }

    #[test]
    fn age_survives_the_wrap_of_jiffies() {
        let at = |jiffies| Facts { jiffies, ..NOW };
        let aged = |born, now| Stamp::new(&at(born)).check(&at(now)) == Err(Miss::Aged);
        assert!(!aged(u32::MAX - 9, 239));
        assert!(aged(u32::MAX - 9, 240));
        assert!(aged(101, 100));
    }

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let mut seen = [0; Counter::COUNT];
        let lookups = LookupMiss::ALL
            .iter()
            .map(|&miss| Counter::LookupMiss(miss));
        let misses = Miss::ALL.iter().map(|&miss| Counter::Miss(miss));
        let stays = Stay::ALL.iter().map(|&stay| Counter::Stay(stay));
        let events = Event::ALL.iter().map(|&event| Counter::Event(event));
        let hits = [
            Counter::Jumped,
            Counter::JumpedAtIngress,
            Counter::LookupHit,
            Counter::Hit,
        ]
        .into_iter();
        let misses = Iterator::chain(misses, stays);
        let packets = Iterator::chain(Iterator::chain(lookups, misses), hits);
        for counter in Iterator::chain(packets, events) {
            if let Some(count) = seen.get_mut(counter.index()) {
                *count += 1;
            }
        }
        assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn names_are_distinct() {
        let reasons = Miss::ALL.iter().map(|reason| reason.name());
        let events = Event::ALL.iter().map(|event| event.name());
        let all = || Iterator::chain(reasons.clone(), events.clone());
        let mut twice = 0;
        for (index, name) in all().enumerate() {
            twice += all().skip(index + 1).filter(|other| *other == name).count();
        }
        assert_eq!(twice, 0);
    }
}

#[kunit_tests(nfzr_route_slot)]
mod slot_cases {
    use super::*;

    #[test]
    fn a_slot_is_good_until_it_is_old() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        let at = |jiffies| read(|rcu| slot.check_now(&Facts { jiffies, ..NOW }, ends, rcu).err());
        let good = [
            NOW.jiffies,
            NOW.jiffies.wrapping_add(249),
            NOW.jiffies.wrapping_add(250),
        ]
        .map(at);
        assert_eq!(good, [None, None, Some(Miss::Aged)]);
        Ok(())
    }

    #[test]
    fn a_slot_is_good_until_something_happens() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        let at = |generation| {
            read(|rcu| {
                slot.check_now(&Facts { generation, ..NOW }, ends, rcu)
                    .err()
            })
        };
        let good = [4, 5, 6].map(at);
        let changed = Some(Miss::RuleChanged);
        assert_eq!(good, [changed, None, changed]);
        Ok(())
    }

    #[test]
    fn a_slot_stays_good_if_no_change_changed_its_route() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        routes_changed();
        let later = Facts {
            generation: 6,
            jiffies: NOW.jiffies.wrapping_add(249),
            ..NOW
        };
        let genid = init_net().genid4();
        let check = |changes: &Unchanged| read(|rcu| slot.check_now(changes, ends, rcu).err());
        let wrong_genid = check(&Unchanged(later, genid.wrapping_sub(1)));
        // That was noted as if it were right. The next change makes the slot look again.
        let next = Facts {
            generation: 7,
            ..later
        };
        let right_genid = check(&Unchanged(next, genid));
        let noted = read(|rcu| slot.check_now(&next, ends, rcu).err());
        let age = slot.stamp().age(&next);
        let aged = Facts {
            jiffies: NOW.jiffies.wrapping_add(250),
            generation: 8,
            ..NOW
        };
        let aged = check(&Unchanged(aged, genid));
        assert_eq!(
            [wrong_genid, right_genid, noted, aged],
            [Some(Miss::Obsolete), None, None, Some(Miss::RuleChanged)]
        );
        assert_eq!(age, 249);
        Ok(())
    }

    #[test]
    fn a_slot_is_good_until_routes_change() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        let before = read(|rcu| slot.check_now(&NOW, ends, rcu).err());
        routes_changed();
        let after = read(|rcu| slot.check_now(&NOW, ends, rcu).err());
        assert_eq!((before, after), (None, Some(Miss::Obsolete)));
        Ok(())
    }

    #[test]
    fn a_slot_is_good_again_when_its_route_is_chosen_again() -> Result {
        let (all, dst, other) = (Fixture::new()?, TestDst::new(None)?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        let later = Facts {
            generation: 6,
            jiffies: NOW.jiffies.wrapping_add(300),
            ..NOW
        };
        let by_other = slot.renew(&other.chosen(), Stamp::new(&later));
        let before = read(|rcu| slot.check_now(&later, ends, rcu).err());
        let by_its_own = slot.renew(&dst.chosen(), Stamp::new(&later));
        let after = read(|rcu| slot.check_now(&later, ends, rcu).err());
        assert_eq!((by_other, by_its_own), (false, true));
        assert_eq!((before, after), (Some(Miss::RuleChanged), None));
        assert_eq!(dst.refs(), 2);
        Ok(())
    }

    #[test]
    fn a_slot_is_on_the_devices_of_both_ends() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        assert_eq!(slot.devices(), [3, 9]);
        Ok(())
    }

    #[test]
    fn a_slot_holds_its_route_and_is_counted() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        let during = (dst.refs(), all.count());
        drop(slot);
        assert_eq!(during, (2, 1));
        assert_eq!((dst.refs(), all.count()), (1, 0));
        Ok(())
    }
}
