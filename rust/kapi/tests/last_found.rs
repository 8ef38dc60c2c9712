// SPDX-License-Identifier: GPL-2.0

//! The last entry that each CPU found.

use kernel::{
    prelude::*,
    sync::rcu::read_lock,
    time::{delay::fsleep, Delta}, //
};

use super::registry::{tcp, Fixture};
use crate::kapi::{
    entry::last_found::Ended,
    nf::conn::Conn,
    sync::rcu::ReadSide, //
};

#[kunit_tests(nfzr_kapi_last_found)]
mod cases {
    use super::*;

    /// Returns the entry that this CPU found last, if it is of `ct`.
    fn last_found(all: &Fixture, ct: &Conn) -> Option<u32> {
        let guard = read_lock();
        let found = all.registry.last_found(ct, &ReadSide::of(&guard));
        found.map(|entry| entry.value)
    }

    /// Records on many CPUs, as the scheduler permits, that they found the entry with this number.
    fn found(all: &Fixture, index: u32, ended: Ended) {
        for _ in 0..100 {
            let guard = read_lock();
            if let Some(entry) = all.registry.get(index, &ReadSide::of(&guard)) {
                all.registry.last_found_slots().found(entry, ended);
            }
            drop(guard);
            fsleep(Delta::from_micros(100));
        }
    }

    #[test]
    fn what_was_found_last_is_its_own_connections() -> Result {
        let (all, ct, other) = (Fixture::new()?, tcp(1)?, tcp(2)?);
        let index = all.insert(&ct, 7)?;
        all.insert(&other, 8)?;
        let never = last_found(&all, &ct);
        found(&all, index, all.registry.last_found_slots().ended());
        let seen = (last_found(&all, &ct), last_found(&all, &other));
        assert_eq!(never, None);
        assert_eq!(seen, (Some(7), None));
        Ok(())
    }

    #[test]
    fn what_was_found_last_is_forgotten_when_any_entry_ends() -> Result {
        let (all, ct, other) = (Fixture::new()?, tcp(1)?, tcp(2)?);
        let (index, others) = (all.insert(&ct, 7)?, all.insert(&other, 8)?);
        found(&all, index, all.registry.last_found_slots().ended());
        let before = last_found(&all, &ct);
        all.kill(others);
        let between = last_found(&all, &ct);
        let ended = all.registry.last_found_slots().ended();
        found(&all, index, ended);
        all.kill(index);
        let after = last_found(&all, &ct);
        assert_eq!((before, between, after), (Some(7), None, None));
        Ok(())
    }
}
