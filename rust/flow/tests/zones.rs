// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of zones.

use kernel::{
    prelude::*,
    sync::rcu::{rcu_barrier, read_lock}, //
};

use super::Fixture;
use crate::{
    flow::{table::NoFlow, zone::Tally},
    kapi::{
        sync::rcu::ReadSide,
        tests::{conn, ZoneDirs}, //
    },
};

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
    fn a_limit_stays_until_it_is_removed() -> Result {
        let all = Fixture::new()?;
        let zones = all.flows.zones();
        let max = |id| {
            let guard = read_lock();
            Some(zones.info(id, &ReadSide::of(&guard))?.max())
        };
        zones.set_max([(5, Some(10)), (6, None)].into_iter(), || Ok(()))?;
        let (limited, any) = ([max(5), max(6)], zones.is_any_limited());
        let looks = [zones.collect(), zones.collect(), zones.collect()];
        let stayed = max(5);
        zones.set_max([(5, Some(0))].into_iter(), || Ok(()))?;
        let changed = max(5);
        zones.set_max([(5, None)].into_iter(), || Ok(()))?;
        let (unlimited, none) = (max(5), !zones.is_any_limited());
        assert_eq!(limited, [Some(Some(10)), None]);
        assert!(any);
        assert_eq!(looks, [0, 0, 0]);
        assert_eq!(stayed, Some(Some(10)));
        assert_eq!(changed, Some(Some(0)));
        assert_eq!(unlimited, None);
        assert!(none);
        Ok(())
    }

    #[test]
    fn a_walk_meets_zones_and_limits_in_ascending_order() -> Result {
        let all = Fixture::new()?;
        let zones = all.flows.zones();
        let limits = [3u16, 70, 100, 5000, 65535].map(|id| (id, Some(1)));
        zones.set_max(limits.into_iter(), || Ok(()))?;
        for id in [65u16, 90, 100, 128] {
            let ct = conn(id.into(), id, ZoneDirs::Both)?;
            all.make(&ct, None).map_err(|_| EINVAL)?;
        }
        let (mut met, mut from) = ([0; 9], 0);
        for met in &mut met {
            let guard = read_lock();
            let Some(id) = zones.next(from, &ReadSide::of(&guard)) else {
                break;
            };
            (*met, from) = (id, id + 1);
        }
        assert_eq!(met, [3, 65, 70, 90, 100, 128, 5000, 65535, 0]);
        Ok(())
    }

    #[test]
    fn packets_are_told_whether_there_may_be_flows() -> Result {
        let (all, ct) = (Fixture::new()?, conn(2, 0, ZoneDirs::Both)?);
        let has_any = || all.flows.has_any();
        let before = has_any();
        let index = all.make(&ct, None).map_err(|_| EINVAL)?;
        let during = (has_any(), all.flows.note_none(), has_any());
        all.kill(index);
        // Until the collector has looked.
        let killed = has_any();
        let after = (all.flows.note_none(), has_any());
        all.make(&ct, None).map_err(|_| EINVAL)?;
        let again = has_any();
        assert!(!before);
        assert_eq!(during, (true, true, true));
        assert!(killed);
        assert_eq!(after, (false, false));
        assert!(again);
        Ok(())
    }

    #[test]
    fn a_limit_keeps_the_counts_of_a_zone_that_went() -> Result {
        let (all, ct) = (Fixture::new()?, conn(1, 5, ZoneDirs::Both)?);
        let zones = all.flows.zones();
        zones.set_max([(5, Some(10))].into_iter(), || Ok(()))?;
        let made = || {
            let guard = read_lock();
            Some(zones.info(5, &ReadSide::of(&guard))?.tally(Tally::New))
        };
        let before = made();
        let index = all.make(&ct, None).map_err(|_| EINVAL)?;
        let during = made();
        all.kill(index);
        rcu_barrier();
        let looks = [zones.collect(), zones.collect()];
        let (gone, kept) = (all.zone(5), made());
        all.make(&ct, None).map_err(|_| EINVAL)?;
        let again = made();
        zones.set_max([(5, None)].into_iter(), || Ok(()))?;
        assert_eq!(before, Some(0));
        assert_eq!(during, Some(1));
        assert_eq!(looks, [1, 0]);
        assert_eq!(gone, None);
        assert_eq!(kept, Some(1));
        assert_eq!(again, Some(2));
        assert_eq!(made(), Some(2));
        Ok(())
    }
}
