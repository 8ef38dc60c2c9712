// SPDX-License-Identifier: GPL-2.0

//! State for each network namespace.
//!
//! A netns goes in steps: `pre_exit` of everybody, one RCU grace period, `exit` of everybody. The
//! adapter adds an `rcu_barrier()` between the state's own `exit` and its drop, so that whatever
//! `exit` handed to RCU is freed when the state is.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use core::{
    cell::UnsafeCell,
    mem::{offset_of, size_of},
    ptr, //
};

use kernel::{
    error::{from_result, to_result},
    fmt,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        rcu::rcu_barrier,
        Arc, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        net::device::Device,
        nf::hook::Family,
        sync::rcu::ReadSide, //
    },
};

/// A `struct net`, borrowed.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

// SAFETY: A `struct net` is used by all CPUs; what is read of it here is made for that.
unsafe impl Sync for Net {}

impl Net {
    /// # Safety
    ///
    /// `net` is valid for `'a`.
    pub(in crate::kapi) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // CAST: `Net` is transparent over `struct net`.
        // SAFETY: By the function's requirement.
        unsafe { &*net.cast() }
    }

    pub(in crate::kapi) fn as_raw(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// Whether conntrack is so full here that it will soon drop unassured connections early. What
    /// it drops makes no room while somebody holds a reference on it. Any context.
    pub(crate) fn is_conntrack_scarce(&self) -> bool {
        // SAFETY: A `&Net` is valid.
        unsafe { bindings::nfzr_helper_ct_scarce(self.as_raw()) }
    }

    /// Whether conntrack looks at the packets of a family that come in. Any context.
    pub(crate) fn is_tracking(&self, family: Family, _rcu: &ReadSide<'_>) -> bool {
        // CAST: It is a small number.
        let pf = family.as_raw() as u8;
        // SAFETY: A `&Net` is valid, and this is under RCU.
        unsafe { bindings::nfzr_helper_ct_is_on(self.as_raw(), pf) }
    }

    /// The name of the device with an index, if there is one now.
    pub(crate) fn ifname(&self, ifindex: u32, _rcu: &ReadSide<'_>) -> Option<IfName> {
        let mut name = [0; bindings::IFNAMSIZ as usize];
        // SAFETY: Under RCU; `name` has the size that the helper writes.
        let found = unsafe {
            bindings::nfzr_helper_ifname(self.as_raw(), ifindex, name.as_mut_ptr().cast())
        };
        found.then_some(IfName(name))
    }
}

/// A copy of a device's name. Shown with what could break a line of /proc replaced by `?`.
pub(crate) struct IfName([u8; bindings::IFNAMSIZ as usize]);

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.iter().take_while(|&&byte| byte != 0) {
            let shown = if byte.is_ascii_graphic() { byte } else { b'?' };
            core::fmt::Write::write_char(f, char::from(shown))?;
        }
        Ok(())
    }
}

/// A netns that is being set up.
///
/// What is made from it belongs into the [`PerNet`] value that `init` returns, and so goes before
/// the netns does.
pub(crate) struct Init<'a>(&'a Net);

impl Init<'_> {
    pub(crate) fn net(&self) -> &Net {
        self.0
    }
}

/// Evidence of being in `pre_exit`: a grace period passes before the [`PerNet`] value's `exit`.
pub(crate) struct PreExit(());

/// The state of a netns.
pub(crate) trait PerNet: Sized + Send + Sync + 'static {
    /// What the states of all netns share.
    type Shared: Send + Sync + 'static;

    /// Where the subsystem lives; a `static` of the implementer.
    fn subsys() -> &'static Subsys<Self>;

    /// Sets up a netns, also each that exists at registration. Process context.
    fn init(init: &Init<'_>, shared: &Arc<Self::Shared>) -> Result<KBox<Self>>;

    /// Makes the state unreachable for packets. Process context.
    fn pre_exit(&self, cx: &PreExit);

    /// Gives up what packets that were on their way during `pre_exit` left; none are any more.
    /// `rcu_barrier()` and the drop follow. Process context.
    fn exit(&self);
}

/// What a netns keeps of its state: the owner, and what readers find.
///
/// # Invariants
///
/// `owner` is null, or from `KBox::into_raw` and dropped a grace period after `pre_exit`; `shown` is
/// null or the same, and null from `pre_exit` on.
#[repr(C)]
struct Place<T> {
    owner: *mut T,
    shown: Atomic<*mut T>,
}

/// A pernet subsystem, to be kept in a `static`.
///
/// # Invariants
///
/// `shared` is `Some` while the operations are registered, and only written while they are not.
pub(crate) struct Subsys<T: PerNet> {
    ops: Opaque<bindings::pernet_operations>,
    id: UnsafeCell<c_uint>,
    shared: UnsafeCell<Option<Arc<T::Shared>>>,
    registered: Atomic<bool>,
}

// SAFETY: `ops` and `id` are the C side's, which locks; `shared` is covered by the invariant.
unsafe impl<T: PerNet> Sync for Subsys<T> {}

impl<T: PerNet> Subsys<T> {
    /// Not registered.
    pub(crate) const fn new() -> Self {
        Self {
            ops: Opaque::uninit(),
            id: UnsafeCell::new(0),
            shared: UnsafeCell::new(None),
            registered: Atomic::new(false),
        }
    }

    /// Sets up every netns, now and to come. Process context; sleeps.
    pub(crate) fn register(&'static self, shared: Arc<T::Shared>) -> Result<Registration<T>> {
        if self.registered.xchg(true, Full) {
            return Err(EBUSY);
        }
        // INVARIANT: Not registered yet.
        // SAFETY: `registered` went from false to true here, so nobody else is at it.
        unsafe { *self.shared.get() = Some(shared) };
        let ops = bindings::pernet_operations {
            init: Some(Self::init),
            pre_exit: Some(Self::pre_exit),
            exit_batch: Some(Self::exit_batch),
            id: self.id.get(),
            // All zero is a valid `Place`. The state's own memory is ours.
            size: size_of::<Place<T>>(),
            ..Default::default()
        };
        // SAFETY: As above, and the memory is valid for it.
        unsafe { self.ops.get().write(ops) };
        // SAFETY: `self` is static, so `ops` and `id` stay.
        let result = to_result(unsafe { bindings::register_pernet_subsys(self.ops.get()) });
        if let Err(err) = result {
            self.reset();
            return Err(err);
        }
        Ok(Registration(self))
    }

    /// Drops what `register` kept.
    fn reset(&self) {
        // SAFETY: The operations are not registered, and `registered` still keeps others out.
        drop(unsafe { (*self.shared.get()).take() });
        self.registered.store(false, Relaxed);
    }

    /// What a netns keeps of its state.
    ///
    /// # Safety
    ///
    /// `net` is valid and the operations are registered.
    unsafe fn place(&self, net: *const bindings::net) -> *mut Place<T> {
        // SAFETY: The id was assigned before the first netns was set up.
        let id = unsafe { *self.id.get() };
        // SAFETY: By the function's requirement.
        unsafe { bindings::nfzr_helper_net_generic(net, id) }.cast()
    }

    /// The state of the netns of a device that something happens to.
    ///
    /// `None` while the netns has none: at registration its devices are there earlier.
    pub(in crate::kapi) fn of_device<'a>(&self, device: &Device<'a>) -> Option<&'a T> {
        // SAFETY: A `Device` is in its netns under RTNL, and notifiers exist only while the
        // operations are registered.
        let place = unsafe { self.place(device.net()) };
        if place.is_null() {
            return None;
        }
        // SAFETY: The netns' own place, written before anybody is told of its devices.
        let owner = unsafe { (*place).owner };
        // SAFETY: By the type invariant, and dropped in `exit_batch`, which runs when the netns has
        // no devices any more.
        unsafe { owner.as_ref() }
    }

    /// The state of a netns that something happens to; `None` while it has none, or is going.
    ///
    /// # Safety
    ///
    /// `net` is valid for `'r`, and the operations are registered.
    pub(in crate::kapi) unsafe fn of_net<'r>(
        &self,
        net: *const bindings::net,
        _rcu: &ReadSide<'r>,
    ) -> Option<&'r T> {
        // SAFETY: By the function's requirement.
        let place = unsafe { self.place(net) };
        if place.is_null() {
            return None;
        }
        // ORDERING: Acquire, of the store in `init`.
        // SAFETY: The netns' own place, which goes after every subsystem's exit: whatever could tell of
        // the netns (devices, neighbours, sysctls) is gone by then.
        let shown = unsafe { &(*place).shown }.load(Acquire);
        // SAFETY: By the type invariant of a `Place`, and a grace period is longer than `'r`.
        unsafe { shown.as_ref() }
    }

    /// # Safety
    ///
    /// Called by the netns core for our operations.
    unsafe extern "C" fn init(net: *mut bindings::net) -> c_int {
        let subsys = T::subsys();
        from_result(|| {
            // SAFETY: The operations are registered, so by the type invariant nobody writes it.
            let shared = unsafe { &*subsys.shared.get() }.as_ref().ok_or(EINVAL)?;
            // SAFETY: The core hands us a valid netns.
            let init = Init(unsafe { Net::from_raw(net) });
            let state = KBox::into_raw(T::init(&init, shared)?);
            // SAFETY: As above.
            let place = unsafe { subsys.place(net) };
            // INVARIANT: Both are the new state.
            // SAFETY: The netns' own place for it, where only readers of `shown` may be.
            unsafe { (*place).owner = state };
            // ORDERING: Release, to `of_net`.
            // SAFETY: As above.
            unsafe { &(*place).shown }.store(state, Release);
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the netns core for our operations.
    unsafe extern "C" fn pre_exit(net: *mut bindings::net) {
        // SAFETY: The core hands us a valid netns.
        let place = unsafe { T::subsys().place(net) };
        // SAFETY: The netns' own place.
        unsafe { &(*place).shown }.store(ptr::null_mut(), Relaxed);
        // SAFETY: As above.
        let owner = unsafe { (*place).owner };
        // SAFETY: Null or what `init` put there.
        if let Some(state) = unsafe { owner.as_ref() } {
            state.pre_exit(&PreExit(()));
        }
    }

    /// # Safety
    ///
    /// Called by the netns core for our operations, a grace period after `pre_exit`.
    unsafe extern "C" fn exit_batch(list: *mut bindings::list_head) {
        let each = |with: &mut dyn FnMut(*mut Place<T>)| {
            // SAFETY: The list is valid, and nobody changes it meanwhile.
            let mut head = unsafe { (*list).next };
            while !ptr::eq(head, list) {
                // SAFETY: Every element is the `exit_list` of a netns.
                let net = unsafe {
                    head.byte_sub(offset_of!(bindings::net, exit_list))
                        .cast::<bindings::net>()
                };
                // SAFETY: A valid netns.
                with(unsafe { T::subsys().place(net) });
                // SAFETY: As above.
                head = unsafe { (*head).next };
            }
        };
        each(&mut |place| {
            // SAFETY: The netns' own place.
            let owner = unsafe { (*place).owner };
            // SAFETY: Null or what `init` put there.
            if let Some(state) = unsafe { owner.as_ref() } {
                state.exit();
            }
        });
        rcu_barrier();
        each(&mut |place| {
            // SAFETY: The netns' own place; nobody looks there any more.
            let owner = unsafe { core::mem::replace(&mut (*place).owner, ptr::null_mut()) };
            if !owner.is_null() {
                // SAFETY: From `KBox::into_raw` in `init`.
                drop(unsafe { KBox::from_raw(owner) });
            }
        });
    }
}

/// The states of all netns; dropping it takes them down. Process context; sleeps.
pub(crate) struct Registration<T: PerNet>(&'static Subsys<T>);

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered in `Subsys::register`, and this is the only owner.
        unsafe { bindings::unregister_pernet_subsys(self.0.ops.get()) };
        self.0.reset();
    }
}
