// SPDX-License-Identifier: GPL-2.0

//! Just before conntrack confirms a connection, in POST_ROUTING and in LOCAL_IN: checks the limit
//! of the connection's zone.
//!
//! All other rules have accepted the packet by then, so what they drop takes no place. A confirmed
//! connection that is not counted, because it was confirmed in another way, is counted too.
//!
//! Registered from the first limit on.

use core::marker::PhantomData;

use kernel::sync::ArcBorrow;

use crate::{
    kapi::nf::{
        conn::CtRef,
        hook::{priority, Hook},
        seats::{Confirms, NoSeat},
        skb::{HookSkb, Point, Verdict}, //
    },
    state::{stats::Event, NetState}, //
};

/// The hook at the point `P`.
pub(crate) struct EnforceLimit<P>(PhantomData<P>);

impl<P: Point + Confirms> Hook for EnforceLimit<P> {
    type Data = NetState;
    type Point = P;

    // Before `nf_confirm()`, which is at the last priority, or at the last but one in LOCAL_IN of
    // IPv6, and before synproxy.
    const PRIORITY: i32 = priority::LAST - 2;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, P>) -> Verdict {
        if net.flows.zones().is_any_limited() {
            if let Some(ct) = skb.ct() {
                if !is_within_limit(net, &skb, &ct) {
                    return skb.drop();
                }
            }
        }
        skb.accept()
    }
}

/// Returns whether a packet may continue: `false` if its connection is new and its zone is full.
fn is_within_limit<P: Confirms>(
    net: ArcBorrow<'_, NetState>,
    skb: &HookSkb<'_, P>,
    ct: &CtRef<'_>,
) -> bool {
    let id = ct.conn().own_zone();
    let Some(limit) = net.flows.zones().limit(id, skb.rcu()) else {
        return true;
    };
    let result = if ct.is_confirmed() {
        limit.count(ct.conn(), skb.rcu())
    } else if skb.may_confirm(ct) {
        // The collector removes ended connections from the count.
        NetState::collect_later(net);
        limit.admit(ct, skb.rcu())
    } else {
        Ok(())
    };
    match result {
        Ok(()) => true,
        Err(NoSeat::Memory) => {
            net.stats.count(Event::LimitNoMemory);
            true
        }
        Err(NoSeat::Full) => {
            limit.count_refused();
            net.stats.count(Event::Limited);
            false
        }
    }
}
