// SPDX-License-Identifier: GPL-2.0

//! The messages of rtnetlink about IPv4 routes in a netns.
//!
//! The FIB notifier tells of a route only if it is the first of its prefix, and not whether it is a
//! new one. The messages tell both.
//!
//! C header: [`include/uapi/linux/rtnetlink.h`](srctree/include/uapi/linux/rtnetlink.h)

use core::ptr::NonNull;

use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::net::{netns::NetHandle, prefix::Prefix}, //
};

/// Receiver of messages about routes.
pub(crate) trait RouteListener: Send + Sync + 'static {
    /// Handles that an IPv4 route was set: added (`is_new`), after the kernel has bumped its genid
    /// for that, or replaced, before it may bump it. `prefix` is `None` if the route may matter to
    /// packets that are neither from nor to its prefix. Process context under RTNL; must not sleep.
    fn route_set(this: ArcBorrow<'_, Self>, prefix: Option<Prefix>, is_new: bool);
}

/// Returns a prefix that a helper wrote.
pub(in crate::kapi) fn prefix_of(raw: &bindings::nfzr_prefix) -> Prefix {
    Prefix {
        addr: raw.addr,
        len: raw.len,
    }
}

/// A socket of the kernel that receives the messages, and handles each before its sender goes on.
///
/// # Invariants
///
/// Only `Messages` uses `socket`, which calls `_ear` with `_listener`.
pub(in crate::kapi) struct Messages<T: RouteListener> {
    socket: NonNull<bindings::socket>,
    _ear: KBox<Opaque<bindings::nfzr_route_ear>>,
    _listener: Arc<T>,
}

impl<T: RouteListener> Messages<T> {
    /// Starts to receive the messages of a netns. Process context; sleeps.
    pub(in crate::kapi) fn new(net: NetHandle, listener: Arc<T>) -> Result<Self> {
        let ear = bindings::nfzr_route_ear {
            set: Some(Self::set),
            // CAST: The helper only passes it back.
            data: Arc::as_ptr(&listener).cast_mut().cast(),
            ..Default::default()
        };
        let ear = KBox::new(Opaque::new(ear), GFP_KERNEL)?;
        // SAFETY: The netns outlives its handles. `ear` is boxed, and lives until the socket is
        // released.
        let socket = unsafe { bindings::nfzr_helper_hear_routes(net.as_raw(), ear.get()) };
        // INVARIANT: The helper made the socket for `ear`, whose data is the listener.
        Ok(Self {
            socket: NonNull::new(from_err_ptr(socket)?).ok_or(ENOMEM)?,
            _ear: ear,
            _listener: listener,
        })
    }

    /// What the socket calls: `nfzr_route_ear.set`.
    ///
    /// # Safety
    ///
    /// `data` is the listener of a `Messages` whose socket is not released. `prefix` is null or a
    /// prefix.
    unsafe extern "C" fn set(
        data: *mut c_void,
        prefix: *const bindings::nfzr_prefix,
        is_new: bool,
    ) {
        // SAFETY: The `Messages` keeps the listener, and lives until after this call.
        let listener = unsafe { ArcBorrow::from_raw(data.cast_const().cast::<T>()) };
        // SAFETY: By the function's requirement.
        let prefix = unsafe { prefix.as_ref() }.map(prefix_of);
        T::route_set(listener, prefix, is_new);
    }
}

impl<T: RouteListener> Drop for Messages<T> {
    /// Stops receiving. The listener is not called after that. Process context, but not in a call
    /// of netlink's notifier chain; sleeps.
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is the only user of the socket.
        unsafe { bindings::sock_release(self.socket.as_ptr()) };
    }
}
