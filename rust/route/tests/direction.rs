// SPDX-License-Identifier: GPL-2.0

//! KUnit suite of directions.

use kernel::{prelude::*, sync::rcu::rcu_barrier};

use super::{ends, key, new_key, read, Fixture, NOW};
use crate::{
    kapi::{mem::rcu::RcuBox, nf::key::Key, sync::rcu::ReadSide, tests::TestDst},
    route::{
        direction::Direction,
        miss::Miss,
        slot::{PacketKey, Slot},
        stamp::Facts, //
    },
};

/// Stages a slot.
fn stage(direction: &Direction, slot: RcuBox<Slot>) {
    read(|rcu| direction.stage(slot, &NOW, ends, rcu));
}

/// Commits the route of a packet that leaves by it.
fn commit(direction: &Direction, dst: &TestDst, iif: u32) -> bool {
    read(|rcu| direction.commit(dst.id(), iif, &NOW, ends, rcu))
}

/// Returns whether a direction has a live route.
fn is_live(direction: &Direction, rcu: &ReadSide<'_>) -> bool {
    direction.live(rcu).next().is_some()
}

/// Returns the devices that have a live route, the first one first.
fn devices(direction: &Direction) -> [Option<u32>; 2] {
    read(|rcu| {
        let mut live = direction.live(rcu).map(|slot| slot.key().iif);
        [live.next(), live.next()]
    })
}

/// Stages and commits a route for the packets of each device.
fn commit_each(direction: &Direction, all: &Fixture, dst: &TestDst, devices: &[u32]) -> Result {
    for &iif in devices {
        stage(direction, all.boxed_for(dst, iif)?);
        commit(direction, dst, iif);
    }
    Ok(())
}

#[kunit_tests(nfzr_route_direction)]
mod direction_cases {
    use super::*;

    #[test]
    fn a_staged_route_goes_live_with_a_packet_that_leaves_by_it() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let direction = Direction::new();
        stage(&direction, all.boxed(&dst)?);
        let staged = read(|rcu| (is_live(&direction, rcu), direction.staged(rcu).is_some()));
        let committed = commit(&direction, &dst, key().iif);
        let live = read(|rcu| (is_live(&direction, rcu), direction.staged(rcu).is_some()));
        let again = commit(&direction, &dst, key().iif);
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
        stage(&direction, all.boxed(&dst)?);
        let by_route = commit(&direction, &other, key().iif);
        let by_device = commit(&direction, &dst, key().iif + 1);
        let live = read(|rcu| is_live(&direction, rcu));
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
            stage(&direction, all.boxed(&dst)?);
            stage(&direction, all.boxed(&dst)?);
            commit(&direction, &dst, key().iif);
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
        stage(&direction, all.boxed(&dst)?);
        commit(&direction, &dst, key().iif);
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
            let mut live = direction.live(rcu);
            live.next().is_some_and(|slot| other.id() == *slot.dst())
        });
        rcu_barrier();
        assert_eq!(found, Some((true, true)));
        assert!(is_new);
        assert_eq!((dst.refs(), other.refs(), all.count()), (1, 2, 1));
        Ok(())
    }

    #[test]
    fn each_of_two_devices_has_a_live_route() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let direction = Direction::new();
        let renewed = |iif| -> Result<_> {
            commit_each(&direction, &all, &dst, &[iif])?;
            Ok(devices(&direction))
        };
        let (third, late) = (all.boxed_for(&dst, 5)?, all.boxed_for(&dst, 5)?);
        let has_room = |iif, facts| read(|rcu| direction.has_room(iif, &facts, ends, rcu));
        assert_eq!(renewed(3)?, [Some(3), None]);
        assert_eq!(renewed(3)?, [Some(3), None]);
        assert_eq!(renewed(4)?, [Some(3), Some(4)]);
        assert_eq!([3, 4, 5].map(|iif| has_room(iif, NOW)), [true, true, false]);
        let later = Facts {
            generation: 6,
            ..NOW
        };
        assert!(has_room(5, later));
        // The route that is replaced is that of the same device.
        stage(&direction, all.boxed_for(&dst, 4)?);
        assert_eq!(devices(&direction), [Some(3), None]);
        assert_eq!(renewed(4)?, [Some(3), Some(4)]);
        assert_eq!(renewed(3)?, [Some(4), Some(3)]);
        // A third device stages nothing while both are valid, and takes the place of none then.
        assert!(!read(|rcu| direction.stage(third, &NOW, ends, rcu)));
        assert_eq!(devices(&direction), [Some(4), Some(3)]);
        assert!(read(|rcu| direction.stage(late, &later, ends, rcu)));
        assert_eq!(devices(&direction), [Some(3), None]);
        rcu_barrier();
        assert_eq!((dst.refs(), all.count()), (3, 2));
        Ok(())
    }

    #[test]
    fn the_second_route_moves_up() -> Result {
        let (all, dst) = (Fixture::new()?, TestDst::new(None)?);
        let direction = Direction::new();
        commit_each(&direction, &all, &dst, &[3, 4])?;
        // When the first one is gone, a staged route takes the place of none.
        let first = |slot: &Slot| (slot.key().iif == 3).then_some(Miss::DeviceGone);
        read(|rcu| direction.purge(rcu, first).for_each(drop));
        stage(&direction, all.boxed_for(&dst, 5)?);
        assert_eq!(devices(&direction), [Some(4), None]);
        // An outdated one does not stay the first.
        let later = Facts {
            generation: 6,
            ..NOW
        };
        assert!(read(|rcu| direction.commit(dst.id(), 5, &later, ends, rcu)));
        assert_eq!(devices(&direction), [Some(5), None]);
        rcu_barrier();
        assert_eq!((dst.refs(), all.count()), (2, 1));
        Ok(())
    }

    #[test]
    fn each_live_route_is_for_its_device() -> Result {
        let (all, dst, other) = (Fixture::new()?, TestDst::new(None)?, TestDst::new(None)?);
        let direction = Direction::new();
        commit_each(&direction, &all, &dst, &[3, 4])?;
        let packet = |iif| PacketKey {
            key: Key { iif, ..key() },
            path_hash: 1,
        };
        let usable = |iif| {
            read(|rcu| {
                let slot = direction.usable(&packet(iif), &NOW, ends, rcu)?;
                Ok((slot.key().iif, other.id() == *slot.dst()))
            })
        };
        let before = [3, 4, 5].map(usable);
        let new = all.boxed_for(&other, 4)?;
        read(|rcu| {
            let old = direction.suitable(&packet(4), rcu)?;
            direction.replace(old, new, rcu);
            direction.unstage(rcu);
            Some(())
        });
        let replaced = [3, 4].map(usable);
        let first = |slot: &Slot| (slot.key().iif == 3).then_some(Miss::DeviceGone);
        read(|rcu| direction.purge(rcu, first).for_each(drop));
        let purged = [3, 4].map(usable);
        let iif = Err(Miss::Iif);
        assert_eq!(before, [Ok((3, false)), Ok((4, false)), iif]);
        assert_eq!(replaced, [Ok((3, false)), Ok((4, true))]);
        assert_eq!(purged, [iif, Ok((4, true))]);
        rcu_barrier();
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
        stage(&direction, all.boxed(&live)?);
        commit(&direction, &live, key().iif);
        stage(&direction, all.boxed(&staged)?);
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
