// SPDX-License-Identifier: GPL-2.0

//! The pure parts of the module, built for the host at the paths that they have in the module.

#![cfg(test)]
#![deny(unsafe_code)]

#[path = "../../rust/conntrack"]
mod conntrack {
    pub(crate) mod handle;
}

#[path = "../../rust/route"]
mod route {
    pub(crate) mod key;
    pub(crate) mod reason;
}

mod properties;

mod handles {
    use crate::conntrack::handle::{Handle, Salt};

    const SALT: Salt = Salt::new(0x1234_5678);

    #[test]
    fn a_handle_gives_its_index_back() {
        for index in [0, 1, 2, 77, 0x7fff_ffff] {
            assert_eq!(SALT.decode(SALT.encode(index)), Handle::Index(index));
        }
    }

    #[test]
    fn both_halves_of_a_handle_are_no_interface_index() {
        for index in [0, 1, 0x7fff_ffff] {
            let handle = SALT.encode(index);
            assert!((handle as u32 as i32) < 0);
            assert!(((handle >> 32) as u32 as i32) < 0);
        }
    }

    #[test]
    fn an_extension_without_a_handle_is_empty() {
        assert_eq!(SALT.decode(0), Handle::Empty);
    }

    #[test]
    fn a_handle_of_an_earlier_load_is_empty() {
        let old = Salt::new(0x7abc_def0);
        assert_eq!(SALT.decode(old.encode(5)), Handle::Empty);
    }

    #[test]
    fn an_interface_index_in_either_half_is_foreign() {
        let handle = SALT.encode(5);
        assert_eq!(SALT.decode(3), Handle::Foreign);
        assert_eq!(SALT.decode(3 << 32), Handle::Foreign);
        assert_eq!(SALT.decode(handle & !0xffff_ffff | 3), Handle::Foreign);
        assert_eq!(SALT.decode(handle & 0xffff_ffff | 3 << 32), Handle::Foreign);
    }

    #[test]
    fn the_top_bit_of_the_random_number_does_not_matter() {
        assert_eq!(Salt::new(0x8000_0001), Salt::new(1));
    }
}

mod keys {
    use crate::route::{
        key::{aged, Key},
        reason::Reason,
    };

    const KEY: Key = Key {
        iif: 3,
        mark: 7,
        dscp: 0x28,
        source_check: 1,
    };

    #[test]
    fn equal_keys_do_not_differ() {
        assert_eq!(KEY.difference(&KEY.clone()), None);
    }

    #[test]
    fn each_part_of_the_key_counts() {
        let cases = [
            (Key { iif: 4, ..KEY }, Reason::Iif),
            (Key { mark: 0, ..KEY }, Reason::Mark),
            (Key { dscp: 0, ..KEY }, Reason::Dscp),
            (
                Key {
                    source_check: 5,
                    ..KEY
                },
                Reason::SourceCheck,
            ),
        ];
        for (other, reason) in cases {
            assert_eq!(KEY.difference(&other), Some(reason));
            assert_eq!(other.difference(&KEY), Some(reason));
        }
    }

    #[test]
    fn age_counts_from_birth_and_reaches_its_bound() {
        assert!(!aged(100, 100, 250));
        assert!(!aged(100, 349, 250));
        assert!(aged(100, 350, 250));
        assert!(aged(100, 351, 250));
    }

    #[test]
    fn age_survives_the_wrap_of_jiffies() {
        let born = u32::MAX - 9;
        assert!(!aged(born, 0, 250));
        assert!(!aged(born, 239, 250));
        assert!(aged(born, 240, 250));
    }

    #[test]
    fn what_is_born_after_now_is_old() {
        // Another CPU's jiffies may be a tick ahead: a miss, not a route for 49 days.
        assert!(aged(101, 100, 250));
    }
}

mod reasons {
    use crate::route::reason::Reason;

    #[test]
    fn numbers_go_there_and_back() {
        for (index, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Reason::from_raw(reason.as_raw()), reason);
        }
        assert_eq!(Reason::from_raw(-1), Reason::Empty);
        assert_eq!(Reason::from_raw(i8::MAX), Reason::Empty);
    }

    #[test]
    fn names_are_distinct_and_one_word() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let name = reason.name();
            assert!(name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'3'));
            assert!(Reason::ALL
                .iter()
                .skip(index + 1)
                .all(|other| other.name() != name));
        }
        assert_eq!(Reason::ALL.len(), Reason::COUNT);
    }

    #[test]
    fn reasons_of_unfit_packets_start_with_options() {
        assert_eq!(Reason::from_unfit(0), Reason::Options);
        assert_eq!(Reason::from_unfit(Reason::UNFIT_COUNT - 1), Reason::Gone);
        assert_eq!(Reason::from_unfit(Reason::UNFIT_COUNT), Reason::Gone);
    }
}
