// SPDX-License-Identifier: GPL-2.0

//! Hooks at the ingress of devices.
//!
//! A hook at ingress switches a static key of the kernel, which costs every received packet of the
//! machine some 35 instructions. So devices get hooks only while there is a use for them.
//!
//! C header: [`include/linux/netfilter_netdev.h`](srctree/include/linux/netfilter_netdev.h)

use core::{marker::PhantomData, pin::Pin, ptr::NonNull};

use kernel::{
    error::{to_result, Error},
    prelude::*,
    sync::{
        rcu::synchronize_rcu,
        Arc,
        ArcBorrow, //
    },
    types::Opaque,
};

use crate::{
    bindings,
    kapi::{
        net::{
            family::Family,
            netns::{NetHandle, PreExit}, //
        },
        nf::skb::{HookSkb, Ingress, Verdict},
        sync::rcu::ReadSide, //
    },
};

/// A hook at ingress: its data and its function.
pub(crate) trait IngressHook {
    /// The data that every call gets, shared by all CPUs.
    type Data: Send + Sync + 'static;

    /// Decides about a packet. If the hook is not armed, all packets continue. Softirq; under RCU;
    /// must not sleep.
    fn hook(data: ArcBorrow<'_, Self::Data>, skb: HookSkb<'_, Ingress>, is_armed: bool) -> Verdict;
}

/// Calls a hook: the `nf_hookfn`.
///
/// # Safety
///
/// Called by netfilter with a `struct nfzr_device_hook` of a [`DeviceHooks<H>`].
unsafe extern "C" fn call<H: IngressHook>(
    hook: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    let hook = hook.cast::<bindings::nfzr_device_hook>();
    // SAFETY: The hook is freed a grace period after it was unregistered.
    let is_armed = unsafe { (&raw const (*hook).is_armed).cast::<u8>().read_volatile() } != 0;
    // SAFETY: The hook's data is the `Arc` of the `DeviceHooks`, which lives until no call runs any
    // more.
    let data = unsafe { ArcBorrow::from_raw((*hook).data.cast::<H::Data>()) };
    // SAFETY: Netfilter calls hooks under `rcu_read_lock()`.
    let rcu = unsafe { ReadSide::assume_held() };
    // SAFETY: Netfilter passes a packet, which is not null.
    let skb = unsafe { NonNull::new_unchecked(skb) };
    // SAFETY: The state is valid for the call.
    let state = unsafe { &*state };
    // SAFETY: Netfilter hands the packet to one hook at a time, at ingress. It may be shared, and
    // its family is not known yet: the lookup, which is all that is done with it first, asks about
    // both. Nothing else is offered for packets at this point.
    let skb = unsafe { HookSkb::from_raw(skb, state, Family::Ipv4, rcu) };
    H::hook(data, skb, is_armed).as_raw()
}

/// The hooks of a netns' devices, which share their data. A device that ends, or leaves the netns,
/// loses its hook.
///
/// # Invariants
///
/// `raw` is initialised, with the data of `data`, and not used any more if `ended`.
pub(crate) struct DeviceHooks<H: IngressHook> {
    raw: Pin<KBox<Opaque<bindings::nfzr_device_hooks>>>,
    _data: Arc<H::Data>,
    ended: bool,
    _hook: PhantomData<fn(H)>,
}

// SAFETY: The C side takes RTNL, and the data may be sent and shared.
unsafe impl<H: IngressHook> Send for DeviceHooks<H> {}

impl<H: IngressHook> DeviceHooks<H> {
    /// Creates an empty set. Process context without RTNL; sleeps.
    pub(crate) fn new(net: NetHandle, data: Arc<H::Data>) -> Result<Self> {
        let raw = KBox::pin(Opaque::uninit(), GFP_KERNEL)?;
        let priv_ = Arc::as_ptr(&data).cast_mut().cast();
        // SAFETY: The memory is pinned, and the netns outlives its handles. The data lives until a
        // grace period after the end.
        to_result(unsafe {
            bindings::nfzr_helper_device_hooks_init(raw.get(), net.as_raw(), Some(call::<H>), priv_)
        })?;
        // INVARIANT: Initialised above.
        Ok(Self {
            raw,
            _data: data,
            ended: false,
            _hook: PhantomData,
        })
    }

    /// Registers the hook of a device, unless it has it. Returns whether it was registered now:
    /// then it is not armed. Fails with `ENODEV` if there is no such device, and with `EBUSY` if
    /// another hook would come after it. Process context without RTNL; sleeps.
    pub(crate) fn add(&mut self, ifindex: u32) -> Result<bool> {
        if self.ended {
            return Err(ENODEV);
        }
        // SAFETY: By the type invariant.
        let added = unsafe { bindings::nfzr_helper_device_hook(self.raw.get(), ifindex) };
        match added {
            err if err < 0 => Err(Error::from_errno(err)),
            added => Ok(added != 0),
        }
    }

    /// Unregisters all hooks for good. Packets may still be in them. None is left when the set is
    /// dropped, because `PreExit` promises a grace period before that. Process context without
    /// RTNL; sleeps.
    pub(crate) fn end(&mut self, _cx: &PreExit) {
        if !self.ended {
            self.unregister();
            // INVARIANT: It is not used any more.
            self.ended = true;
        }
    }

    fn unregister(&mut self) {
        // SAFETY: By the type invariant it has not ended.
        unsafe { bindings::nfzr_helper_device_hooks_end(self.raw.get()) };
    }

    /// Waits until each packet that passed a device before it had its hook has left its batch, and
    /// arms all hooks. Process context without RTNL; sleeps.
    pub(crate) fn arm(&mut self) {
        synchronize_rcu();
        // SAFETY: By the type invariant.
        unsafe { bindings::nfzr_helper_device_hooks_arm(self.raw.get()) };
    }
}

impl<H: IngressHook> Drop for DeviceHooks<H> {
    /// Process context without RTNL; sleeps.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.unregister();
        // Packets may still be in the hooks, which use the data.
        synchronize_rcu();
    }
}
