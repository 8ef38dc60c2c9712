// SPDX-License-Identifier: GPL-2.0

//! Per-netns state, and what registers with a netns: device events, files and hooks. Of hooks, only
//! registration and unregistration are tested here.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        ArcBorrow, //
    }, //
};

use super::{hash_policy_changes, init_net, Drops, Tracked};
use crate::{
    bindings,
    kapi::{
        fs::proc,
        mem::array::RcuArray,
        net::{
            device::{self, Device},
            netns::{Init, PerNet, PreExit, Registration, Subsys},
            notifier::{Listener, NetEvent, Notifier}, //
        },
        nf::{
            hook::{self, Family, Hook, Inet, State, Verdict},
            packet::SkBuff, //
        },
        sync::rcu::ReadSide, //
    },
};

/// Shared by the test's per-netns states: counters of their callbacks, and rows for the files.
#[pin_data]
struct World {
    init: Atomic<i32>,
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
    rows: RcuArray<Row>,
}

impl World {
    fn new(allowed: i32, drops: &Arc<Drops>) -> Result<Arc<Self>> {
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

    fn add_row(&self, number: u32) -> Result {
        self.rows
            .insert(number, Arc::new(Row(number), GFP_KERNEL)?)
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
struct TestNs {
    world: Arc<World>,
    hook: Option<hook::Registration<Pass>>,
    _files: Option<proc::Dir<World>>,
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
            let dir = proc::Dir::new(init, c"nfzr_kunit", world.clone())?;
            dir.rows::<Rows>(c"rows")?;
            dir.text::<Text>(c"text")?;
            Some(dir)
        } else {
            None
        };
        let hook = if first {
            let hook = hook::Registration::new(init, Family::Ipv4, world.clone())?;
            hook.set(true)?;
            Some(hook)
        } else {
            None
        };
        Ok(KBox::new(
            Self {
                world: world.clone(),
                hook,
                _files: files,
            },
            GFP_KERNEL,
        )?)
    }

    fn pre_exit(&self, cx: &PreExit) {
        if let Some(hook) = &self.hook {
            hook.unregister(cx);
        }
        self.world.pre_exit.add(1, Relaxed);
    }

    fn exit(&self) {
        self.world.exit.add(1, Relaxed);
    }
}

impl Listener for TestNs {
    fn device(&self, event: device::Event, device: &Device<'_>) {
        if device.ifindex() != self.world.ifindex.load(Relaxed) {
            return;
        }
        let count = match event {
            device::Event::Down => &self.world.down,
            device::Event::ChangeAddr => &self.world.changed,
            device::Event::Unregister => &self.world.unregistered,
            _ => return,
        };
        count.add(1, Relaxed);
    }

    fn address(&self) {}

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

    const POINT: Inet = Inet::PreRouting;
    const PRIORITY: i32 = 0;

    fn hook(_: ArcBorrow<'_, World>, _: &SkBuff, _: &State<'_>) -> Verdict {
        Verdict::Accept
    }
}

struct Row(u32);

struct Rows;

impl proc::Rows for Rows {
    type Data = World;
    type Row = Row;

    fn find<'r>(world: &'r World, from: u32, rcu: &ReadSide<'r>) -> Option<(u32, &'r Row)> {
        world.rows.next(from, rcu)
    }

    fn show(_: &World, row: &Row, to: &SeqFile, _: &ReadSide<'_>) {
        seq_print!(to, "row {:>59}\n", row.0);
    }
}

struct Text;

impl proc::Text for Text {
    type Data = World;

    fn show(world: &World, to: &SeqFile) {
        let set_up = world.init.load(Relaxed) != 0;
        seq_print!(to, "set up: {set_up}\n");
    }
}

/// An open file.
struct File(NonNull<bindings::file>);

impl File {
    fn open(path: &CStr) -> Option<Self> {
        // SAFETY: A `CStr` is NUL-terminated.
        NonNull::new(unsafe { bindings::nfzr_kunit_open(path.as_char_ptr()) }).map(Self)
    }

    /// Reads from the current position; returns the number of bytes.
    fn read(&self, buf: &mut [u8]) -> Result<usize> {
        // SAFETY: The file is open, and `buf` is writable for `buf.len()` bytes.
        let len = unsafe {
            bindings::nfzr_kunit_read(self.0.as_ptr(), buf.as_mut_ptr().cast(), buf.len())
        };
        usize::try_from(len).map_err(|_| EIO)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: The file is open, and we own it.
        unsafe { bindings::nfzr_kunit_close(self.0.as_ptr()) };
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

const ANY: i32 = i32::MAX;

fn register(world: &Arc<World>) -> Result<Registration<TestNs>> {
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

#[kunit_tests(nfzr_kapi_proc_fs)]
mod proc_cases {
    use super::*;

    /// The number of times that each row was shown.
    struct Seen([u8; 1024]);

    impl Seen {
        /// Counts the rows in a piece of the file, which consists of whole lines of 64 bytes.
        fn add(&mut self, text: &[u8]) -> Result {
            for line in text.chunks(64) {
                let number = line
                    .iter()
                    .filter(|byte| byte.is_ascii_digit())
                    .fold(0usize, |number, byte| {
                        number * 10 + usize::from(byte - b'0')
                    });
                *self.0.get_mut(number).ok_or(EINVAL)? += 1;
            }
            Ok(())
        }
    }

    #[test]
    fn rows_that_stay_are_shown_once_while_others_come_and_go() -> Result {
        const PIECE: usize = 1024;

        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        // The even rows stay.
        for number in (0..600).step_by(2) {
            world.add_row(number)?;
        }
        let mut seen = KBox::new(Seen([0; 1024]), GFP_KERNEL)?;
        let mut piece = KVec::from_elem(0u8, PIECE, GFP_KERNEL)?;
        let file = File::open(c"/proc/net/nfzr_kunit/rows").ok_or(ENOENT)?;
        let (mut round, mut pieces, mut went) = (1, 0, 0);
        loop {
            let len = file.read(&mut piece)?;
            if len == 0 {
                break;
            }
            seen.add(piece.get(..len).ok_or(EINVAL)?)?;
            pieces += 1;
            // Odd rows come and go, before and behind the reader's position: added in one round,
            // removed in the next.
            for number in [round, 600 - round] {
                world.add_row(number)?;
                if round > 1 {
                    let before = if number == round {
                        round - 2
                    } else {
                        602 - round
                    };
                    went += i32::from(world.rows.remove(before).is_some());
                }
            }
            round += 2;
        }
        drop(file);
        drop(states);
        let stayed = (0..600).step_by(2).all(|number| seen.0[number] == 1);
        let others = (1..600).step_by(2).all(|number| seen.0[number] <= 1);
        assert!(pieces > 10);
        assert_eq!(went, 2 * (pieces - 1));
        assert!(stayed);
        assert!(others);
        Ok(())
    }

    #[test]
    fn a_text_is_shown_whole() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        let mut text = [0; 64];
        let file = File::open(c"/proc/net/nfzr_kunit/text").ok_or(ENOENT)?;
        let len = file.read(&mut text)?;
        let end = file.read(&mut [0; 8])?;
        drop(file);
        drop(states);
        assert_eq!(text.get(..len), Some(b"set up: true\n".as_slice()));
        assert_eq!(end, 0);
        Ok(())
    }

    #[test]
    fn the_files_go_with_their_directory() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        let there = File::open(c"/proc/net/nfzr_kunit/text").is_some();
        drop(states);
        let gone = File::open(c"/proc/net/nfzr_kunit/text").is_none();
        drop(world);
        assert!(there);
        assert!(gone);
        assert_eq!(drops.count(), 1);
        Ok(())
    }
}
