// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks of a network namespace.
//!
//! `nf_unregister_net_hook()` does not wait for running hooks. A registration is therefore ended in
//! the netns' `pre_exit` and dropped after the grace period that follows.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use core::marker::PhantomData;

use kernel::{
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow,
        Mutex, //
    },
};

use crate::{
    bindings,
    kapi::{
        net::netns::{Init, PreExit},
        nf::packet::SkBuff,
        sync::rcu::ReadSide, //
    },
};

/// The protocol whose packets a hook sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both families.
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    pub(in crate::kapi) const fn as_raw(self) -> u32 {
        match self {
            Self::Ipv4 => bindings::NFPROTO_IPV4,
            Self::Ipv6 => bindings::NFPROTO_IPV6,
        }
    }
}

/// The position of a hook in the stack: `enum nf_inet_hooks`.
#[derive(Clone, Copy)]
pub(crate) enum Inet {
    /// Before routing.
    PreRouting,
    /// After routing, for packets to another host.
    Forward,
    /// Before the packet leaves.
    PostRouting,
}

impl Inet {
    const fn as_raw(self) -> u32 {
        match self {
            Self::PreRouting => bindings::nf_inet_hooks_NF_INET_PRE_ROUTING,
            Self::Forward => bindings::nf_inet_hooks_NF_INET_FORWARD,
            Self::PostRouting => bindings::nf_inet_hooks_NF_INET_POST_ROUTING,
        }
    }
}

/// The decision about a packet.
pub(crate) enum Verdict {
    /// The packet continues.
    Accept,
    /// The packet is dropped.
    Drop,
}

/// Reference priorities of hooks: `enum nf_ip_hook_priorities`, with the same values for IPv6.
pub(crate) mod priority {
    /// `NF_IP_PRI_FIRST`.
    pub(crate) const FIRST: i32 = i32::MIN;
    /// `NF_IP_PRI_CONNTRACK`.
    pub(crate) const CONNTRACK: i32 = -200;
    /// `NF_IP_PRI_LAST`.
    pub(crate) const LAST: i32 = i32::MAX;
}

/// The state of a hook call: `struct nf_hook_state`, with the proof that the call is under RCU.
pub(crate) struct State<'r> {
    raw: &'r bindings::nf_hook_state,
    /// Known at build time, because each family has its own hook function.
    family: Family,
    rcu: ReadSide<'r>,
}

impl<'r> State<'r> {
    /// # Safety
    ///
    /// `raw` is valid for `'r`, in a hook of that family or an equivalent context.
    #[inline(always)]
    pub(in crate::kapi) unsafe fn from_raw(
        raw: *const bindings::nf_hook_state,
        family: Family,
        rcu: ReadSide<'r>,
    ) -> Self {
        Self {
            // SAFETY: By the function's requirement.
            raw: unsafe { &*raw },
            family,
            rcu,
        }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *const bindings::nf_hook_state {
        self.raw
    }

    /// Returns the protocol of the packet.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Returns the read side that the hook is called in.
    pub(crate) fn rcu(&self) -> &ReadSide<'r> {
        &self.rcu
    }
}

/// A hook: its data, its position and its function.
pub(crate) trait Hook {
    /// The data that every call gets, shared by all CPUs.
    type Data: Send + Sync + 'static;

    /// The hook point.
    const POINT: Inet;

    /// The priority. Hooks of a point run in ascending order. Among equal priorities, the hook that
    /// was registered last runs first.
    const PRIORITY: i32;

    /// Decides about a packet. Softirq, or process context with bottom halves on; under RCU; must
    /// not sleep.
    fn hook(data: ArcBorrow<'_, Self::Data>, skb: &SkBuff, state: &State<'_>) -> Verdict;
}

/// The status of a registration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    /// The hook is not registered.
    Off,
    /// The hook is registered.
    On,
    /// The hook was unregistered for good; a grace period passes before the registration is
    /// dropped.
    Ended,
}

/// A hook's operations, and their registration status.
///
/// # Invariants
///
/// `ops` is registered while the status is [`Status::On`]. After it is unregistered, `ops` and
/// `data` stay for a grace period.
#[pin_data]
struct Inner<T> {
    ops: bindings::nf_hook_ops,
    net: *mut bindings::net,
    #[pin]
    status: Mutex<Status>,
    data: Arc<T>,
}

/// A hook of a netns.
pub(crate) struct Registration<H: Hook> {
    inner: Pin<KBox<Inner<H::Data>>>,
    _hook: PhantomData<H>,
}

// SAFETY: The C side allows (un)registering from any thread, and `data` may be sent and shared.
unsafe impl<H: Hook> Send for Registration<H> {}
// SAFETY: The mutex serialises all operations of a shared reference.
unsafe impl<H: Hook> Sync for Registration<H> {}

impl<H: Hook> Registration<H> {
    /// Creates a hook, not yet registered, in a netns that is being set up. Process context.
    pub(crate) fn new(init: &Init<'_>, family: Family, data: Arc<H::Data>) -> Result<Self> {
        let ops = bindings::nf_hook_ops {
            hook: Some(match family {
                Family::Ipv4 => Self::call::<false>,
                Family::Ipv6 => Self::call::<true>,
            }),
            priv_: Arc::as_ptr(&data).cast_mut().cast(),
            // CAST: The protocol family is a small number.
            pf: family.as_raw() as u8,
            hooknum: H::POINT.as_raw(),
            priority: H::PRIORITY,
            ..Default::default()
        };
        let net = init.net().as_raw();
        let inner = KBox::pin_init(
            pin_init!(Inner {
                ops,
                net,
                status <- new_mutex!(Status::Off, "kapi::hook::Registration"),
                data,
            }),
            GFP_KERNEL,
        )?;
        // INVARIANT: The status is off; `set` and `drop` uphold the rest.
        Ok(Self {
            inner,
            _hook: PhantomData,
        })
    }

    /// Registers or unregisters the hook, unless the registration has ended. After unregistering,
    /// packets may still be in the hook for a moment. Process context.
    pub(crate) fn set(&self, on: bool) -> Result {
        let mut status = self.inner.status.lock();
        match (*status, on) {
            (Status::Off, true) => {
                // SAFETY: The netns outlives objects made from its `Init`, and `ops` is boxed, so
                // it does not move.
                to_result(unsafe {
                    bindings::nf_register_net_hook(self.inner.net, &self.inner.ops)
                })?;
                // INVARIANT: Registered above.
                *status = Status::On;
            }
            (Status::On, false) => self.unregister_as(&mut status, Status::Off),
            _ => (),
        }
        Ok(())
    }

    /// Ends the registration. Packets may still be in the hook. None is left when `self` is
    /// dropped, because `PreExit` promises a grace period before that. Process context.
    pub(crate) fn unregister(&self, _cx: &PreExit) {
        let mut status = self.inner.status.lock();
        self.unregister_as(&mut status, Status::Ended);
    }

    fn unregister_as(&self, status: &mut Status, new: Status) {
        if *status == Status::On {
            // SAFETY: By the type invariant `ops` is registered, and the netns outlives objects
            // made from its `Init`.
            unsafe { bindings::nf_unregister_net_hook(self.inner.net, &self.inner.ops) };
        }
        *status = new;
    }

    /// The `nf_hookfn`.
    ///
    /// # Safety
    ///
    /// Called by netfilter for `ops` of a registration of that family, under RCU.
    unsafe extern "C" fn call<const SIX: bool>(
        data: *mut c_void,
        skb: *mut bindings::sk_buff,
        state: *const bindings::nf_hook_state,
    ) -> c_uint {
        // SAFETY: `data` is the registration's `Arc`, which by the type invariant lives until no
        // call of the hook runs any more.
        let data = unsafe { ArcBorrow::from_raw(data.cast::<H::Data>()) };
        // SAFETY: Netfilter hands the packet to one hook at a time.
        let skb = unsafe { SkBuff::from_raw(skb) };
        // SAFETY: Netfilter calls hooks under `rcu_read_lock()`.
        let rcu = unsafe { ReadSide::assume_held() };
        let family = if SIX { Family::Ipv6 } else { Family::Ipv4 };
        // SAFETY: `state` is valid for the call, and of this family by the function's requirement.
        let state = unsafe { State::from_raw(state, family, rcu) };
        match H::hook(data, skb, &state) {
            Verdict::Accept => bindings::NF_ACCEPT,
            Verdict::Drop => bindings::NF_DROP,
        }
    }
}

impl<H: Hook> Drop for Registration<H> {
    fn drop(&mut self) {
        let mut status = self.inner.status.lock();
        if *status != Status::Ended {
            // `pre_exit` did not run: an `init` failed half-way.
            self.unregister_as(&mut status, Status::Ended);
            synchronize_rcu();
        }
    }
}
