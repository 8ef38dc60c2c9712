// SPDX-License-Identifier: GPL-2.0

//! Counts of conntrack entries, each of which has a seat: helpers/nf/seat.c says how.
//!
//! C header: [`nf_conntrack_core.h`](srctree/include/net/netfilter/nf_conntrack_core.h)

use core::ptr;

use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{
        net::netns::{Net, NetHandle},
        nf::{
            conn::{Conn, CtRef, Dir},
            skb::{HookSkb, LocalIn, PostRouting}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// Reason that a connection gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// All seats are taken.
    Full,
    /// No memory is available, or the table of seats is being rebuilt.
    Memory,
}

/// All seats of a netns.
///
/// # Invariants
///
/// `raw` is initialised for the netns of `net`.
#[pin_data(PinnedDrop)]
pub(crate) struct Seats {
    #[pin]
    raw: Opaque<bindings::nfzr_seats>,
    /// `raw` points to the netns too.
    net: NetHandle,
}

// SAFETY: The C side does its own locking.
unsafe impl Send for Seats {}
// SAFETY: As above.
unsafe impl Sync for Seats {}

impl Seats {
    /// Creates the seats of a netns, none of them taken. Process context.
    pub(crate) fn new(net: NetHandle) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Initialised here.
            raw <- Opaque::try_ffi_init(move |slot| {
                // SAFETY: `slot` is pinned and valid for the struct, and the netns outlives `net`.
                to_result(unsafe { bindings::nfzr_helper_seats_init(slot, net.as_raw()) })
            }),
            net,
        })
    }

    /// Returns the netns.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }
}

#[pinned_drop]
impl PinnedDrop for Seats {
    /// Process context.
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Each `SeatCount` has a reference on `self` until it has
        // removed its seats, so none are left.
        unsafe { bindings::nfzr_helper_seats_destroy(self.raw.get()) };
    }
}

/// The seats that count together.
///
/// # Invariants
///
/// `raw` is initialised, and `raw.all` is the memory of `all`.
#[pin_data(PinnedDrop)]
pub(crate) struct SeatCount {
    #[pin]
    raw: Opaque<bindings::nfzr_limit>,
    /// `raw` points there too.
    _all: Arc<Seats>,
}

// SAFETY: The C side does its own locking.
unsafe impl Send for SeatCount {}
// SAFETY: As above.
unsafe impl Sync for SeatCount {}

impl SeatCount {
    /// Creates an empty count.
    pub(crate) fn new(all: Arc<Seats>) -> impl PinInit<Self> {
        let seats = all.raw.get();
        pin_init!(Self {
            // INVARIANT: Initialised here.
            raw <- Opaque::ffi_init(move |slot| {
                // SAFETY: `slot` is pinned and valid for the struct, and `all` keeps `seats`.
                unsafe { bindings::nfzr_helper_limit_init(slot, seats) }
            }),
            _all: all,
        })
    }

    /// Returns how many seats are taken. Some of the connections may have ended. Any context.
    pub(crate) fn taken(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::nfzr_helper_limit_count(self.raw.get()) }
    }

    /// Takes a seat for a new connection if fewer than `max` are taken. If all are, looks for
    /// connections that have ended first. Any context, without locks.
    pub(crate) fn admit(
        &self,
        ct: &CtRef<'_>,
        max: u32,
        _rcu: &ReadSide<'_>,
    ) -> Result<(), NoSeat> {
        let ct = ct.conn().as_raw();
        // SAFETY: By the type invariant; a reference on a `&Conn` is held, and this is under RCU.
        let err = unsafe { bindings::nfzr_helper_limit_admit(self.raw.get(), ct, max) };
        if err == 0 {
            Ok(())
        } else if err == EDQUOT.to_errno() {
            Err(NoSeat::Full)
        } else {
            Err(NoSeat::Memory)
        }
    }

    /// Takes a seat for a connection that exists already, even if all are taken, unless it has one.
    /// Any context.
    pub(crate) fn seat(&self, conn: &Conn, _rcu: &ReadSide<'_>) -> Result<(), NoSeat> {
        let (raw, ct) = (self.raw.get(), conn.as_raw());
        // SAFETY: By the type invariant; a reference on a `&Conn` is held, and this is under RCU.
        if unsafe { bindings::nfzr_helper_limit_has_seat(raw, ct) } {
            return Ok(());
        }
        // SAFETY: As above.
        match unsafe { bindings::nfzr_helper_limit_take(raw, ct, u32::MAX) } {
            0 => Ok(()),
            _ => Err(NoSeat::Memory),
        }
    }

    /// Frees the seats of ended connections among `most`, those first that were looked at the
    /// longest time ago. Returns how many it looked at. Process context; lets other tasks run.
    pub(crate) fn collect(&self, most: u32) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::nfzr_helper_limit_collect(self.raw.get(), most) }
    }
}

#[pinned_drop]
impl PinnedDrop for SeatCount {
    /// Frees all seats. Process context; sleeps.
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, and `&mut self` excludes other users.
        unsafe { bindings::nfzr_helper_limit_end(self.raw.get()) };
    }
}

impl Net {
    /// Calls `f` with every connection that conntrack has in its hash table. Connections that come
    /// or go meanwhile may be left out. `f` must not sleep. Process context; sleeps.
    pub(crate) fn for_each_conn<F: FnMut(&Conn, &ReadSide<'_>)>(&self, mut f: F) {
        /// # Safety
        ///
        /// Called by the walk, with the context passed to it, for a connection in the hash table,
        /// under RCU and the lock of the connection's hash bucket.
        unsafe extern "C" fn visit<F: FnMut(&Conn, &ReadSide<'_>)>(
            context: *mut c_void,
            ct: *mut bindings::nf_conn,
        ) {
            // SAFETY: By the function's requirement.
            let rcu = unsafe { ReadSide::assume_held() };
            // SAFETY: Conntrack holds a reference on a connection in its hash table, where the
            // bucket's lock keeps it.
            let conn = unsafe { Conn::from_raw(ct) };
            // SAFETY: The context is the walk's own closure, which has no other user meanwhile.
            (unsafe { &mut *context.cast::<F>() })(conn, &rcu);
        }

        let context = ptr::from_mut(&mut f).cast();
        // SAFETY: A `&Net` is valid; `f` lives until the walk ends.
        unsafe { bindings::nfzr_helper_conn_walk(self.as_raw(), Some(visit::<F>), context) };
    }
}

/// A hook point at which conntrack confirms connections.
pub(crate) trait Confirms {}

impl Confirms for PostRouting {}
impl Confirms for LocalIn {}

impl<P: Confirms> HookSkb<'_, P> {
    /// Returns whether conntrack is about to confirm the packet's connection `ct`, if it is
    /// unconfirmed: not a packet about the connection, nor one that a VRF is going to send again.
    pub(crate) fn may_confirm(&self, ct: &CtRef<'_>) -> bool {
        // SAFETY: The state is valid as long as the packet.
        let comes_again = unsafe { bindings::nfzr_helper_in_vrf_postrouting(self.state()) };
        ct.dir() == Dir::Original && !comes_again
    }
}
