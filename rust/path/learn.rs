// SPDX-License-Identifier: GPL-2.0

//! Last in PRE_ROUTING, for a packet of a connection without a flow: counts the packets of the
//! connection in its extension, and asks [`super::commit`] for a flow once there were enough.
//!
//! A flow costs more to make than it saves a short connection. Until then, a connection takes no
//! memory of ours.

use core::mem::MaybeUninit;

use kernel::sync::ArcBorrow;

use crate::{
    flow::table::Unlearned,
    kapi::{
        nf::{
            conn::CtRef,
            hook::{priority, Hook},
            skb::{HookSkb, PreRouting, Verdict}, //
        },
        sync::time, //
    },
    state::{stats::Event, NetState}, //
};

/// The hook where no routes are cached.
pub(crate) struct Learn;

impl Hook for Learn {
    type Data = NetState;
    type Point = PreRouting;

    const PRIORITY: i32 = priority::LAST;

    #[inline(always)]
    fn hook(net: ArcBorrow<'_, NetState>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        let mut buf = MaybeUninit::uninit();
        if let Some(ct) = read(&net, &skb, &mut buf) {
            if ct.was_counted() {
                return skb.accept();
            }
            if !ct.is_confirmed() {
                begin(net, &skb, ct);
            } else if !ct
                .handle()
                .is_some_and(|handle| net.flows.leads_to_flow(handle))
            {
                if let Err(unlearned) = net.flows.of_conn(ct, skb.rcu()) {
                    count(&net, &skb, ct, unlearned);
                }
            }
        }
        skb.accept()
    }
}

/// Returns a packet's connection. If the packet is one of the first, counts it: then there is
/// nothing else to do.
#[inline(always)]
fn read<'p, 'b>(
    net: &NetState,
    skb: &'p HookSkb<'_, PreRouting>,
    buf: &'b mut MaybeUninit<CtRef<'p>>,
) -> Option<&'b CtRef<'p>> {
    let counts = (net.flows.handle_of_count(0), net.settings.learn_after());
    skb.count_ct(counts, buf)
}

/// Gives a new connection our extension, with the count of its first packet. Looks for flows whose
/// connections ended.
pub(super) fn begin(net: ArcBorrow<'_, NetState>, skb: &HookSkb<'_, PreRouting>, ct: &CtRef<'_>) {
    // A packet of a VRF passes this hook twice.
    if ct.handle().is_some_and(|handle| net.flows.is_ours(handle)) {
        return;
    }
    NetState::make_room(net, skb.rcu());
    if ct.handle().is_none() && !ct.add_extension(net.flows.handle_of_count(1)) {
        net.stats.count(Event::NoExtension);
    }
    if net.settings.learn_after() == 0 {
        net.pending.note(skb);
    }
}

/// Counts a packet of a confirmed connection that has no flow, if reading it did not.
pub(super) fn count(
    net: &NetState,
    skb: &HookSkb<'_, PreRouting>,
    ct: &CtRef<'_>,
    unlearned: Unlearned,
) {
    let after = net.settings.learn_after();
    let is_learned = match unlearned {
        Unlearned::Count(before) if before < after => {
            let count = net.flows.handle_of_count(before.saturating_add(1));
            // If this fails, the handle has changed: a count, a flow, or what another module wrote.
            let _ = ct.replace_handle(count);
            false
        }
        Unlearned::Count(_) => true,
        Unlearned::Lost => true,
        Unlearned::Uncounted => is_chosen(after),
    };
    if is_learned {
        net.pending.note(skb);
    }
}

/// Returns `true` once in `after` calls, at random.
#[cold]
pub(super) fn is_chosen(after: u8) -> bool {
    time::random_u32()
        .checked_rem(after.into())
        .is_none_or(|rest| rest == 0)
}
