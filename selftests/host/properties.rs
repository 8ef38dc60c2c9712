// SPDX-License-Identifier: GPL-2.0

//! What holds for whatever packets, clocks and other modules may bring: tried on many inputs.

use proptest::prelude::*;

use crate::{
    conntrack::handle::{Handle, Salt},
    route::{
        key::{aged, Key},
        reason::Reason,
    },
};

const CASES: u32 = 20_000;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        // The failing input is printed; nothing is written beside the sources.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Numbers, with those at the edges more often than chance has it.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => any::<u32>(),
        1 => prop_oneof![Just(0), Just(1), Just(i32::MAX as u32), Just(1 << 31), Just(u32::MAX)],
        1 => 0..16u32,
    ]
}

fn key() -> impl Strategy<Value = Key> {
    (0..3u32, 0..3u32, 0..3u8, 0..3u8).prop_map(|(iif, mark, dscp, source_check)| Key {
        iif,
        mark,
        dscp,
        source_check,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_handle_gives_back_the_number_that_it_was_made_of(
        random in number(), index in 0..=i32::MAX as u32,
    ) {
        let salt = Salt::new(random);
        prop_assert_eq!(salt.decode(salt.encode(index)), Handle::Index(index));
    }

    #[test]
    fn nothing_but_its_handle_leads_to_a_number(
        random in number(), high in number(), low in number(),
    ) {
        let salt = Salt::new(random);
        let handle = u64::from(high) << 32 | u64::from(low);
        if let Handle::Index(index) = salt.decode(handle) {
            prop_assert_eq!(salt.encode(index), handle);
            prop_assert!(index <= i32::MAX as u32);
        }
    }

    #[test]
    fn two_interface_indices_lead_to_no_number(
        random in number(), first in 0..=i32::MAX, second in 0..=i32::MAX,
    ) {
        let handle = u64::from(first as u32) << 32 | u64::from(second as u32);
        let read = Salt::new(random).decode(handle);
        prop_assert_eq!(read, if handle == 0 { Handle::Empty } else { Handle::Foreign });
    }

    #[test]
    fn a_handle_of_another_salt_leads_to_no_number(
        ours in number(), theirs in number(), index in 0..=i32::MAX as u32,
    ) {
        let (ours, theirs) = (Salt::new(ours), Salt::new(theirs));
        prop_assume!(ours != theirs);
        prop_assert_eq!(ours.decode(theirs.encode(index)), Handle::Empty);
    }

    #[test]
    fn a_handle_that_lost_a_bit_leads_nowhere_else(
        random in number(), index in 0..=i32::MAX as u32, bit in 31..64u32,
    ) {
        let salt = Salt::new(random);
        let spoilt = salt.encode(index) ^ 1 << bit;
        prop_assert!(!matches!(salt.decode(spoilt), Handle::Index(_)));
    }

    #[test]
    fn keys_differ_when_and_only_when_they_are_not_equal(one in key(), other in key()) {
        prop_assert_eq!(one.difference(&other).is_none(), one == other);
        prop_assert_eq!(one.difference(&other), other.difference(&one));
    }

    #[test]
    fn the_difference_is_a_part_that_differs(one in key(), other in key()) {
        let differs = match one.difference(&other) {
            None => true,
            Some(Reason::Iif) => one.iif != other.iif,
            Some(Reason::Mark) => one.mark != other.mark,
            Some(Reason::Dscp) => one.dscp != other.dscp,
            Some(Reason::SourceCheck) => one.source_check != other.source_check,
            Some(_) => false,
        };
        prop_assert!(differs);
    }

    #[test]
    fn age_is_what_passed_whatever_the_clock_shows(
        born in number(), passed in number(), max_age in number(),
    ) {
        prop_assert_eq!(aged(born, born.wrapping_add(passed), max_age), passed >= max_age);
    }

    #[test]
    fn any_byte_is_a_reason(raw in any::<i8>()) {
        let reason = Reason::from_raw(raw);
        let known = usize::try_from(raw).is_ok_and(|raw| raw < Reason::COUNT);
        prop_assert_eq!(reason.as_raw() == raw, known);
    }

    #[test]
    fn any_number_of_an_unfit_packet_is_a_reason(index in 0..1000usize) {
        let reason = Reason::from_unfit(index);
        prop_assert!(reason as usize >= Reason::Options as usize);
    }
}
