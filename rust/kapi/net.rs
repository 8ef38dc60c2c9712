// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use kernel::{
    fmt,
    types::Opaque, //
};

use crate::{
    bindings,
    kapi::{hook::Family, rcu::ReadSide}, //
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
    pub(super) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // CAST: `Net` is transparent over `struct net`.
        // SAFETY: By the function's requirement.
        unsafe { &*net.cast() }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::net {
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
