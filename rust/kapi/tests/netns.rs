// SPDX-License-Identifier: GPL-2.0

//! Per-netns state, and what registers with a netns: device events, files and hooks. Of hooks, only
//! registration and unregistration are tested here.

use core::ptr::NonNull;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        ArcBorrow,
        Mutex, //
    }, //
};

use super::{
    hash_policy_changes,
    init_net,
    proc::{self, Row},
    Drops,
    Tracked, //
};
use crate::{
    bindings,
    kapi::{
        fs::proc::Directory,
        mem::array::RcuArray,
        net::{
            device::{Device, DeviceEvent},
            netns::{Init, PerNet, PerNetRegistration, PreExit, Subsys},
            notifier::{NetEvent, NetListener, Notifier}, //
        },
        nf::{
            hook::{Hook, HookSet},
            skb::{HookSkb, PreRouting, Verdict}, //
        },
    },
};

/// Shared by the test's per-netns states: counters of their callbacks, and rows for the files.
#[pin_data]
pub(super) struct World {
    pub(super) init: Atomic<i32>,
    pre_exit: Atomic<i32>,
    exit: Atomic<i32>,
    /// The number of netns that may still be set up; a further one fails.
    allowed: Atomic<i32>,
    down: Atomic<i32>,
    changed: Atomic<i32>,
    unregistered: Atomic<i32>,
    /// The device whose events are counted.
    ifindex: Atomic<u32>,
    hash_policies: Atomic<i32>,
    _tracked: Tracked,
    #[pin]
    pub(super) rows: RcuArray<Row>,
}

impl World {
    pub(super) fn new(allowed: i32, drops: &Arc<Drops>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                init: Atomic::new(0),
                pre_exit: Atomic::new(0),
                exit: Atomic::new(0),
                allowed: Atomic::new(allowed),
                down: Atomic::new(0),
                changed: Atomic::new(0),
                unregistered: Atomic::new(0),
                ifindex: Atomic::new(0),
                hash_policies: Atomic::new(0),
                _tracked: Tracked::new(0, drops),
                rows <- RcuArray::new(),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn add_row(&self, number: u32) -> Result {
        self.rows
            .insert(number, Arc::new(Row::new(number), GFP_KERNEL)?)
            .map_err(|(err, _)| err)
    }

    fn counts(&self) -> [i32; 3] {
        [&self.init, &self.pre_exit, &self.exit].map(|count| count.load(Relaxed))
    }

    fn events(&self) -> [i32; 3] {
        [&self.down, &self.changed, &self.unregistered].map(|count| count.load(Relaxed))
    }
}

/// The state of a netns.
pub(super) struct TestNs {
    world: Arc<World>,
    /// Ended in `pre_exit`.
    hooks: Option<Pin<KBox<Mutex<HookSet<World>>>>>,
    _files: Option<Directory<World>>,
}

static SUBSYS: Subsys<TestNs> = Subsys::new();

impl PerNet for TestNs {
    type Shared = World;

    fn subsys() -> &'static Subsys<Self> {
        &SUBSYS
    }

    fn init(init: &Init<'_>, world: &Arc<World>) -> Result<KBox<Self>> {
        if world.allowed.fetch_add(-1, Relaxed) <= 0 {
            return Err(ENOBUFS);
        }
        world.init.add(1, Relaxed);
        // Only `init_net` gets the files and the hook.
        let first = core::ptr::eq(init.net().as_raw(), init_net().as_raw());
        let files = if first {
            Some(proc::files(init, world)?)
        } else {
            None
        };
        let hooks = if first {
            let mut hooks = HookSet::new(init.net(), world.clone());
            hooks.add::<Pass>(0)?;
            // The id is taken: nothing happens.
            hooks.add::<Pass>(0)?;
            hooks.add::<Pass>(1)?;
            hooks.retain(|id| id == 1);
            Some(KBox::pin_init(
                new_mutex!(hooks, "kapi::tests::hooks"),
                GFP_KERNEL,
            )?)
        } else {
            None
        };
        Ok(KBox::new(
            Self {
                world: world.clone(),
                hooks,
                _files: files,
            },
            GFP_KERNEL,
        )?)
    }

    fn pre_exit(&self, cx: &PreExit) {
        if let Some(hooks) = &self.hooks {
            hooks.lock().end(cx);
        }
        self.world.pre_exit.add(1, Relaxed);
    }

    fn exit(&self) {
        self.world.exit.add(1, Relaxed);
    }
}

impl NetListener for TestNs {
    fn device(&self, event: DeviceEvent, device: &Device<'_>) {
        if device.ifindex() != self.world.ifindex.load(Relaxed) {
            return;
        }
        let count = match event {
            DeviceEvent::Down => &self.world.down,
            DeviceEvent::ChangeAddr => &self.world.changed,
            DeviceEvent::Unregister => &self.world.unregistered,
            _ => return,
        };
        count.add(1, Relaxed);
    }

    fn address(&self) {}

    fn netfilter_socket_closed(&self) {}

    fn net_event(&self, event: NetEvent) {
        if event == NetEvent::HashPolicy {
            self.world.hash_policies.add(1, Relaxed);
        }
    }
}

/// A hook that lets packets pass.
struct Pass;

impl Hook for Pass {
    type Data = World;
    type Point = PreRouting;

    const PRIORITY: i32 = 0;

    fn hook(_: ArcBorrow<'_, World>, skb: HookSkb<'_, PreRouting>) -> Verdict {
        skb.accept()
    }
}

/// A device in `init_net`.
struct TestDevice(NonNull<bindings::net_device>);

impl TestDevice {
    fn new() -> Result<Self> {
        // SAFETY: No requirements.
        Ok(Self(
            NonNull::new(unsafe { bindings::nfzr_kunit_dev() }).ok_or(ENOMEM)?,
        ))
    }

    fn ifindex(&self) -> u32 {
        // SAFETY: The device is registered until `self` is dropped.
        unsafe { bindings::nfzr_helper_dev_ifindex(self.0.as_ptr()) }.unsigned_abs()
    }

    fn up_and_down(&self) {
        // SAFETY: The device is registered until `self` is dropped.
        unsafe { bindings::nfzr_kunit_dev_up_and_down(self.0.as_ptr()) };
    }

    fn announce(&self, event: u32) {
        // SAFETY: The device is registered until `self` is dropped.
        unsafe { bindings::nfzr_kunit_dev_event(self.0.as_ptr(), event) };
    }
}

impl Drop for TestDevice {
    fn drop(&mut self) {
        // SAFETY: The device is registered, and we own it.
        unsafe { bindings::nfzr_kunit_dev_free(self.0.as_ptr()) };
    }
}

pub(super) const ANY: i32 = i32::MAX;

pub(super) fn register(world: &Arc<World>) -> Result<PerNetRegistration<TestNs>> {
    SUBSYS.register(world.clone())
}

#[kunit_tests(nfzr_kapi_pernet)]
mod pernet_cases {
    use super::*;

    #[test]
    fn every_netns_is_set_up_and_taken_down() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        let up = world.counts();
        drop(states);
        let down = world.counts();
        drop(world);
        let [netns, ..] = up;
        assert!(netns >= 1);
        assert_eq!(up, [netns, 0, 0]);
        assert_eq!(down, [netns, netns, netns]);
        assert_eq!(drops.count(), 1);
        Ok(())
    }

    #[test]
    fn a_set_up_that_fails_leaves_nothing() -> Result {
        let drops = Drops::new()?;
        let world = World::new(0, &drops)?;
        let failed = register(&world).err();
        drop(world);
        let world = World::new(ANY, &drops)?;
        let again = register(&world).is_ok();
        drop(world);
        assert_eq!(failed, Some(ENOBUFS));
        assert!(again);
        assert_eq!(drops.count(), 2);
        Ok(())
    }

    #[test]
    fn it_is_registered_once() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        let again = register(&world).err();
        let kept = world.counts();
        drop(states);
        drop(world);
        assert_eq!(again, Some(EBUSY));
        assert_eq!([kept[1], kept[2]], [0, 0]);
        assert_eq!(drops.count(), 1);
        Ok(())
    }
}

#[kunit_tests(nfzr_kapi_notifier)]
mod notifier_cases {
    use super::*;

    #[test]
    fn events_come_to_the_state_of_the_devices_netns() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let notifier = Notifier::<TestNs>::new(register(&world)?)?;
        let device = TestDevice::new()?;
        world.ifindex.store(device.ifindex(), Relaxed);
        let before = world.events();
        device.up_and_down();
        let down = world.events();
        device.announce(bindings::netdev_cmd_NETDEV_CHANGEADDR);
        let changed = world.events();
        device.announce(bindings::netdev_cmd_NETDEV_CHANGEMTU);
        let ignored = world.events();
        drop(device);
        let gone = world.events();
        drop(notifier);
        assert_eq!(before, [0, 0, 0]);
        assert_eq!(down, [1, 0, 0]);
        assert_eq!(changed, [1, 1, 0]);
        assert_eq!(ignored, changed);
        assert_eq!(gone, [1, 1, 1]);
        Ok(())
    }

    #[test]
    fn net_events_come_to_the_state_of_their_netns() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let notifier = Notifier::<TestNs>::new(register(&world)?)?;
        let told = || world.hash_policies.load(Relaxed);
        let before = told();
        hash_policy_changes();
        let during = told();
        drop(notifier);
        hash_policy_changes();
        let later = told();
        assert_eq!((before, during, later), (0, 1, 1));
        Ok(())
    }

    #[test]
    fn a_notifier_that_goes_takes_no_device_for_gone() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let notifier = Notifier::<TestNs>::new(register(&world)?)?;
        let device = TestDevice::new()?;
        world.ifindex.store(device.ifindex(), Relaxed);
        drop(notifier);
        let told = world.events();
        drop(device);
        let later = world.events();
        drop(world);
        assert_eq!(told, [0, 0, 0]);
        assert_eq!(later, [0, 0, 0]);
        assert_eq!(drops.count(), 1);
        Ok(())
    }
}
