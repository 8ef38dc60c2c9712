// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of keys, slots and directions.

use kernel::{
    prelude::*,
    sync::rcu::{rcu_barrier, read_lock}, //
};

use super::{
    direction::Direction,
    key::difference,
    miss::Miss,
    slot::{PacketKey, Slot},
    stamp::{Facts, Stamp}, //
};
use crate::{
    kapi::{
        mem::{rcu::RcuBox, slab::Cache},
        nf::key::Key,
        sync::{percpu::CounterSet, rcu::ReadSide}, //
        tests::{routes_changed, TestDst},          //
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
        let difference = |other| difference(&key(), &other);
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
        let events = Event::ALL.iter().map(|&event| Counter::Event(event));
        let hits = [Counter::LookupHit, Counter::Hit].into_iter();
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
        let at = |jiffies| {
            read(|rcu| {
                slot.check_now(slot.stamp(), &Facts { jiffies, ..NOW }, rcu)
                    .err()
            })
        };
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
                slot.check_now(slot.stamp(), &Facts { generation, ..NOW }, rcu)
                    .err()
            })
        };
        let good = [4, 5, 6].map(at);
        let changed = Some(Miss::RuleChanged);
        assert_eq!(good, [changed, None, changed]);
        Ok(())
    }

    #[test]
    fn a_slot_is_good_until_routes_change() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let slot = all.slot(&dst);
        let before = read(|rcu| slot.check_now(slot.stamp(), &NOW, rcu).err());
        routes_changed();
        let after = read(|rcu| slot.check_now(slot.stamp(), &NOW, rcu).err());
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
        let before = read(|rcu| slot.check_now(slot.stamp(), &later, rcu).err());
        let by_its_own = slot.renew(&dst.chosen(), Stamp::new(&later));
        let after = read(|rcu| slot.check_now(slot.stamp(), &later, rcu).err());
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

#[kunit_tests(nfzr_route_direction)]
mod direction_cases {
    use super::*;

    #[test]
    fn a_staged_route_goes_live_with_a_packet_that_leaves_by_it() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let direction = Direction::new();
        direction.stage(all.boxed(&dst)?);
        let staged = read(|rcu| {
            (
                direction.live(rcu).is_some(),
                direction.staged(rcu).is_some(),
            )
        });
        let committed = read(|rcu| direction.commit(dst.id(), key().iif, rcu));
        let live = read(|rcu| {
            (
                direction.live(rcu).is_some(),
                direction.staged(rcu).is_some(),
            )
        });
        let again = read(|rcu| direction.commit(dst.id(), key().iif, rcu));
        assert_eq!(staged, (false, true));
        assert!(committed);
        assert_eq!(live, (true, false));
        assert!(!again);
        Ok(())
    }

    #[test]
    fn another_route_or_another_device_commits_nothing() -> Result {
        let (all, dst, other) = (Fixture::new()?, TestDst::new(None)?, TestDst::new(None)?);
        let direction = Direction::new();
        direction.stage(all.boxed(&dst)?);
        let by_route = read(|rcu| direction.commit(other.id(), key().iif, rcu));
        let by_device = read(|rcu| direction.commit(dst.id(), key().iif + 1, rcu));
        let live = read(|rcu| direction.live(rcu).is_some());
        assert!(!by_route);
        assert!(!by_device);
        assert!(!live);
        Ok(())
    }

    #[test]
    fn a_route_that_is_replaced_is_let_go() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let direction = Direction::new();
        for _ in 0..10 {
            direction.stage(all.boxed(&dst)?);
            direction.stage(all.boxed(&dst)?);
            read(|rcu| direction.commit(dst.id(), key().iif, rcu));
        }
        rcu_barrier();
        let held = (dst.refs(), all.count());
        drop(direction);
        assert_eq!(held, (2, 1));
        assert_eq!((dst.refs(), all.count()), (1, 0));
        Ok(())
    }

    #[test]
    fn a_live_route_is_replaced_by_one_that_leads_the_same_way() -> Result {
        let (all, dst, other) = (Fixture::new()?, TestDst::new(None)?, TestDst::new(None)?);
        let (suits, differs) = (
            PacketKey {
                key: key(),
                path_hash: 1,
            },
            PacketKey {
                key: new_key(3, 8, 0x28, 0x12345, 1),
                path_hash: 1,
            },
        );
        let direction = Direction::new();
        direction.stage(all.boxed(&dst)?);
        read(|rcu| direction.commit(dst.id(), key().iif, rcu));
        let new = all.boxed(&other)?;
        let late = all.boxed(&dst)?;
        let found = read(|rcu| {
            let old = direction.suitable(&suits, rcu)?;
            let same = other.chosen().leads_as(old.dst(), rcu);
            direction.replace(old, new, rcu);
            // Another CPU with the same slot comes too late.
            direction.replace(old, late, rcu);
            Some((same, direction.suitable(&differs, rcu).is_none()))
        });
        let is_new = read(|rcu| {
            direction
                .live(rcu)
                .is_some_and(|slot| other.id() == *slot.dst())
        });
        rcu_barrier();
        assert_eq!(found, Some((true, true)));
        assert!(is_new);
        assert_eq!((dst.refs(), other.refs(), all.count()), (1, 2, 1));
        Ok(())
    }

    #[test]
    fn a_route_to_another_gateway_leads_another_way() -> Result {
        let (dst, other) = (
            TestDst::new(Some([10, 0, 0, 1]))?,
            TestDst::new(Some([10, 0, 0, 2]))?,
        );
        let (old, by_hash) = (dst.hold(), other.hold_by(7));
        let same = read(|rcu| {
            [
                dst.chosen().leads_as(&old, rcu),
                other.chosen().leads_as(&old, rcu),
                other.chosen().leads_as(&by_hash, rcu),
            ]
        });
        assert_eq!(same, [true, false, false]);
        Ok(())
    }

    #[test]
    fn purging_drops_what_is_bad_live_or_staged() -> Result {
        let (all, live, staged) = (Fixture::new()?, TestDst::new(None)?, TestDst::new(None)?);
        let direction = Direction::new();
        direction.stage(all.boxed(&live)?);
        read(|rcu| direction.commit(live.id(), key().iif, rcu));
        direction.stage(all.boxed(&staged)?);
        let none = read(|rcu| direction.purge(rcu, |_| None).count());
        let gone = Some(Miss::DeviceGone);
        let is_live = |slot: &Slot| (live.id() == *slot.dst()).then_some(Miss::DeviceGone);
        let one = read(|rcu| direction.purge(rcu, is_live).last());
        let other = read(|rcu| direction.purge(rcu, |_| gone).count());
        rcu_barrier();
        assert_eq!((none, one, other), (0, gone, 1));
        assert_eq!((live.refs(), staged.refs(), all.count()), (1, 1, 0));
        Ok(())
    }
}
