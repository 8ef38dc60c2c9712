// SPDX-License-Identifier: GPL-2.0

//! The validity of a netns' cached routes.
//!
//! Every change that may change a route is announced here, partly before it takes effect. Each
//! announcement increments the generation. A [`Stamp`] of an older generation is not valid any
//! more, unless the [`reach`](crate::state::reach) of all later changes is known to leave its route
//! out. What a stamp cannot know, the kernel's own check of the route ([`Dst::is_valid`]) does:
//! when a change of a route or rule is done, the kernel bumps its genids, so that a route which was
//! looked up between announcement and effect is not served afterwards.
//!
//! Changes of nexthop objects are the exception. They bump no genid, so no route is kept from the
//! announcement until the change has taken effect: the routes are *unsettled*.
//!
//! [`Stamp`]: crate::route::stamp::Stamp
//! [`Dst::is_valid`]: crate::kapi::net::dst::Dst::is_valid

use kernel::{
    prelude::*,
    sync::atomic::{Acquire, Atomic, Relaxed, Release}, //
};

use crate::{
    kapi::{
        net::{
            device::DeviceEvent,
            family::Family,
            fib::{FibChange, GatewaySet},
            netns::NetHandle,
            prefix::Prefix, //
        },
        sync::{lock::SpinLockBh, once::ReadOnce, time}, //
    },
    route::{
        miss::Miss,
        stamp::Facts, //
    },
    state::{
        reach::{ChangeMap, Reach},
        stats::Event, //
    },
};

/// A change that may change a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A route, a rule or a nexthop object.
    Fib(FibChange),
    /// An address was added or deleted.
    Address,
    /// An event of a device.
    Device(DeviceEvent),
    /// The state of a neighbour that routes depend on, or an IPv4 redirect.
    Neighbour,
    /// An IPv6 redirect.
    Redirect,
    /// The packet fields by which nexthops are chosen.
    HashPolicy,
}

impl Change {
    /// Returns the counter of the change.
    pub(crate) fn event(self) -> Event {
        match self {
            Self::Fib(FibChange::Prefix(_) | FibChange::Route(_)) => Event::RouteChange,
            Self::Fib(FibChange::Rule(_)) => Event::RuleChange,
            Self::Fib(FibChange::Nexthop | FibChange::Bucket) => Event::NexthopChange,
            Self::Address => Event::AddressChange,
            Self::Device(DeviceEvent::Up) => Event::DeviceUp,
            Self::Device(DeviceEvent::Down) => Event::DeviceDown,
            Self::Device(DeviceEvent::Unregister) => Event::DeviceUnregister,
            Self::Device(DeviceEvent::ChangeAddr) => Event::DeviceChangeAddr,
            Self::Device(DeviceEvent::ChangeUpper) => Event::DeviceChangeUpper,
            Self::Device(DeviceEvent::ChangeName) => Event::DeviceChangeName,
            Self::Device(DeviceEvent::Change) => Event::DeviceChange,
            Self::Neighbour => Event::NeighbourChange,
            Self::Redirect => Event::Redirect,
            Self::HashPolicy => Event::HashChange,
        }
    }

    /// Returns the reason for which a packet misses after the change.
    fn cause(self) -> Miss {
        match self {
            Self::Fib(FibChange::Prefix(_) | FibChange::Route(_)) => Miss::RouteChanged,
            Self::Fib(FibChange::Rule(_)) => Miss::RuleChanged,
            Self::Fib(FibChange::Nexthop | FibChange::Bucket) => Miss::NexthopChanged,
            Self::Address => Miss::AddressChanged,
            Self::Device(_) => Miss::DeviceChanged,
            Self::Neighbour => Miss::NeighbourChanged,
            Self::Redirect => Miss::Redirected,
            Self::HashPolicy => Miss::HashChanged,
        }
    }

    /// Returns what the change may have changed.
    fn reach(self) -> Reach {
        match self {
            Self::Fib(FibChange::Prefix(prefix)) => Reach::Prefix(prefix),
            Self::Fib(FibChange::Route(family) | FibChange::Rule(family)) => Reach::Family(family),
            _ => Reach::All,
        }
    }

    /// Returns whether the change is of a nexthop object, and so unsettles the routes.
    pub(crate) fn unsettles(self) -> bool {
        matches!(self, Self::Fib(FibChange::Nexthop | FibChange::Bucket))
    }
}

/// The validity of a netns' cached routes.
#[pin_data]
pub(crate) struct Validity {
    /// The number of changes that were announced or settled.
    generation: Atomic<u32>,
    /// The kind of the last change: a [`Miss`].
    cause: Atomic<i8>,
    /// What the changes may have changed.
    pub(super) changes: ChangeMap,
    /// Held while a change is noted.
    #[pin]
    noting: SpinLockBh<()>,
    /// How many changes of nexthop objects were announced.
    announced: Atomic<i32>,
    /// How many of these have certainly taken effect.
    settled: Atomic<i32>,
    /// Whether changes of buckets may be among those that have not.
    moving: Atomic<bool>,
    /// The gateways of nexthop groups, whose neighbours affect routes.
    gateways: GatewaySet,
    /// Whether a route or rule with a DSCP was ever announced, for each family.
    dscp: [Atomic<bool>; 2],
}

impl Validity {
    /// Creates the validity of a netns in which nothing has changed yet. Process context.
    pub(crate) fn new(net: NetHandle) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            generation: Atomic::new(0),
            cause: Atomic::new(Miss::Empty.as_raw()),
            changes: ChangeMap::new(net)?,
            noting <- SpinLockBh::new(
                (),
                c"state::validity",
                kernel::static_lock_class!(),
            ),
            announced: Atomic::new(0),
            settled: Atomic::new(0),
            moving: Atomic::new(false),
            gateways: GatewaySet::new(net),
            dscp: [const { Atomic::new(false) }; 2],
        })
    }

    /// Invalidates the stamps of all routes that the change may have changed. If the change
    /// unsettles the routes, [`Self::settle`] must be called later. Any context.
    pub(crate) fn announce(&self, change: Change) {
        if change.unsettles() {
            if change == Change::Fib(FibChange::Bucket) {
                self.moving.store(true, Relaxed);
            }
            // ORDERING: Release, pairs with `settle`. The store of the generation below is a
            // release too: a CPU that sees the new generation sees that the routes are unsettled.
            self.announced.fetch_add(1, Release);
        }
        self.note(|generation| {
            self.cause.store(change.cause().as_raw(), Relaxed);
            self.changes.note(change.reach(), generation);
        });
    }

    /// Notes that the DSCP decides about the routes of a family, from the change on that is
    /// announced right after this call. Any context.
    pub(crate) fn note_dscp(&self, family: Family) {
        if let Some(dscp) = self.dscp.get(family.index()) {
            dscp.store(true, Relaxed);
        }
    }

    /// Returns whether the DSCP has no part in the choice of a family's routes, as of the facts
    /// that were read before this call.
    pub(crate) fn is_any_dscp(&self, family: Family) -> bool {
        // ORDERING: Relaxed: `facts` acquired what was noted before the last change.
        let dscp = self.dscp.get(family.index());
        dscp.is_some_and(|dscp| !dscp.load(Relaxed))
    }

    /// Notes that a route of IPv4 was set, after the kernel has bumped its genid for it if it is
    /// new. `prefix` is `None` if it may have changed the routes between other addresses, too.
    /// Under RTNL.
    pub(crate) fn route_set(&self, prefix: Option<Prefix>, is_new: bool) {
        self.note(|generation| {
            self.cause.store(Miss::RouteChanged.as_raw(), Relaxed);
            self.changes.note_set(prefix, is_new, generation);
        });
    }

    /// Notes a change with the next generation, and publishes that.
    fn note(&self, note: impl FnOnce(u32)) {
        let _noting = self.noting.lock();
        let generation = self.generation.load(Relaxed).wrapping_add(1);
        note(generation);
        // ORDERING: Release, pairs with `facts`.
        self.generation.store(generation, Release);
    }

    /// Returns the facts that stamps are checked against. To be called before a lookup.
    #[inline(always)]
    pub(crate) fn facts(&self, max_age: u32) -> Facts {
        Facts {
            jiffies: time::jiffies32(),
            // ORDERING: Acquire, pairs with `note`: a lookup that follows sees the state in which
            // the change was announced, and `ChangeMap::spare` sees that it was.
            generation: self.generation.read_acquire(),
            cause: self.cause.read_once(),
            max_age,
        }
    }

    /// Returns whether no change of a nexthop object is in progress. To be called after a lookup.
    pub(crate) fn is_settled(&self) -> bool {
        // ORDERING: Acquire, pairs with `settle`: a CPU that sees the routes settled sees the new
        // generation.
        self.settled.load(Acquire) == self.announced.load(Relaxed)
    }

    /// Waits until all changes of nexthop objects that were announced before have taken effect.
    /// Process context without RTNL; sleeps.
    pub(crate) fn settle(&self) {
        // ORDERING: Acquire, pairs with `announce`: a change that is seen as announced is seen as
        // one of a bucket.
        let announced = self.announced.load(Acquire);
        self.gateways.settle(self.moving.xchg(false, Relaxed));
        self.note(|generation| self.changes.note(Reach::All, generation));
        // ORDERING: Release, pairs with `is_settled`.
        self.settled.store(announced, Release);
    }

    /// Returns whether the neighbour with this bit may be the gateway of a nexthop group. Any
    /// context.
    pub(crate) fn may_be_gateway(&self, bit: u32) -> bool {
        self.gateways.may_have(bit)
    }
}
