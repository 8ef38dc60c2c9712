// SPDX-License-Identifier: GPL-2.0

//! The way of a packet: one file per hook, in packet order.
//!
//! ```text
//!     PRE_ROUTING
//!       -400  defragmentation
//!       -300  raw: the rules that choose a zone
//!       -201  lookup   attaches the packet to its connection
//!       -200  conntrack, unless lookup attached the packet
//!       -150  mangle
//!       -100  DNAT
//!        MAX  learn    counts the packets of a connection without a flow
//!             serve    attaches the route of a flow, or renews it or stages another one
//!             routing, unless serve attached a route
//!     FORWARD
//!          0  filter
//!     POST_ROUTING (and LOCAL_IN, up to confirm)
//!        100  SNAT
//!      MAX-2  limit    checks the limit of a new connection's zone
//!        MAX  conntrack's confirm
//!             commit   creates the flow, or makes the staged route the live one
//! ```
//!
//! Where packets may jump, [`jump`] has hooks of its own in place of lookup, serve and commit; in
//! verify mode, [`verify`] has. See there.
//!
//! All hooks run in softirq, or in process context with bottom halves on, always under RCU.
//! They accept every packet, except for one that jumps, which they send, and a new connection over
//! the limit of its zone. A packet in doubt takes the kernel's own path.
//!
//! Which hooks are registered depends on the mode of the netns: no hook tests a mode.

pub(crate) mod commit;
pub(crate) mod ingress;
pub(crate) mod jump;
pub(crate) mod learn;
pub(crate) mod limit;
pub(crate) mod lookup;
mod observe;
pub(crate) mod serve;
pub(crate) mod verify;
