// SPDX-License-Identifier: GPL-2.0

//! Jumps at the ingress of devices: as [`LookupAndJump`] does, before the packet enters IP.
//!
//! A packet that does not jump here goes on as if there was no hook.
//!
//! [`LookupAndJump`]: crate::path::jump::LookupAndJump

use kernel::sync::ArcBorrow;

use crate::{
    flow::{
        table::{FoundToJump, LookedAtIngress},
        zone::Tally, //
    },
    kapi::{
        entry::lookup::LookupBuf,
        net::family::Family,
        nf::{
            ingress::IngressHook,
            jump::Jump,
            skb::{HookSkb, Ingress, Verdict}, //
        },
    },
    path::{jump, lookup},
    route::pass::Fate,
    state::{jump::Epoch, NetState},
};

/// Lets packets leave at ingress.
pub(crate) struct JumpAtIngress;

impl IngressHook for JumpAtIngress {
    type Data = NetState;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, Ingress>, is_armed: bool) -> Verdict {
        let mut buf = LookupBuf::new();
        match look_up(&net, &skb, &mut buf, is_armed) {
            Next::Jump(jump) => return skb.jump(jump),
            Next::Stays => {
                if let Some(observer) = net.jumps.observer() {
                    observer.stays(&skb);
                }
            }
            Next::Other => (),
        }
        skb.accept()
    }
}

/// What a packet does next.
enum Next<'b, 'r> {
    /// It leaves.
    Jump(Jump<'b, 'r, Ingress>),
    /// It goes on into IP.
    Stays,
    /// It is not IP's, or comes to another device first.
    Other,
}

/// Looks up a packet. It leaves only if the hook is armed.
#[inline(always)]
fn look_up<'b, 'r>(
    net: &'r NetState,
    skb: &HookSkb<'r, Ingress>,
    buf: &'b mut LookupBuf,
    is_armed: bool,
) -> Next<'b, 'r> {
    let epochs = Family::ALL.map(|family| net.jumps.epoch(family, skb.rcu()));
    let rulesets = epochs.map(|epoch| Some(&epoch?.ruleset));
    match net.flows.look_up_at_ingress(skb, buf, rulesets) {
        LookedAtIngress::Found(found) if is_armed => {
            jump(net, found, epochs).map_or(Next::Stays, Next::Jump)
        }
        LookedAtIngress::Found(_) | LookedAtIngress::Stays => Next::Stays,
        LookedAtIngress::Other => Next::Other,
    }
}

/// Tracks a packet. Returns where it leaves if it may jump.
#[inline(always)]
fn jump<'b, 'r>(
    net: &'r NetState,
    found: FoundToJump<'_, 'b, 'r, Ingress>,
    epochs: [Option<&'r Epoch>; 2],
) -> Option<Jump<'b, 'r, Ingress>> {
    let [ipv4, ipv6] = epochs;
    let epoch = match found.pass().ok()?.dst().family() {
        Family::Ipv4 => ipv4?,
        Family::Ipv6 => ipv6?,
    };
    // A packet that rules drop is dropped before conntrack.
    if jump::check_pass(net, &found, epoch) != Ok(Fate::Leaves) {
        return None;
    }
    let timeout = lookup::track(&found).ok()?;
    found.entry().direction(found.dir()).count_hit();
    let counters = [
        found.zone().counter(Tally::Hit),
        net.stats.jumps_at_ingress(),
    ];
    found.leave(timeout, counters)
}
