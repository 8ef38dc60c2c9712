// SPDX-License-Identifier: GPL-2.0

//! Records of the firewall of `init_net`, which has no rules in these tests.

use kernel::{
    prelude::*,
    sync::{rcu::read_lock, Arc}, //
};

use super::init_net;
use crate::{
    bindings,
    kapi::{
        net::family::Family,
        nf::{observe::Observer, ruleset::Ruleset},
        sync::rcu::ReadSide, //
    },
};

/// Returns whether the records are current: as they are, while base_seq differs, while gencursor
/// differs, and after both are as they were.
fn comparisons(ruleset: &Ruleset) -> [bool; 4] {
    let guard = read_lock();
    let rcu = ReadSide::of(&guard);
    let is = || ruleset.is_current(&init_net(), &rcu);
    // SAFETY: No requirements.
    let shift = |base_seq, gencursor| unsafe { bindings::nfzr_kunit_nft(base_seq, gencursor) };
    let before = is();
    shift(1, 0);
    let other_base_seq = is();
    shift(u32::MAX, 1);
    let other_gencursor = is();
    shift(0, 1);
    [before, other_base_seq, other_gencursor, is()]
}

#[kunit_tests(nfzr_kapi_ruleset)]
mod cases {
    use super::*;

    #[test]
    fn both_numbers_of_a_transaction_are_compared() -> Result {
        let observer = Arc::new(Observer::new()?, GFP_KERNEL)?;
        for family in Family::ALL {
            let ruleset = Ruleset::record(&init_net(), family, observer.clone())?;
            assert_eq!(comparisons(&ruleset), [true, false, false, true]);
        }
        Ok(())
    }
}
