// SPDX-License-Identifier: GPL-2.0

//! The firewall that forwarded packets of a family pass, recorded for comparison.
//!
//! C headers: [`net/netfilter/nf_tables.h`](srctree/include/net/netfilter/nf_tables.h),
//! [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use kernel::{prelude::*, sync::Arc, types::Opaque};

use crate::{
    bindings,
    kapi::{
        net::{family::Family, netns::Net},
        nf::observe::Observer,
        sync::rcu::ReadSide, //
    },
};

/// Why packets may not skip a firewall: `enum nfzr_ruleset_fit`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unskippable {
    /// It has a hook whose effects are not known: [`Ruleset::unknown`].
    Unknown,
    /// It has more hooks or chains than are compared.
    Many,
    /// A hook comes after the one that observes packets.
    Behind,
}

/// A record of a firewall.
pub(crate) struct Ruleset {
    raw: KBox<Opaque<bindings::nfzr_ruleset>>,
    observer: Arc<Observer>,
}

// SAFETY: What the pointers lead to is read only while the sets of hooks of the netns are those of
// the record, under RCU. The observer is owned.
unsafe impl Send for Ruleset {}
// SAFETY: As above. The one field that changes is accessed by `READ_ONCE()` and `WRITE_ONCE()`.
unsafe impl Sync for Ruleset {}

impl Ruleset {
    /// Records the firewall of a family in a netns, for packets that `observer` observes. Process
    /// context; sleeps.
    pub(crate) fn record(net: &Net, family: Family, observer: Arc<Observer>) -> Result<Self> {
        let zeroed = KBox::<Opaque<_>>::new_uninit(GFP_KERNEL | __GFP_ZERO)?;
        // SAFETY: All zero is a valid record.
        let raw = unsafe { zeroed.assume_init() };
        let ruleset = Self { raw, observer };
        // CAST: The protocol family is a small number.
        let (net, pf) = (net.as_raw(), family.as_raw() as u8);
        let (raw, observer) = (ruleset.as_raw(), ruleset.observer.as_raw());
        // SAFETY: A `&Net` is valid. Nothing else uses the record yet. It owns the observer.
        unsafe { bindings::nfzr_helper_ruleset_record(net, pf, observer, raw) };
        Ok(ruleset)
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::nfzr_ruleset {
        self.raw.get()
    }

    /// Returns the observer of the packets that pass the firewall.
    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Returns whether the firewall of the netns is still the recorded one. It is not if the record
    /// is another netns', whose sets of hooks are others. Any context.
    pub(crate) fn is_current(&self, net: &Net, _rcu: &ReadSide<'_>) -> bool {
        // SAFETY: A `&Net` is valid, and this is under RCU.
        unsafe { bindings::nfzr_helper_ruleset_is(net.as_raw(), self.as_raw()) }
    }

    /// Returns whether packets may skip the firewall, or the reason why not.
    pub(crate) fn check(&self) -> Result<(), Unskippable> {
        use bindings::nfzr_ruleset_fit::*;
        // SAFETY: The field does not change after `record`.
        match unsafe { (*self.as_raw()).fit } {
            NFZR_RULESET_FIT => Ok(()),
            NFZR_RULESET_UNKNOWN => Err(Unskippable::Unknown),
            NFZR_RULESET_MANY => Err(Unskippable::Many),
            NFZR_RULESET_BEHIND => Err(Unskippable::Behind),
        }
    }

    /// Returns the function of the hook whose effects are not known, or an empty string.
    pub(crate) fn unknown(&self) -> &CStr {
        // SAFETY: The field does not change after `record`, which ends it by a zero.
        unsafe { CStr::from_char_ptr((*self.as_raw()).unknown.as_ptr()) }
    }
}
