// SPDX-License-Identifier: GPL-2.0

//! When a flow's routes are renewed.

use kernel::prelude::*;

use crate::{flow::Flow, kapi::nf::conn::Dir};

#[kunit_tests(nfzr_conntrack_renewal)]
mod renewal_cases {
    use super::*;

    #[test]
    fn a_renewal_is_paid_by_packets_once() {
        let flow = Flow::new(0);
        let serve = |times| (0..times).for_each(|_| flow.direction(Dir::Reply).count_hit());
        let renewed = || {
            let is_paid = flow.is_renewal_paid(Dir::Reply);
            flow.try_renewal(Dir::Reply);
            is_paid
        };
        let before = renewed();
        serve(2);
        let too_few = renewed();
        serve(3);
        let (enough, again) = (renewed(), renewed());
        serve(40_000);
        let many = renewed();
        assert_eq!(
            (before, too_few, enough, again, many),
            (false, false, true, false, true)
        );
        assert!(!flow.is_renewal_paid(Dir::Original));
    }

    #[test]
    fn renewals_in_vain_are_rare() {
        let flow = Flow::new(0);
        let outdated = |packets| {
            let renews = |_: &_| {
                let renews = !flow.rests(Dir::Reply);
                if renews {
                    flow.note_renewal(Dir::Reply, flow.try_renewal(Dir::Reply));
                }
                renews
            };
            (0..packets).filter(renews).count()
        };
        let in_vain = outdated(80);
        let other = flow.rests(Dir::Original);
        flow.direction(Dir::Reply).count_hit();
        let anew = [outdated(1), outdated(2), outdated(15), outdated(1)];
        assert_eq!((in_vain, other, anew), (10, false, [1, 2, 0, 1]));
    }

    #[test]
    fn renewals_pay_if_each_other_packet_meets_a_change() {
        for burst in 0..40 {
            let flow = Flow::new(0);
            let mut valid = false;
            let mut packet = |changed: bool| {
                valid &= !changed;
                if valid {
                    flow.direction(Dir::Reply).count_hit();
                } else if !flow.rests(Dir::Reply) {
                    flow.note_renewal(Dir::Reply, flow.try_renewal(Dir::Reply));
                    valid = true;
                }
            };
            (0..burst).for_each(|_| packet(true));
            (0..40).for_each(|n| packet(n % 2 == 0));
            let before = flow.direction(Dir::Reply).hits();
            (0..20).for_each(|n| packet(n % 2 == 0));
            let hits = flow.direction(Dir::Reply).hits().wrapping_sub(before);
            assert_eq!((burst, hits), (burst, 10));
        }
    }
}
