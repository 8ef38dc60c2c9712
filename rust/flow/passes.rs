// SPDX-License-Identifier: GPL-2.0

//! The passes of flows, by the flow's number and direction. They are not in the flow itself, so
//! that flows that do not jump take no memory for them.

use kernel::{
    prelude::*,
    sync::barrier::{smp_mb, Full}, //
};

use crate::{
    flow::{
        table::{FlowTable, LookedAtIngress, LookedToJump},
        Flow, //
    },
    kapi::{
        entry::{lookup::LookupBuf, Entry},
        mem::rcu::RcuBox,
        nf::{
            conn::Dir,
            jump::OwnerId,
            ruleset::Ruleset,
            skb::{HookSkb, Ingress, PreRouting}, //
        },
        sync::rcu::ReadSide, //
    },
    route::pass::Pass, //
};

/// Returns the place of a direction, as the lookup computes it. Numbers of flows take 30 bits.
fn place(flow: &Entry<Flow>, dir: Dir) -> u32 {
    flow.index() << 1 | u32::from(dir == Dir::Reply)
}

impl FlowTable {
    /// As [`FlowTable::look_up`], of a packet that may jump. `ruleset` is the firewall that was
    /// recorded last.
    #[inline(always)]
    pub(crate) fn look_up_to_jump<'p, 'b, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'b mut LookupBuf,
        ruleset: Option<&'r Ruleset>,
    ) -> Option<LookedToJump<'p, 'b, 'r>> {
        let looked = self
            .zones
            .look_up_to_jump(skb, buf, &self.passes, ruleset)?;
        Self::count_met(&looked.trail);
        Some(looked)
    }

    /// Looks up a packet at ingress, in the default zone. `rulesets` are the firewalls of IPv4 and
    /// IPv6 that were recorded last.
    #[inline(always)]
    pub(crate) fn look_up_at_ingress<'p, 'b, 'r>(
        &'r self,
        skb: &'p HookSkb<'r, Ingress>,
        buf: &'b mut LookupBuf,
        rulesets: [Option<&'r Ruleset>; 2],
    ) -> LookedAtIngress<'p, 'b, 'r> {
        self.zones
            .look_up_at_ingress(skb, buf, &self.passes, rulesets)
    }

    /// Returns the pass of a direction. Any context.
    pub(crate) fn pass<'r>(
        &'r self,
        flow: &Entry<Flow>,
        dir: Dir,
        rcu: &ReadSide<'r>,
    ) -> Option<&'r Pass> {
        let pass = self.passes.get(place(flow, dir), rcu);
        pass.filter(|pass| pass.owner() == OwnerId::new(flow))
    }

    /// Stores the pass of a direction, in place of an older one. Fails with `ENOMEM`. Any context.
    pub(crate) fn store_pass(
        &self,
        flow: &Entry<Flow>,
        dir: Dir,
        pass: RcuBox<Pass>,
        rcu: &ReadSide<'_>,
    ) -> Result {
        self.passes.put(place(flow, dir), pass)?;
        // ORDERING: Full, pairs with the full exchange of the state in `Registry::kill`: if the
        // flow is live now, its end sees the pass.
        smp_mb(Full);
        if !flow.is_live() {
            self.drop_passes(flow, rcu, |_, _| true);
        }
        Ok(())
    }

    /// Drops the passes of a flow that are `bad`. Any context.
    pub(crate) fn drop_passes(
        &self,
        flow: &Entry<Flow>,
        rcu: &ReadSide<'_>,
        bad: impl Fn(Dir, &Pass) -> bool,
    ) {
        for dir in Dir::ALL {
            if let Some(pass) = self.pass(flow, dir, rcu) {
                if bad(dir, pass) {
                    self.passes.remove_if(place(flow, dir), pass, rcu);
                }
            }
        }
    }
}
