// SPDX-License-Identifier: GPL-2.0

//! Connections and routes: their references, and the fields read from them.

use kernel::{
    fmt,
    prelude::*,
    str::CString,
    sync::rcu::read_lock, //
};

use super::{
    conn,
    conn_refs,
    conn_without_extension,
    expire,
    handle_of,
    routes_changed,
    TestDst,
    ZoneDirs, //
};
use crate::kapi::{
    nf::{
        conn::{Conn, Dir},
        peek::ConnPeek, //
    },
    sync::rcu::ReadSide, //
};

fn peek(ct: &Conn) -> ConnPeek<'_> {
    // SAFETY: A reference on the connection is held.
    unsafe { ConnPeek::from_raw(ct.as_raw()) }
}

/// Returns whether `shown` is formatted as `text`.
fn shows(shown: impl fmt::Display, text: &str) -> Result<bool> {
    let shown = CString::try_from_fmt(fmt!("{shown}"))?;
    Ok(shown.to_bytes() == text.as_bytes())
}

#[kunit_tests(nfzr_kapi_conntrack)]
mod conn_cases {
    use super::*;

    #[test]
    fn a_clone_is_a_reference() -> Result {
        let ct = conn(1, 0, ZoneDirs::Both)?;
        let alone = conn_refs(&ct);
        let clone = ct.clone();
        let both = conn_refs(&ct);
        drop(clone);
        assert_eq!((alone, both, conn_refs(&ct)), (1, 2, 1));
        Ok(())
    }

    #[test]
    fn a_zone_counts_in_its_directions() -> Result {
        let zones = |dirs| -> Result<[u16; 2]> {
            let ct = conn(1, 77, dirs)?;
            Ok(Dir::ALL.map(|dir| ct.zone(dir)))
        };
        assert_eq!(zones(ZoneDirs::Both)?, [77, 77]);
        assert_eq!(zones(ZoneDirs::Original)?, [77, 0]);
        assert_eq!(zones(ZoneDirs::Reply)?, [0, 77]);
        Ok(())
    }

    #[test]
    fn a_tuple_is_shown_as_conntrack_shows_it() -> Result {
        let ct = conn(0x0001_0fa0, 9, ZoneDirs::Reply)?;
        let [original, reply] = Dir::ALL.map(|dir| peek(&ct).tuple(dir));
        assert!(shows(original.src(), "198.18.0.1")?);
        assert!(shows(original.dst(), "203.0.113.1")?);
        assert!(shows(original.ports(), "sport=4000 dport=7")?);
        assert!(shows(original.protocol(), "udp")?);
        assert!(shows(original.l3name(), "ipv4")?);
        assert!(shows(reply.src(), "203.0.113.1")?);
        assert!(shows(reply.dst(), "198.18.0.1")?);
        assert!(shows(reply.ports(), "sport=7 dport=4000")?);
        assert_eq!((original.zone(), reply.zone()), (0, 9));
        Ok(())
    }

    #[test]
    fn a_handle_goes_into_the_extension() -> Result {
        let ct = conn(1, 0, ZoneDirs::Both)?;
        let empty = handle_of(&ct);
        let results = [
            ct.replace_handle(0, 0x8000_0001_8000_0002),
            ct.replace_handle(0, 0x8000_0001_8000_0003),
        ];
        assert_eq!(empty, 0);
        assert_eq!(results, [Ok(()), Err(0x8000_0001_8000_0002)]);
        assert_eq!(handle_of(&ct), 0x8000_0001_8000_0002);
        Ok(())
    }

    #[test]
    fn a_connection_without_extension_takes_no_handle() -> Result {
        let ct = conn_without_extension(1)?;
        assert!(ct.replace_handle(0, 0x8000_0001_8000_0002).is_err());
        assert_eq!(handle_of(&ct), 0);
        Ok(())
    }

    #[test]
    fn a_connection_is_gone_when_its_time_is_up() -> Result {
        let ct = conn(1, 0, ZoneDirs::Both)?;
        let before = ct.is_gone();
        expire(&ct);
        assert!(!before);
        assert!(ct.is_gone());
        assert!(!peek(&ct).is_assured());
        Ok(())
    }
}

#[kunit_tests(nfzr_kapi_dst)]
mod dst_cases {
    use super::*;

    #[test]
    fn a_route_is_held_and_let_go() -> Result {
        let route = TestDst::new(None)?;
        let alone = route.refs();
        let held = route.hold();
        let both = route.refs();
        drop(held);
        assert_eq!((alone, both, route.refs()), (1, 2, 1));
        Ok(())
    }

    #[test]
    fn a_route_is_valid_until_routes_change() -> Result {
        let route = TestDst::new(None)?;
        let held = route.hold();
        let valid = || {
            let guard = read_lock();
            held.is_valid(&ReadSide::of(&guard))
        };
        let before = valid();
        routes_changed();
        assert!(before);
        assert!(!valid());
        Ok(())
    }

    #[test]
    fn a_route_chosen_by_a_hash_suits_that_hash_only() -> Result {
        let route = TestDst::new(None)?;
        let (any, hashed) = (route.hold(), route.hold_by(5));
        assert_eq!([any.suits(1), any.suits(5)], [true, true]);
        assert_eq!([hashed.suits(1), hashed.suits(5)], [false, true]);
        Ok(())
    }

    #[test]
    fn a_gateway_is_shown_and_a_neighbour_is_on_link() -> Result {
        let (by_gateway, on_link) = (TestDst::new(Some([192, 0, 2, 33]))?, TestDst::new(None)?);
        let gateway = by_gateway.hold().gateway().ok_or(ENOENT)?;
        assert!(shows(gateway, "192.0.2.33")?);
        assert!(on_link.hold().gateway().is_none());
        Ok(())
    }

    #[test]
    fn a_route_is_itself_alone() -> Result {
        let (one, other) = (TestDst::new(None)?, TestDst::new(None)?);
        let held = one.hold();
        let same = [one.id() == held, other.id() == held];
        assert_eq!(same, [true, false]);
        Ok(())
    }
}
