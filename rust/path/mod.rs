// SPDX-License-Identifier: GPL-2.0

//! The way of a packet: one file per hook, in packet order.
//!
//! ```text
//!     PRE_ROUTING
//!       -400  defragmentation
//!       -300  raw: the rules that choose a zone
//!       -201  lookup   attaches the packet to its connection
//!       -200  conntrack, unless lookup attached the packet
//!       -150  mangle
//!       -100  DNAT
//!        MAX  admit    gives a new connection our extension
//!             serve    attaches a known connection's route, or stages the kernel's choice
//!             routing, unless serve attached a route
//!     FORWARD
//!          0  filter
//!     POST_ROUTING (and LOCAL_IN, up to confirm)
//!        100  SNAT
//!      MAX-2  limit    checks the limit of a new connection's zone
//!        MAX  conntrack's confirm
//!             commit   creates the flow, and makes the staged route the live one
//! ```
//!
//! In verify mode [`verify`] has hooks of its own in place of lookup and serve: see there.
//!
//! All hooks run in softirq, or in process context with bottom halves on, always under RCU.
//! They accept every packet, except for a new connection over the limit of its zone. A packet in
//! doubt takes the kernel's own path.
//!
//! Which hooks are registered depends on the mode of the netns: no hook tests a mode.

pub(crate) mod admit;
pub(crate) mod commit;
pub(crate) mod limit;
pub(crate) mod lookup;
pub(crate) mod serve;
pub(crate) mod verify;

use kernel::sync::ArcBorrow;

use crate::{
    kapi::nf::{
        hook::{priority, Hook},
        skb::{HookSkb, PreRouting, Verdict}, //
    },
    state::NetState, //
};

/// The last hook of PRE_ROUTING: a new connection is prepared, a packet of a known one is served.
/// Another hook at the last priority may still run after it, and must not change the fields that
/// routing looks at.
pub(crate) struct AdmitAndServe;

impl Hook for AdmitAndServe {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        if let Some(ct) = skb.ct() {
            if ct.is_confirmed() {
                serve::serve(&net, &skb, &ct);
            } else {
                net.served.forget(&skb);
                admit::admit(net, &skb, &ct);
            }
        }
        skb.accept()
    }
}

/// The same where no routes are cached.
pub(crate) struct Admit;

impl Hook for Admit {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        if skb.is_unconfirmed() {
            net.served.forget(&skb);
            if let Some(ct) = skb.ct() {
                admit::admit(net, &skb, &ct);
            }
        }
        skb.accept()
    }
}
