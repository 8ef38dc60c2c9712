// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of this layer, and fixtures for the suites of the layers above: connections and
//! routes that are created without traffic.
//!
//! A failed assertion ends the test's thread without running destructors. Therefore no test asserts
//! while it holds a guard or a lock: it copies the values out first.
//!
//! Process context, in `init_net`.

mod array;
mod conntrack;
mod dst;
mod memory;
mod netns;
mod proc;
mod registry;
mod ruleset;
mod work;

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc,
        Completion, //
    },
};

use crate::{
    bindings,
    kapi::{
        net::{
            family::Family,
            netns::{Net, NetHandle}, //
        },
        nf::{
            conn::{Conn, CtRef, Dir},
            skb::{HookSkb, PreRouting},
            tcp::{Segment, Tracking}, //
        },
        sync::{
            percpu::{CounterSet, Counters},
            rcu::ReadSide,
            work::system_dfl, //
        },
    },
};

pub(crate) use dst::TestDst;

/// The counters of packets that are attached.
#[derive(Clone, Copy)]
struct Hits;

impl CounterSet for Hits {
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }
}

/// A counter of drops.
pub(crate) struct Drops(Atomic<i32>);

impl Drops {
    /// Allocates a counter at 0.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
    }

    /// Returns the number of drops so far.
    pub(crate) fn count(&self) -> i32 {
        self.0.load(Relaxed)
    }
}

/// A value that counts its drop.
pub(crate) struct Tracked {
    /// An arbitrary value, to identify the object.
    pub(crate) value: u32,
    drops: Arc<Drops>,
}

impl Tracked {
    /// Creates a value whose drop `drops` counts.
    pub(crate) fn new(value: u32, drops: &Arc<Drops>) -> Self {
        Self {
            value,
            drops: drops.clone(),
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.drops.0.add(1, Relaxed);
    }
}

/// Returns `init_net`.
pub(crate) fn init_net() -> &'static Net {
    // SAFETY: `init_net` is never freed.
    unsafe { Net::from_raw(bindings::nfzr_kunit_net()) }
}

/// Returns a handle of `init_net`.
pub(crate) fn init_net_handle() -> NetHandle {
    // SAFETY: `init_net` is never freed.
    unsafe { NetHandle::from_raw(bindings::nfzr_kunit_net()) }
}

/// The directions to which a connection's zone applies.
#[derive(Clone, Copy)]
pub(crate) enum ZoneDirs {
    /// The original direction only; the reply direction has zone 0.
    Original = 1,
    /// The reply direction only.
    Reply = 2,
    /// Both directions.
    Both = 3,
}

fn alloc_conn(number: u32, zone: u16, dirs: ZoneDirs, ext: bool) -> Result<ARef<Conn>> {
    // SAFETY: No requirements.
    let ct = unsafe { bindings::nfzr_kunit_ct(number, zone, dirs as u8, ext) };
    let ct = NonNull::new(ct).ok_or(ENOMEM)?;
    // SAFETY: The helper passes a reference to us, and `Conn` is transparent over `struct nf_conn`.
    Ok(unsafe { ARef::from_raw(ct.cast()) })
}

/// Allocates a connection with our extension; its tuple is unique to its number.
pub(crate) fn conn(number: u32, zone: u16, dirs: ZoneDirs) -> Result<ARef<Conn>> {
    alloc_conn(number, zone, dirs, true)
}

/// Allocates a connection without the extension.
pub(crate) fn conn_without_extension(number: u32) -> Result<ARef<Conn>> {
    alloc_conn(number, 0, ZoneDirs::Both, false)
}

/// Returns a connection as a packet in direction `dir` carries it. `handle` is the content of the
/// extension.
pub(crate) fn ct_ref(conn: &Conn, handle: Option<u64>, dir: Dir) -> CtRef<'_> {
    let raw = bindings::nfzr_ct_ref {
        ct: conn.as_raw(),
        handle: handle.unwrap_or_default(),
        ctinfo: match dir {
            Dir::Original => bindings::ip_conntrack_info_IP_CT_ESTABLISHED,
            Dir::Reply => bindings::ip_conntrack_info_IP_CT_ESTABLISHED_REPLY,
        },
        has_ext: handle.is_some(),
        confirmed: true,
        ..Default::default()
    };
    // SAFETY: Like a packet, the caller keeps the connection.
    unsafe { CtRef::from_raw(raw) }
}

/// Returns the number of references to a connection, including the caller's.
pub(crate) fn conn_refs(ct: &Conn) -> i32 {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_refs(ct.as_raw()) }
}

/// Makes a connection's timeout expire.
pub(crate) fn expire(ct: &Conn) {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_expire(ct.as_raw()) }
}

/// Returns the handle in a connection's extension.
pub(crate) fn handle_of(ct: &Conn) -> u64 {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_handle(ct.as_raw()) }
}

/// Writes into a connection's extension as another module might.
pub(crate) fn scribble(ct: &Conn, handle: u64) {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_scribble(ct.as_raw(), handle) }
}

/// An established TCP connection with replies, in conntrack's own table. Dropping it deletes it.
pub(crate) struct TcpConn(ARef<Conn>);

impl TcpConn {
    /// Creates a connection from the given source port.
    pub(crate) fn new(port: u16) -> Result<Self> {
        // SAFETY: No requirements.
        let ct = NonNull::new(unsafe { bindings::nfzr_kunit_tcp(port) }).ok_or(ENOMEM)?;
        // SAFETY: The helper passes a reference to us, and `Conn` is transparent over
        // `struct nf_conn`.
        Ok(Self(unsafe { ARef::from_raw(ct.cast()) }))
    }

    /// Replaces its TCP tracking state.
    pub(crate) fn set(&self, to: &Tracking) {
        // SAFETY: A `&Conn` is valid, and `Tracking` has the layout that the helper reads.
        unsafe { bindings::nfzr_kunit_tcp_set(self.as_raw(), core::ptr::from_ref(to).cast()) };
    }

    /// Sets and clears bits of its `status`.
    pub(crate) fn status(&self, set: usize, clear: usize) {
        // SAFETY: A `&Conn` is valid.
        unsafe { bindings::nfzr_kunit_ct_status(self.as_raw(), set, clear) };
    }
}

impl core::ops::Deref for TcpConn {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl Drop for TcpConn {
    fn drop(&mut self) {
        self.delete();
    }
}

/// A segment's options.
#[derive(Clone, Copy)]
pub(crate) enum Options {
    /// No options.
    None,
    /// Only the timestamp, at its usual place.
    TimeStamp,
    /// A selective acknowledgment (SACK).
    Sack,
    /// An option of another kind (MPTCP).
    Other,
    /// An option of another kind, and then a selective acknowledgment.
    OtherAndSack,
}

/// A packet that arrives at PRE_ROUTING.
pub(crate) struct TestPacket(NonNull<bindings::sk_buff>);

impl TestPacket {
    /// Builds a segment of a connection. `plain` follows from `options`; `segment.plain` is
    /// ignored.
    pub(crate) fn new(ct: &Conn, segment: &Segment, options: Options) -> Result<Self> {
        let probe = bindings::nfzr_probe {
            seq: segment.seq,
            ack: segment.ack,
            end: segment.end,
            win: segment.win,
            flags: segment.flags,
            ..Default::default()
        };
        // SAFETY: A `&Conn` is valid, and `probe` is a live local.
        let skb = unsafe {
            bindings::nfzr_kunit_segment(ct.as_raw(), segment.reply, &probe, options as u8)
        };
        Ok(Self(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    /// Calls `f` with the packet as a hook would, and returns its result.
    pub(crate) fn in_hook<R>(&self, f: impl FnOnce(&HookSkb<'_, PreRouting>) -> R) -> R {
        let guard = kernel::sync::rcu::read_lock();
        let rcu = ReadSide::of(&guard);
        // SAFETY: The helper returns a static `nf_hook_state`.
        let state = unsafe { &*bindings::nfzr_kunit_state() };
        // SAFETY: We own the packet, and the state is that of PRE_ROUTING for IPv4.
        f(&unsafe { HookSkb::from_raw(self.0, state, Family::Ipv4, rcu) })
    }

    /// Attaches it to a connection, as the lookup does.
    pub(crate) fn attach(&self, ct: ARef<Conn>, dir: Dir) {
        if let Ok(counters) = Counters::<Hits>::new() {
            let hits = counters.one(Hits);
            self.in_hook(|skb| skb.attach(ct, dir, 10_000, [hits; 2]));
        }
    }

    /// Lets a hook steal the packet. Returns the verdict, after the packet was freed.
    pub(crate) fn steal(self) -> u32 {
        let packet = core::mem::ManuallyDrop::new(self);
        let guard = kernel::sync::rcu::read_lock();
        let rcu = ReadSide::of(&guard);
        // SAFETY: The helper returns a static `nf_hook_state`.
        let state = unsafe { &*bindings::nfzr_kunit_state() };
        // SAFETY: As in `in_hook`. Nothing uses the packet after the hook.
        let skb = unsafe { HookSkb::from_raw(packet.0, state, Family::Ipv4, rcu) };
        let (stolen, verdict) = HookSkb::<'_, PreRouting>::steal(skb);
        drop(stolen);
        verdict.as_raw()
    }

    /// Passes it to conntrack.
    pub(crate) fn conntrack(&self) {
        // SAFETY: The packet is valid, and only we have it.
        unsafe { bindings::nfzr_kunit_conntrack(self.0.as_ptr()) };
    }
}

impl Drop for TestPacket {
    fn drop(&mut self) {
        // SAFETY: We own the packet.
        unsafe { bindings::nfzr_kunit_skb_free(self.0.as_ptr()) };
    }
}

/// Invalidates the IPv4 routes of `init_net`, as any change of them does.
pub(crate) fn routes_changed() {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_kunit_routes_changed() }
}

/// Announces a change of the multipath hash policy of `init_net`.
pub(crate) fn hash_policy_changes() {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_kunit_hash_policy_changes() }
}

/// Work that runs on another thread and can be waited for.
#[pin_data]
pub(crate) struct Job {
    #[pin]
    done: Completion,
}

impl Job {
    /// Runs `work` on another thread.
    pub(crate) fn start(work: impl FnOnce() + Send + 'static) -> Result<Arc<Self>> {
        let job = Arc::pin_init(
            pin_init!(Self {
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        let theirs = job.clone();
        system_dfl().try_spawn(GFP_KERNEL, move || {
            work();
            theirs.done.complete_all();
        })?;
        Ok(job)
    }

    /// Waits until the work has ended. Sleeps.
    pub(crate) fn wait(&self) {
        self.done.wait_for_completion();
    }
}
