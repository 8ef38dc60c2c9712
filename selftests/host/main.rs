// SPDX-License-Identifier: GPL-2.0

//! Tests of the module's pure parts, built for the host at the same paths as in the module.

#![cfg(test)]
#![deny(unsafe_code)]
// The other files of the module, which are not built here, use the rest.
#![allow(dead_code)]

#[path = "../../rust/named_enum.rs"]
mod named_enum;

#[path = "../../rust/kapi"]
mod kapi {
    pub(crate) mod net {
        pub(crate) mod prefix;
    }
    pub(crate) mod nf {
        pub(crate) mod key;
        pub(crate) mod tcp;
        pub(crate) mod udp;
    }
}

#[path = "../../rust/flow"]
mod flow {
    pub(crate) mod handle;
}

#[path = "../../rust/netns"]
mod netns {
    pub(crate) mod command;
}

#[path = "../../rust/track"]
mod track {
    pub(crate) mod outcome;
    pub(crate) mod tcp;
    pub(crate) mod udp;
}

#[path = "../../rust/route"]
mod route {
    pub(crate) mod key;
    pub(crate) mod miss;
    pub(crate) mod stamp;
    pub(crate) mod stay;
}

mod prefixes;
mod properties;
mod tracking;

mod handles {
    use crate::flow::handle::{Handle, Salt, MAX_INDEX};

    const SALT: Salt = Salt::new(0x1234_5678);

    #[test]
    fn a_handle_gives_its_index_back() {
        for index in [1, 2, 77, MAX_INDEX] {
            assert_eq!(SALT.decode(SALT.index(index)), Handle::Index(index));
        }
    }

    #[test]
    fn a_handle_gives_its_count_back() {
        for count in 0..=u8::MAX {
            assert_eq!(SALT.decode(SALT.count(count)), Handle::Count(count));
        }
    }

    #[test]
    fn both_halves_of_a_handle_are_no_interface_index() {
        for handle in [
            SALT.count(0),
            SALT.count(255),
            SALT.index(1),
            SALT.index(MAX_INDEX),
        ] {
            assert!((handle as u32 as i32) < 0);
            assert!(((handle >> 32) as u32 as i32) < 0);
        }
    }

    #[test]
    fn an_extension_without_a_handle_is_empty() {
        assert_eq!(SALT.decode(0), Handle::Count(0));
    }

    #[test]
    fn a_handle_of_an_earlier_load_is_empty() {
        let old = Salt::new(0x7abc_def0);
        assert_eq!(SALT.decode(old.index(5)), Handle::Count(0));
        assert_eq!(SALT.decode(old.count(5)), Handle::Count(0));
    }

    #[test]
    fn an_interface_index_in_either_half_is_foreign() {
        let handle = SALT.index(5);
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
    use crate::{
        kapi::nf::key::Key,
        route::{key::difference, miss::Miss},
    };

    pub(crate) fn new(iif: u32, mark: u32, dscp: u32, flowlabel: u32, source_check: u32) -> Key {
        let rest = flowlabel | dscp << Key::CLASS_SHIFT | source_check << 28;
        Key { iif, mark, rest }
    }

    fn key() -> Key {
        new(3, 7, 0x28, 0x12345, 1)
    }

    #[test]
    fn the_parts_of_a_key_are_kept_apart() {
        let key = new(3, 7, 0xfc, 0xfffff, 7);
        assert_eq!((key.dscp(), key.flowlabel()), (0x3f, 0xfffff));
    }

    #[test]
    fn equal_keys_do_not_differ() {
        assert_eq!(difference(&key(), &key(), false), None);
    }

    #[test]
    fn each_part_of_the_key_counts() {
        let cases = [
            (new(4, 7, 0x28, 0x12345, 1), Miss::Iif),
            (new(3, 0, 0x28, 0x12345, 1), Miss::Mark),
            (new(3, 7, 0, 0x12345, 1), Miss::Dscp),
            (new(3, 7, 0x28, 0x12344, 1), Miss::Flowlabel),
            (new(3, 7, 0x28, 0x12345, 5), Miss::SourceCheck),
        ];
        for (other, reason) in cases {
            assert_eq!(difference(&key(), &other, false), Some(reason));
            assert_eq!(difference(&other, &key(), false), Some(reason));
            let by_dscp = reason == Miss::Dscp;
            let without = (!by_dscp).then_some(reason);
            assert_eq!(difference(&key(), &other, true), without);
        }
    }
}

mod stamps {
    use crate::route::{
        miss::Miss,
        stamp::{Facts, Stamp},
    };

    fn at(jiffies: u32) -> Facts {
        Facts {
            jiffies,
            generation: 7,
            cause: Miss::RuleChanged.as_raw(),
            max_age: 250,
        }
    }

    fn aged(born: u32, now: u32) -> bool {
        match Stamp::new(&at(born)).check(&at(now)) {
            Ok(()) => false,
            Err(miss) => miss == Miss::Aged,
        }
    }

    #[test]
    fn age_counts_from_birth_and_reaches_its_bound() {
        assert!(!aged(100, 100));
        assert!(!aged(100, 349));
        assert!(aged(100, 350));
        assert!(aged(100, 351));
    }

    #[test]
    fn age_survives_the_wrap_of_jiffies() {
        let born = u32::MAX - 9;
        assert!(!aged(born, 0));
        assert!(!aged(born, 239));
        assert!(aged(born, 240));
    }

    #[test]
    fn what_is_born_after_now_is_old() {
        // Another CPU's jiffies may be a tick ahead: a miss, not a route for 49 days.
        assert!(aged(101, 100));
    }

    #[test]
    fn a_change_outdates_a_stamp_whatever_its_age() {
        for generation in [6, 8] {
            for jiffies in [100, 350] {
                let now = Facts {
                    generation,
                    ..at(jiffies)
                };
                let stamp = Stamp::new(&at(100));
                assert_eq!(stamp.check(&now), Err(Miss::RuleChanged));
                assert_eq!(stamp.outdated_by(&now), Some(Miss::RuleChanged));
            }
        }
        assert_eq!(Stamp::new(&at(100)).outdated_by(&at(350)), None);
    }

    #[test]
    fn the_older_of_two_stamps_gives_the_age() {
        let stamp = |born| Stamp::new(&at(born));
        let cases = [(100, 90), (90, 100), (5, u32::MAX - 5), (u32::MAX - 5, 5)];
        for (one, other) in cases {
            let older = if one.wrapping_sub(other) < 1000 {
                other
            } else {
                one
            };
            assert_eq!(stamp(one).as_old_as(stamp(other)).born(), older);
        }
    }

    #[test]
    fn the_age_of_another_stamp_leaves_the_changes_alone() {
        let older = Facts {
            generation: 6,
            ..at(90)
        };
        let stamp = Stamp::new(&at(100)).as_old_as(Stamp::new(&older));
        assert_eq!(stamp.outdated_by(&at(100)), None);
    }
}

mod stays {
    use crate::route::stay::Stay;

    #[test]
    fn numbers_go_there_and_back() {
        for &stay in Stay::ALL {
            assert_eq!(Stay::from_raw(stay.as_raw()), stay);
        }
        assert_eq!(Stay::from_raw(-1), Stay::Unlearned);
        assert_eq!(Stay::from_raw(i8::MAX), Stay::Unlearned);
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Stay::ALL.iter().map(|stay| stay.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Stay::COUNT);
    }
}

mod reasons {
    use crate::route::miss::Miss;

    #[test]
    fn numbers_go_there_and_back() {
        for (index, &reason) in Miss::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Miss::from_raw(reason.as_raw()), reason);
        }
        assert_eq!(Miss::from_raw(-1), Miss::Empty);
        assert_eq!(Miss::from_raw(i8::MAX), Miss::Empty);
    }

    #[test]
    fn names_are_distinct_and_one_word() {
        for (index, reason) in Miss::ALL.iter().enumerate() {
            let name = reason.name();
            assert!(name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'3'));
            assert!(Miss::ALL
                .iter()
                .skip(index + 1)
                .all(|other| other.name() != name));
        }
        assert_eq!(Miss::ALL.len(), Miss::COUNT);
    }
}

mod outcomes {
    use crate::track::{outcome::LookupMiss, tcp::TcpMiss};

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = LookupMiss::ALL
            .iter()
            .map(|outcome| outcome.name())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LookupMiss::COUNT);
    }

    #[test]
    fn each_miss_has_an_outcome_of_its_own() {
        let outcomes = [
            TcpMiss::Flags,
            TcpMiss::State,
            TcpMiss::Options,
            TcpMiss::Window,
        ]
        .map(LookupMiss::from);
        assert_eq!(
            outcomes,
            [
                LookupMiss::TcpFlags,
                LookupMiss::TcpState,
                LookupMiss::TcpOptions,
                LookupMiss::TcpWindow
            ]
        );
    }
}

mod zone_commands {
    use crate::netns::command::{commands, Action, Bad, Command};

    fn all(text: &[u8]) -> Vec<Result<Command, Bad>> {
        commands(text).collect()
    }

    fn max(zone: u16, max: Option<u32>) -> Result<Command, Bad> {
        Ok(Command {
            zone,
            action: Action::Max(max),
        })
    }

    #[test]
    fn each_command_is_read() {
        assert_eq!(all(b"zone 5 max 10000\n"), [max(5, Some(10000))]);
        assert_eq!(all(b"zone 0 max none"), [max(0, None)]);
        assert_eq!(all(b"\tzone  65535 max\t0 \n"), [max(65535, Some(0))]);
        let flush = Command {
            zone: 7,
            action: Action::Flush,
        };
        assert_eq!(all(b"zone 7 flush\n"), [Ok(flush)]);
        assert_eq!(
            all(b"zone 1 max 2\nzone 7 flush"),
            [max(1, Some(2)), Ok(flush)]
        );
    }

    #[test]
    fn what_is_no_command_is_no_syntax() {
        for text in [
            &b""[..],
            b"\n",
            b"zone",
            b"zone 5",
            b"zone 5 max",
            b"zone 5 max 1 2",
            b"zone 5 flush now",
            b"zone -1 flush",
            b"zone +1 flush",
            b"zone 0x5 flush",
            b"zone 5 max -1",
            b"zone 5 max 1k",
            b"zone 5 maximum 1",
            b"ZONE 5 flush",
            b"zone 5 flush\0",
            b"zone 5 flush\n\n",
            b"zone \xff flush",
        ] {
            assert!(
                all(text).contains(&Err(Bad::Syntax)),
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn what_is_too_large_is_out_of_range() {
        for text in [
            &b"zone 65536 flush"[..],
            b"zone 99999999999999999999 flush",
            b"zone 5 max 2147483648",
            b"zone 5 max 4294967296",
        ] {
            assert_eq!(all(text), [Err(Bad::Range)]);
        }
        assert_eq!(
            all(b"zone 5 max 2147483647"),
            [max(5, Some(i32::MAX as u32))]
        );
    }
}
