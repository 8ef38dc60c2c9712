// SPDX-License-Identifier: GPL-2.0

//! Properties of the cells in which changes of prefixes are noted.

use proptest::prelude::*;

use crate::kapi::net::prefix::{cells_of, Prefix, CELLS};

proptest! {
    #[test]
    fn a_prefix_is_noted_in_a_cell_of_each_of_its_addresses(addr: u32, len in 8..=32u32, other: u32) {
        let host = u32::MAX.checked_shr(len).unwrap_or(0);
        let inside = addr & !host | other & host;
        let cell = Prefix { addr, len }.cell();
        prop_assert!(cell.is_some_and(|cell| cells_of(inside).contains(&cell)));
    }

    #[test]
    fn a_short_prefix_is_noted_for_all(addr: u32, len in 0..8u32) {
        prop_assert_eq!(Prefix { addr, len }.cell(), None);
    }

    #[test]
    fn every_cell_exists(addr: u32) {
        let cells = cells_of(addr);
        prop_assert!(cells.iter().all(|&cell| cell < CELLS));
        prop_assert!(cells[0] != cells[1] && cells[1] != cells[2] && cells[0] != cells[2]);
    }
}

#[test]
fn neighbouring_networks_have_different_cells() {
    let networks = (0..1024u32).map(|number| cells_of(10 << 24 | number << 8)[0]);
    let different: std::collections::BTreeSet<_> = networks.collect();
    assert!(different.len() > 900, "{}", different.len());
}
