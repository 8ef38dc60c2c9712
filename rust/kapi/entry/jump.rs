// SPDX-License-Identifier: GPL-2.0

//! The lookup of a packet that may jump: as [`lookup`], in the same call into C.
//!
//! [`lookup`]: super::lookup

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull}, //
};

use crate::{
    bindings,
    kapi::{
        entry::{
            lookup::{Found, LookupBuf, Trail},
            table::Tabled, //
        },
        mem::array::{RcuArray, RcuBoxArray},
        nf::{
            jump::{Jump, Learned, Stays},
            observe::Observer,
            ruleset::Ruleset,
            skb::{HookSkb, Ingress, PreRouting},
            track::Untracked, //
        },
        sync::percpu::OneCounter,
    },
};

/// As [`Found`], of a packet that may jump on terms `P`.
///
/// # Invariants
///
/// The lookup searched an array of passes `Learned<P>`.
pub(crate) struct FoundToJump<'p, 'b, 'r, T: Send + Sync, U, P, At = PreRouting> {
    found: Found<'p, 'r, T, U, At>,
    _buf: PhantomData<&'b mut LookupBuf>,
    _passes: PhantomData<&'r P>,
}

impl<'p, 'r, T: Send + Sync, U, P, At> Deref for FoundToJump<'p, '_, 'r, T, U, P, At> {
    type Target = Found<'p, 'r, T, U, At>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.found
    }
}

impl<'b, 'r, T: Send + Sync, U, P, At> FoundToJump<'_, 'b, 'r, T, U, P, At> {
    /// Returns the pass of the packet's direction by which the packet may jump, as far as the
    /// packet, the firewall and the kernel's state are concerned, or the reason why it may not.
    #[inline(always)]
    pub(crate) fn pass(&self) -> Result<&'r Learned<P>, Stays> {
        let raw = self.found.raw.as_ptr();
        // SAFETY: By the type invariant; a lookup that finds an entry, and searches passes, fills
        // this field.
        Stays::check(unsafe { (*raw).stay })?;
        // SAFETY: As above: a packet that may jump has a pass.
        let pass = unsafe { (*raw).pass };
        // SAFETY: By the type invariant it was in the array, in the read-side critical section
        // `'r`. A `Learned<P>` begins with its pass.
        Ok(unsafe { &*pass.cast() })
    }

    /// Returns whether the kernel may have changed its choice of the route of [`Self::pass`].
    #[inline(always)]
    pub(crate) fn is_outdated(&self) -> bool {
        // SAFETY: By the type invariant; filled if the packet may jump, and read as a number.
        unsafe {
            ptr::addr_of!((*self.found.raw.as_ptr()).exit.is_outdated)
                .cast::<u8>()
                .read()
                != 0
        }
    }

    /// Returns the jump of the packet. It will update the connection's timeout (in jiffies), and
    /// increment `counters`. Returns `None` if [`Self::pass`] fails.
    #[inline(always)]
    pub(crate) fn leave(
        self,
        timeout: u32,
        counters: [OneCounter<'r>; 2],
    ) -> Option<Jump<'b, 'r, At>> {
        self.pass().ok()?;
        let (raw, skb) = (self.found.raw, self.found.skb.id());
        let conn = self.found.into_conn();
        // SAFETY: By the type invariants, and as checked above.
        Some(unsafe { Jump::from_raw(raw, skb, conn, timeout, counters) })
    }
}

impl<T: Send + Sync, U, P> FoundToJump<'_, '_, '_, T, U, P> {
    /// Notes for an observed packet that it would have jumped, if [`Self::pass`] succeeds.
    pub(crate) fn predict(&self, observer: &Observer) {
        if self.pass().is_ok() {
            // SAFETY: By the type invariant, and as just checked.
            unsafe { observer.predict(self.found.skb, self.found.raw.as_ptr()) };
        }
    }

    /// As [`Found::attach`].
    #[inline(always)]
    pub(crate) fn attach(self, timeout: u32, hits: [OneCounter<'_>; 2]) {
        self.found.attach(timeout, hits);
    }
}

/// As [`Looked`], of a packet that may jump on terms `P`.
pub(crate) struct LookedToJump<'p, 'b, 'r, T: Send + Sync, U, P> {
    /// The packet's connection, or why the packet is left to conntrack.
    pub(crate) result: Result<FoundToJump<'p, 'b, 'r, T, U, P>, Untracked>,
    /// What the lookup met.
    pub(crate) trail: Trail<'b, 'r, T, U>,
}

/// What a lookup at ingress found for a packet that may jump on terms `P`.
pub(crate) enum LookedAtIngress<'p, 'b, 'r, T: Send + Sync, U, P> {
    /// The packet's connection.
    Found(FoundToJump<'p, 'b, 'r, T, U, P, Ingress>),
    /// Nothing. The packet goes on into IP.
    Stays,
    /// Nothing. The packet is not IP's, or comes to another device first.
    Other,
}

impl<T: Send + Sync, U: Send + Sync> RcuArray<Tabled<T, U>> {
    /// As [`RcuArray::look_up`]. If the packet's connection was found, also looks for the pass of
    /// its direction, at the index of its entry, and at all that may keep the packet from jumping.
    /// `ruleset` is the firewall that was recorded last.
    #[inline(always)]
    pub(crate) fn look_up_to_jump<'p, 'b, 'r, P: Send + Sync>(
        &'r self,
        skb: &'p HookSkb<'r, PreRouting>,
        buf: &'b mut LookupBuf,
        passes: &'r RcuBoxArray<Learned<P>>,
        ruleset: Option<&'r Ruleset>,
    ) -> Option<LookedToJump<'p, 'b, 'r, T, U, P>> {
        // SAFETY: The array holds `Learned<P>`, which begin with their pass, and which are freed a
        // grace period after they were removed.
        let (result, trail) = unsafe { self.look_up_raw(skb, buf, passes.tree(), ruleset) }?;
        // INVARIANT: The passes were searched.
        let result = result.map(|found| FoundToJump {
            found,
            _buf: PhantomData,
            _passes: PhantomData,
        });
        Some(LookedToJump { result, trail })
    }

    /// Looks up a packet at ingress, in the default zone, and all that may keep it from jumping.
    /// `rulesets` are the firewalls of IPv4 and IPv6 that were recorded last. The packet's
    /// connection is found only if conntrack would do nothing unusual with the packet.
    #[inline(always)]
    pub(crate) fn look_up_at_ingress<'p, 'b, 'r, P: Send + Sync>(
        &'r self,
        skb: &'p HookSkb<'r, Ingress>,
        buf: &'b mut LookupBuf,
        passes: &'r RcuBoxArray<Learned<P>>,
        rulesets: [Option<&'r Ruleset>; 2],
    ) -> LookedAtIngress<'p, 'b, 'r, T, U, P> {
        let raw = NonNull::from(&mut buf.0).cast::<bindings::nfzr_lookup>();
        let rulesets = rulesets.map(|ruleset| ruleset.map_or(ptr::null_mut(), Ruleset::as_raw));
        // SAFETY: As in `look_up_raw`; the packet is at the ingress of its device.
        let looked = unsafe {
            bindings::nfzr_helper_ingress(
                skb.as_raw(),
                skb.state(),
                self.tree(),
                passes.tree(),
                rulesets.as_ptr(),
                raw.as_ptr(),
            )
        };
        match looked {
            // INVARIANT: The lookup found an entry, searched the passes, and took a reference for
            // us.
            bindings::nfzr_ingress::NFZR_INGRESS_FOUND => LookedAtIngress::Found(FoundToJump {
                found: Found {
                    raw,
                    skb,
                    _zones: PhantomData,
                },
                _buf: PhantomData,
                _passes: PhantomData,
            }),
            bindings::nfzr_ingress::NFZR_INGRESS_STAYS => LookedAtIngress::Stays,
            bindings::nfzr_ingress::NFZR_INGRESS_OTHER => LookedAtIngress::Other,
        }
    }
}
