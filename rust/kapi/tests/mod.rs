// SPDX-License-Identifier: GPL-2.0

//! KUnit suites of this layer, and what the suites of the layers above need: connections and routes
//! that no traffic made.
//!
//! A failed assertion ends the test's thread without destructors. So nothing is asserted while a
//! guard or a lock is held: what is to be asserted is copied out first.
//!
//! Process context, in the first netns.

mod conntrack;
mod memory;
mod netns;
mod registry;
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
            dst::Dst,
            netns::Net, //
        },
        nf::{
            conn::Conn,
            hook::{Family, State},
            packet::{Route, SkBuff},
            tcp::{Segment, Tracking}, //
        },
        sync::rcu::ReadSide, //
    },
};

/// How often something was dropped.
pub(crate) struct Drops(Atomic<i32>);

impl Drops {
    /// Never.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
    }

    /// How often until now.
    pub(crate) fn count(&self) -> i32 {
        self.0.load(Relaxed)
    }
}

/// A value that counts its drop.
pub(crate) struct Tracked {
    /// Anything, to be looked at.
    pub(crate) value: u32,
    drops: Arc<Drops>,
}

impl Tracked {
    /// A value, and where its drop is counted.
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

/// The first netns.
pub(crate) fn init_net() -> &'static Net {
    // SAFETY: The first netns is there for ever.
    unsafe { Net::from_raw(bindings::nfzr_kunit_net()) }
}

/// The directions in which a connection's zone counts.
#[derive(Clone, Copy)]
pub(crate) enum ZoneDirs {
    /// The original one; the other has zone 0.
    Original = 1,
    /// The reply.
    Reply = 2,
    /// Both.
    Both = 3,
}

fn alloc_conn(number: u32, zone: u16, dirs: ZoneDirs, ext: bool) -> Result<ARef<Conn>> {
    // SAFETY: No requirements.
    let ct = unsafe { bindings::nfzr_kunit_ct(number, zone, dirs as u8, ext) };
    let ct = NonNull::new(ct).ok_or(ENOMEM)?;
    // SAFETY: The helper's reference is ours, and `Conn` is transparent over `struct nf_conn`.
    Ok(unsafe { ARef::from_raw(ct.cast()) })
}

/// A connection with our extension, unlike any with another number.
pub(crate) fn conn(number: u32, zone: u16, dirs: ZoneDirs) -> Result<ARef<Conn>> {
    alloc_conn(number, zone, dirs, true)
}

/// The same without the extension.
pub(crate) fn conn_without_extension(number: u32) -> Result<ARef<Conn>> {
    alloc_conn(number, 0, ZoneDirs::Both, false)
}

/// References on a connection, the asker's included.
pub(crate) fn conn_refs(ct: &Conn) -> i32 {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_refs(ct.as_raw()) }
}

/// Ends a connection's time.
pub(crate) fn expire(ct: &Conn) {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_expire(ct.as_raw()) }
}

/// What a connection's extension holds.
pub(crate) fn handle_of(ct: &Conn) -> u64 {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_handle(ct.as_raw()) }
}

/// Writes into a connection's extension as somebody else might.
pub(crate) fn scribble(ct: &Conn, handle: u64) {
    // SAFETY: A `&Conn` is valid.
    unsafe { bindings::nfzr_kunit_ct_scribble(ct.as_raw(), handle) }
}

/// A TCP connection that conntrack itself finds, established and answered; dropping it deletes it.
pub(crate) struct TcpConn(ARef<Conn>);

impl TcpConn {
    /// One from this port.
    pub(crate) fn new(port: u16) -> Result<Self> {
        // SAFETY: No requirements.
        let ct = NonNull::new(unsafe { bindings::nfzr_kunit_tcp(port) }).ok_or(ENOMEM)?;
        // SAFETY: The helper's reference is ours, and `Conn` is transparent over `struct nf_conn`.
        Ok(Self(unsafe { ARef::from_raw(ct.cast()) }))
    }

    /// Gives it another past.
    pub(crate) fn set(&self, to: &Tracking) {
        // SAFETY: A `&Conn` is valid, and the layouts are the same.
        unsafe { bindings::nfzr_kunit_tcp_set(self.as_raw(), core::ptr::from_ref(to).cast()) };
    }

    /// Sets and clears bits of its status.
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
    /// None.
    None,
    /// The time stamp alone, where it is expected.
    TimeStamp,
    /// A selective acknowledgment.
    Sack,
}

/// A packet that comes to PRE_ROUTING.
pub(crate) struct TestPacket(NonNull<bindings::sk_buff>);

impl TestPacket {
    /// A segment of a connection. Its options decide about `plain`.
    pub(crate) fn new(ct: &Conn, segment: &Segment, options: Options) -> Result<Self> {
        let probe = bindings::nfzr_probe {
            seq: segment.seq,
            ack: segment.ack,
            end: segment.end,
            win: segment.win,
            flags: segment.flags,
            ..Default::default()
        };
        // SAFETY: A `&Conn` is valid, and so is `probe`.
        let skb = unsafe {
            bindings::nfzr_kunit_segment(ct.as_raw(), segment.reply, &probe, options as u8)
        };
        Ok(Self(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    /// What `f` makes of it in a hook.
    pub(crate) fn in_hook<R>(&self, f: impl FnOnce(&SkBuff, &State<'_>) -> R) -> R {
        let guard = kernel::sync::rcu::read_lock();
        let rcu = ReadSide::of(&guard);
        // SAFETY: Static.
        let state = unsafe { State::from_raw(bindings::nfzr_kunit_state(), Family::Ipv4, rcu) };
        // SAFETY: The packet is ours alone.
        f(unsafe { SkBuff::from_raw(self.0.as_ptr()) }, &state)
    }

    /// Has conntrack see it.
    pub(crate) fn conntrack(&self) {
        // SAFETY: The packet is ours alone.
        unsafe { bindings::nfzr_kunit_conntrack(self.0.as_ptr()) };
    }
}

impl Drop for TestPacket {
    fn drop(&mut self) {
        // SAFETY: The packet is ours.
        unsafe { bindings::nfzr_kunit_skb_free(self.0.as_ptr()) };
    }
}

/// As after any change of the first netns' IPv4 routes.
pub(crate) fn routes_changed() {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_kunit_routes_changed() }
}

/// As after the first netns chooses nexthops by other parts of a packet.
pub(crate) fn hash_policy_changes() {
    // SAFETY: No requirements.
    unsafe { bindings::nfzr_kunit_hash_policy_changes() }
}

/// A route, with a reference of the test's.
pub(crate) struct TestDst(NonNull<bindings::dst_entry>);

impl TestDst {
    /// A route over the loopback device, by a gateway if it has one.
    pub(crate) fn new(gateway: Option<[u8; 4]>) -> Result<Self> {
        let gateway = u32::from_ne_bytes(gateway.unwrap_or_default());
        // SAFETY: No requirements.
        let dst = unsafe { bindings::nfzr_kunit_dst(gateway) };
        Ok(Self(NonNull::new(dst).ok_or(ENOMEM)?))
    }

    /// References on it, the test's included.
    pub(crate) fn refs(&self) -> u32 {
        // SAFETY: Under our reference.
        unsafe { bindings::nfzr_kunit_dst_refs(self.0.as_ptr()) }
    }

    /// A further reference, as the module has it.
    pub(crate) fn hold(&self) -> Dst {
        // SAFETY: Under our reference.
        unsafe { bindings::nfzr_kunit_dst_hold(self.0.as_ptr()) };
        // SAFETY: An IPv4 route, whose new reference goes to the `Dst`.
        unsafe { Dst::from_raw(self.0, 0, false) }
    }

    /// The same as the kernel's choice for a packet.
    pub(crate) fn route(&self, oif: u32) -> Route {
        Route {
            dst: self.hold(),
            oif,
        }
    }

    /// As a packet has it.
    pub(crate) fn id(&self) -> crate::kapi::net::dst::DstId {
        crate::kapi::net::dst::DstId(self.0.as_ptr())
    }
}

impl Drop for TestDst {
    fn drop(&mut self) {
        // SAFETY: Our reference.
        unsafe { bindings::nfzr_helper_dst_put(self.0.as_ptr()) };
    }
}

/// Something that another thread does, to be waited for.
#[pin_data]
pub(crate) struct Job {
    #[pin]
    done: Completion,
}

impl Job {
    /// Has another thread run `work`.
    pub(crate) fn start(work: impl FnOnce() + Send + 'static) -> Result<Arc<Self>> {
        let job = Arc::pin_init(
            pin_init!(Self {
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        let theirs = job.clone();
        crate::kapi::sync::work::system_dfl().try_spawn(GFP_KERNEL, move || {
            work();
            theirs.done.complete_all();
        })?;
        Ok(job)
    }

    /// Until it has.
    pub(crate) fn wait(&self) {
        self.done.wait_for_completion();
    }
}
