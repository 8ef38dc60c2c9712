// SPDX-License-Identifier: GPL-2.0

//! State for each network namespace.
//!
//! A netns is torn down in steps: `pre_exit` of all subsystems, one RCU grace period, `exit` of all
//! subsystems. The adapter adds an `rcu_barrier()` between the state's own `exit` and its drop.
//! Objects that `exit` handed to RCU are therefore freed by the time that the state is.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use core::{
    cell::UnsafeCell,
    mem::{offset_of, size_of},
    ops::Deref,
    ptr::{self, NonNull}, //
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
        sync::rcu::ReadSide, //
    },
};

/// A borrowed `struct net`.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

// SAFETY: A `struct net` is used by all CPUs, and the fields read here allow that.
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

    /// Returns the number that `lsns` shows, and `ls -l /proc/PID/ns/net`.
    pub(crate) fn inum(&self) -> u32 {
        // SAFETY: A `&Net` is valid, and the number does not change.
        unsafe { (*self.as_raw()).ns.inum }
    }

    /// Returns the name of the device with this index, if the device exists now.
    pub(crate) fn ifname(&self, ifindex: u32, _rcu: &ReadSide<'_>) -> Option<IfName> {
        let mut name = [0; bindings::IFNAMSIZ as usize];
        // SAFETY: This is under RCU, and `name` has the size that the helper writes.
        let found = unsafe {
            bindings::nfzr_helper_ifname(self.as_raw(), ifindex, name.as_mut_ptr().cast())
        };
        found.then_some(IfName(name))
    }
}

/// A copy of a device's name. When shown, bytes that could break a line of /proc are replaced by
/// `?`.
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
/// Objects made from it belong in the [`PerNet`] value that `init` returns, and so are dropped
/// before the netns is freed.
pub(crate) struct Init<'a>(&'a Net);

impl Init<'_> {
    /// Returns the netns, for objects that become part of the [`PerNet`] value.
    pub(crate) fn net(&self) -> NetHandle {
        // INVARIANT: The netns of this `Init`.
        NetHandle(NonNull::from(self.0).cast())
    }
}

/// The netns of a [`PerNet`] value, for objects that are part of that value.
///
/// # Invariants
///
/// `0` is the netns that an [`Init`] was made for. The netns is freed after its `PerNet` value is
/// dropped, and so after every owner of a handle.
#[derive(Clone, Copy)]
pub(crate) struct NetHandle(NonNull<bindings::net>);

#[cfg(nfzr_kunit)]
impl NetHandle {
    /// # Safety
    ///
    /// `net` is never freed.
    pub(in crate::kapi) unsafe fn from_raw(net: *mut bindings::net) -> Self {
        // INVARIANT: By the function's requirement, valid for every owner.
        // SAFETY: By the function's requirement `net` is not null.
        Self(unsafe { NonNull::new_unchecked(net) })
    }
}

// SAFETY: The C side allows using a `struct net` from any thread.
unsafe impl Send for NetHandle {}
// SAFETY: As above.
unsafe impl Sync for NetHandle {}

impl Deref for NetHandle {
    type Target = Net;

    fn deref(&self) -> &Net {
        // SAFETY: By the type invariant the netns is valid while the handle's owner exists.
        unsafe { Net::from_raw(self.0.as_ptr()) }
    }
}

/// Evidence of being in `pre_exit`: a grace period passes before the [`PerNet`] value's `exit`.
pub(crate) struct PreExit(());

/// The state of a netns.
pub(crate) trait PerNet: Sized + Send + Sync + 'static {
    /// Data shared by the states of all netns.
    type Shared: Send + Sync + 'static;

    /// Returns the subsystem, a `static` of the implementer.
    fn subsys() -> &'static Subsys<Self>;

    /// Sets up a netns: each new one, and at registration each existing one. Process context.
    fn init(init: &Init<'_>, shared: &Arc<Self::Shared>) -> Result<KBox<Self>>;

    /// Makes the state unreachable for packets. Process context.
    fn pre_exit(&self, cx: &PreExit);

    /// Releases what packets in flight during `pre_exit` left behind. No packets are in flight any
    /// more. `rcu_barrier()` and the drop follow. Process context.
    fn exit(&self);
}

/// A netns' pointers to its state: one that owns it, and one that readers load.
///
/// # Invariants
///
/// `owner` is null, or from `KBox::into_raw` and dropped a grace period after `pre_exit`. `shown`
/// is null or equal to `owner`, and null from `pre_exit` on.
#[repr(C)]
struct NetSlot<T> {
    owner: *mut T,
    shown: Atomic<*mut T>,
}

/// A pernet subsystem, to be kept in a `static`.
///
/// # Invariants
///
/// `shared` is `Some` while the operations are registered, and written only while they are not.
pub(crate) struct Subsys<T: PerNet> {
    ops: Opaque<bindings::pernet_operations>,
    id: UnsafeCell<c_uint>,
    shared: UnsafeCell<Option<Arc<T::Shared>>>,
    registered: Atomic<bool>,
}

// SAFETY: `ops` and `id` are accessed by the C side, which locks; the invariant covers `shared`.
unsafe impl<T: PerNet> Sync for Subsys<T> {}

impl<T: PerNet> Subsys<T> {
    /// Creates a subsystem that is not registered.
    pub(crate) const fn new() -> Self {
        Self {
            ops: Opaque::uninit(),
            id: UnsafeCell::new(0),
            shared: UnsafeCell::new(None),
            registered: Atomic::new(false),
        }
    }

    /// Registers the subsystem and sets up every netns, existing and future. Process context;
    /// sleeps.
    pub(crate) fn register(&'static self, shared: Arc<T::Shared>) -> Result<PerNetRegistration<T>> {
        if self.registered.xchg(true, Full) {
            return Err(EBUSY);
        }
        // INVARIANT: The operations are not registered yet.
        // SAFETY: This call changed `registered` from false to true, so no other caller is here.
        unsafe { *self.shared.get() = Some(shared) };
        let ops = bindings::pernet_operations {
            init: Some(Self::init),
            pre_exit: Some(Self::pre_exit),
            exit_batch: Some(Self::exit_batch),
            id: self.id.get(),
            // All zero is a valid `NetSlot`. The state itself is allocated by us.
            size: size_of::<NetSlot<T>>(),
            ..Default::default()
        };
        // SAFETY: `registered` keeps other callers out, and the memory is valid for a write.
        unsafe { self.ops.get().write(ops) };
        // SAFETY: `self` is static, so `ops` and `id` stay valid.
        let result = to_result(unsafe { bindings::register_pernet_subsys(self.ops.get()) });
        if let Err(err) = result {
            self.reset();
            return Err(err);
        }
        Ok(PerNetRegistration(self))
    }

    /// Drops the data that `register` stored.
    fn reset(&self) {
        // SAFETY: No operations are registered, and `registered` still keeps other callers out.
        drop(unsafe { (*self.shared.get()).take() });
        self.registered.store(false, Relaxed);
    }

    /// Returns a netns' pointers to its state.
    ///
    /// # Safety
    ///
    /// `net` is valid and the operations are registered.
    unsafe fn slot(&self, net: *const bindings::net) -> *mut NetSlot<T> {
        // SAFETY: The id was assigned before the first netns was set up.
        let id = unsafe { *self.id.get() };
        // SAFETY: By the function's requirement.
        unsafe { bindings::nfzr_helper_net_generic(net, id) }.cast()
    }

    /// Returns the state of the netns of a device, during an event of that device.
    ///
    /// `None` while the netns has no state: at registration its devices exist before that.
    pub(in crate::kapi) fn of_device<'a>(&self, device: &Device<'a>) -> Option<&'a T> {
        // SAFETY: A `Device` stays in its netns under RTNL, and notifiers exist only while the
        // operations are registered.
        let slot = unsafe { self.slot(device.net()) };
        if slot.is_null() {
            return None;
        }
        // SAFETY: The netns' own slot, written before a notifier reports the netns' devices.
        let owner = unsafe { (*slot).owner };
        // SAFETY: By the type invariant of a `NetSlot`. The state is dropped in `exit_batch`, which
        // runs when the netns has no devices any more.
        unsafe { owner.as_ref() }
    }

    /// Returns the state of a netns during an event; `None` while it has no state, or is torn down.
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
        let slot = unsafe { self.slot(net) };
        if slot.is_null() {
            return None;
        }
        // ORDERING: Acquire, pairs with the store in `init`.
        // SAFETY: The netns' own slot, which is freed after every subsystem's exit. By then all
        // sources of its events (devices, neighbours, sysctls) are gone.
        let shown = unsafe { &(*slot).shown }.load(Acquire);
        // SAFETY: By the invariant of `NetSlot`: the grace period after `pre_exit` outlasts `'r`.
        unsafe { shown.as_ref() }
    }

    /// Returns the state of a netns that another owner keeps alive; `None` while it has no state.
    ///
    /// # Safety
    ///
    /// `net` stays alive for `'a`, and the operations stay registered.
    pub(in crate::kapi) unsafe fn of_living_net<'a>(
        &self,
        net: *const bindings::net,
    ) -> Option<&'a T> {
        // SAFETY: By the function's requirement.
        let slot = unsafe { self.slot(net) };
        if slot.is_null() {
            return None;
        }
        // ORDERING: Acquire, pairs with the store in `init`.
        // SAFETY: The netns' own slot.
        let shown = unsafe { &(*slot).shown }.load(Acquire);
        // SAFETY: By the invariant of `NetSlot`. `pre_exit` runs when the netns has no user any
        // more, or when the operations are unregistered.
        unsafe { shown.as_ref() }
    }

    /// # Safety
    ///
    /// Called by the netns core for our operations.
    unsafe extern "C" fn init(net: *mut bindings::net) -> c_int {
        let subsys = T::subsys();
        from_result(|| {
            // SAFETY: By the type invariant `shared` is not written while registered.
            let shared = unsafe { &*subsys.shared.get() }.as_ref().ok_or(EINVAL)?;
            // SAFETY: The core passes a valid netns.
            let init = Init(unsafe { Net::from_raw(net) });
            let state = KBox::into_raw(T::init(&init, shared)?);
            // SAFETY: The core passes a valid netns, and the operations are registered.
            let slot = unsafe { subsys.slot(net) };
            // INVARIANT: Both pointers are to the new state.
            // SAFETY: The netns' own slot, of which other threads can read only `shown`.
            unsafe { (*slot).owner = state };
            // ORDERING: Release, pairs with the load in `of_net`.
            // SAFETY: As above.
            unsafe { &(*slot).shown }.store(state, Release);
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the netns core for our operations.
    unsafe extern "C" fn pre_exit(net: *mut bindings::net) {
        // SAFETY: The core passes a valid netns.
        let slot = unsafe { T::subsys().slot(net) };
        // SAFETY: The netns' own slot.
        unsafe { &(*slot).shown }.store(ptr::null_mut(), Relaxed);
        // SAFETY: As above.
        let owner = unsafe { (*slot).owner };
        // SAFETY: Null, or the pointer that `init` stored.
        if let Some(state) = unsafe { owner.as_ref() } {
            state.pre_exit(&PreExit(()));
        }
    }

    /// # Safety
    ///
    /// Called by the netns core for our operations, a grace period after `pre_exit`.
    unsafe extern "C" fn exit_batch(list: *mut bindings::list_head) {
        let each = |with: &mut dyn FnMut(*mut NetSlot<T>)| {
            // SAFETY: The core passes a valid list and does not change it meanwhile.
            let mut head = unsafe { (*list).next };
            while !ptr::eq(head, list) {
                // SAFETY: Every element is the `exit_list` of a netns.
                let net = unsafe {
                    head.byte_sub(offset_of!(bindings::net, exit_list))
                        .cast::<bindings::net>()
                };
                // SAFETY: `net` is a valid netns, from the core's list.
                with(unsafe { T::subsys().slot(net) });
                // SAFETY: As above.
                head = unsafe { (*head).next };
            }
        };
        each(&mut |slot| {
            // SAFETY: The netns' own slot.
            let owner = unsafe { (*slot).owner };
            // SAFETY: Null, or the pointer that `init` stored.
            if let Some(state) = unsafe { owner.as_ref() } {
                state.exit();
            }
        });
        rcu_barrier();
        each(&mut |slot| {
            // SAFETY: The netns' own slot, which has no readers any more.
            let owner = unsafe { core::mem::replace(&mut (*slot).owner, ptr::null_mut()) };
            if !owner.is_null() {
                // SAFETY: From `KBox::into_raw` in `init`.
                drop(unsafe { KBox::from_raw(owner) });
            }
        });
    }
}

/// The registration of a [`Subsys`]. Dropping it tears down the states of all netns. Process
/// context; sleeps.
pub(crate) struct PerNetRegistration<T: PerNet>(&'static Subsys<T>);

impl<T: PerNet> Drop for PerNetRegistration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered in `Subsys::register`, and this is the only owner.
        unsafe { bindings::unregister_pernet_subsys(self.0.ops.get()) };
        self.0.reset();
    }
}
