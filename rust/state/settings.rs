// SPDX-License-Identifier: GPL-2.0

//! The sysctls of a netns, and what is in force.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::kapi::{
    nf::{jump::Marks, track::is_tracking_verified},
    sync::{once::ReadOnce, time}, //
};

/// Where packets may jump: sysctl `jump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Jumping {
    /// Nowhere.
    No = 0,
    /// In the hook before conntrack.
    BeforeConntrack = 1,
    /// At the ingress of devices too.
    AtIngress = 2,
}

impl Jumping {
    const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::No,
            1 => Self::BeforeConntrack,
            _ => Self::AtIngress,
        }
    }
}

/// What a netns does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Off,
    /// Packets are looked up in their zone's table, and their routes are cached, as the two say.
    On {
        /// sysctl `zone_lookup`.
        lookup: bool,
        /// sysctl `route_cache`.
        routes: bool,
        /// Where packets may jump, if the other two are set.
        jumps: Jumping,
    },
    /// No packet is changed. Predictions are compared with what the kernel does.
    Verify {
        /// sysctl `route_cache`.
        routes: bool,
        /// Whether jumps are predicted: sysctl `jump`.
        jumps: bool,
    },
}

impl Mode {
    /// Returns whether flows are kept.
    pub(crate) fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Returns whether routes are cached.
    pub(crate) fn caches_routes(self) -> bool {
        match self {
            Self::Off => false,
            Self::On { routes, .. } | Self::Verify { routes, .. } => routes,
        }
    }

    /// Returns the same without cached routes.
    pub(crate) fn without_routes(self) -> Self {
        match self {
            Self::Off => self,
            Self::On { lookup, .. } => Self::On {
                lookup,
                routes: false,
                jumps: Jumping::No,
            },
            Self::Verify { .. } => Self::Verify {
                routes: false,
                jumps: false,
            },
        }
    }

    /// Returns the same without jumps.
    pub(crate) fn without_jumps(self) -> Self {
        match self {
            Self::On { lookup, routes, .. } => Self::On {
                lookup,
                routes,
                jumps: Jumping::No,
            },
            Self::Verify { routes, .. } => Self::Verify {
                routes,
                jumps: false,
            },
            Self::Off => self,
        }
    }

    /// Returns whether packets may jump.
    pub(crate) fn jumps(self) -> bool {
        matches!(self, Self::On { jumps, .. } if jumps != Jumping::No)
    }

    /// Returns whether it is learned what becomes of packets.
    pub(crate) fn learns_jumps(self) -> bool {
        self.jumps() || self.predicts_jumps()
    }

    /// Returns whether jumps are predicted, and compared.
    pub(crate) fn predicts_jumps(self) -> bool {
        matches!(self, Self::Verify { jumps: true, .. })
    }

    /// Returns whether packets may jump at ingress.
    pub(crate) fn jumps_at_ingress(self) -> bool {
        matches!(
            self,
            Self::On {
                jumps: Jumping::AtIngress,
                ..
            }
        )
    }

    /// Returns whether predictions are compared.
    pub(crate) fn verifies(self) -> bool {
        matches!(self, Self::Verify { .. })
    }

    pub(super) const fn as_raw(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::On {
                lookup,
                routes,
                jumps,
            } => 1 | (lookup as u32) << 1 | (routes as u32) << 2 | (jumps as u32) << 4,
            Self::Verify { routes, jumps } => 8 | (routes as u32) << 2 | (jumps as u32) << 4,
        }
    }

    const fn from_raw(raw: u32) -> Self {
        let (lookup, routes) = (raw & 2 != 0, raw & 4 != 0);
        if raw & 8 != 0 {
            Self::Verify {
                routes,
                jumps: raw & 1 << 4 != 0,
            }
        } else if raw & 1 != 0 {
            Self::On {
                lookup,
                routes,
                jumps: Jumping::from_raw(raw >> 4 & 3),
            }
        } else {
            Self::Off
        }
    }
}

/// The sysctls with which a netns begins, as far as parameters of the module set them.
pub(crate) struct Defaults {
    /// sysctl `enable`.
    pub(crate) enable: bool,
    /// sysctl `learn_after`.
    pub(crate) learn_after: u8,
}

/// The sysctls of a netns.
pub(crate) struct SysctlValues {
    /// sysctl `enable`: 0 or 1.
    pub(crate) enable: Atomic<u32>,
    /// sysctl `zone_lookup`: 0 or 1.
    pub(crate) zone_lookup: Atomic<u32>,
    /// sysctl `route_cache`: 0 or 1.
    pub(crate) route_cache: Atomic<u32>,
    /// sysctl `max_age_ms`.
    pub(crate) max_age_ms: Atomic<u32>,
    /// sysctl `learn_after`: 0 to 255 packets.
    pub(crate) learn_after: Atomic<u32>,
    /// sysctl `jump`: 0 to 2, see [`Jumping`].
    pub(crate) jump: Atomic<u32>,
    /// sysctl `jump_mark`.
    pub(crate) jump_mark: Atomic<u32>,
    /// sysctl `jump_mask`.
    pub(crate) jump_mask: Atomic<u32>,
    /// sysctl `drop_mark`.
    pub(crate) drop_mark: Atomic<u32>,
    /// sysctl `drop_mask`.
    pub(crate) drop_mask: Atomic<u32>,
    /// sysctl `verify`: 0 or 1.
    pub(crate) verify: Atomic<u32>,
}

impl SysctlValues {
    /// Returns the defaults. Packets are looked up by default if the prediction of their tracking
    /// is verified.
    pub(crate) fn new(defaults: &Defaults) -> Self {
        Self {
            enable: Atomic::new(defaults.enable.into()),
            zone_lookup: Atomic::new(is_tracking_verified().into()),
            route_cache: Atomic::new(1),
            max_age_ms: Atomic::new(1000),
            learn_after: Atomic::new(defaults.learn_after.into()),
            jump: Atomic::new(0),
            jump_mark: Atomic::new(0),
            jump_mask: Atomic::new(0),
            drop_mark: Atomic::new(0),
            drop_mask: Atomic::new(0),
            verify: Atomic::new(0),
        }
    }

    /// Returns the mode that the sysctls ask for.
    pub(crate) fn wanted_mode(&self) -> Mode {
        let is = |sysctl: &Atomic<u32>| sysctl.load(Relaxed) != 0;
        let routes = is(&self.route_cache);
        if !is(&self.enable) {
            Mode::Off
        } else if is(&self.verify) {
            let jumps = routes && is(&self.jump);
            Mode::Verify { routes, jumps }
        } else {
            let lookup = is(&self.zone_lookup);
            let jumps = if lookup && routes {
                Jumping::from_raw(self.jump.load(Relaxed))
            } else {
                Jumping::No
            };
            Mode::On {
                lookup,
                routes,
                jumps,
            }
        }
    }

    /// Returns the sysctl `max_age_ms` in jiffies.
    pub(crate) fn max_age(&self) -> u32 {
        time::from_ms(self.max_age_ms.load(Relaxed))
    }

    /// Returns the sysctl `learn_after`.
    pub(crate) fn learn_after(&self) -> u8 {
        u8::try_from(self.learn_after.load(Relaxed)).unwrap_or(u8::MAX)
    }
}

/// [`Marks`] in one number, so that both are read and written at once: the mask in the high half.
struct AtomicMarks(Atomic<u64>);

impl AtomicMarks {
    /// Of no connections.
    fn new() -> Self {
        Self(Atomic::new(0))
    }

    #[inline(always)]
    fn load(&self) -> Marks {
        let raw = self.0.read_once();
        // CAST: To the two halves of a `u64`.
        Marks {
            mark: raw as u32,
            mask: (raw >> 32) as u32,
        }
    }

    /// Stores marks. Returns whether they were others.
    fn replace(&self, Marks { mark, mask }: Marks) -> bool {
        let raw = u64::from(mask) << 32 | u64::from(mark & mask);
        self.0.xchg(raw, Relaxed) != raw
    }
}

/// The settings of a netns that are in force.
pub(crate) struct Settings {
    /// The age at which a route must be looked up again, in jiffies.
    max_age: Atomic<u32>,
    /// After how many packets a connection gets a flow: at most 255.
    learn_after: Atomic<u32>,
    /// The [`Marks`] of connections whose packets may jump.
    jump_marks: AtomicMarks,
    /// The [`Marks`] of connections whose packets may be dropped.
    drop_marks: AtomicMarks,
    /// The [`Mode`].
    mode: Atomic<u32>,
}

impl Settings {
    /// Returns the mode [`Mode::Off`].
    pub(super) fn new() -> Self {
        Self {
            max_age: Atomic::new(0),
            learn_after: Atomic::new(0),
            jump_marks: AtomicMarks::new(),
            drop_marks: AtomicMarks::new(),
            mode: Atomic::new(Mode::Off.as_raw()),
        }
    }

    /// Returns the mode that is in force.
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_raw(self.mode.load(Relaxed))
    }

    /// Notes the mode that is in force.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode.as_raw(), Relaxed);
    }

    /// Returns the age at which a route must be looked up again, in jiffies.
    #[inline(always)]
    pub(crate) fn max_age(&self) -> u32 {
        self.max_age.read_once()
    }

    /// Sets the age at which a route must be looked up again, in jiffies.
    pub(crate) fn set_max_age(&self, max_age: u32) {
        self.max_age.store(max_age, Relaxed);
    }

    /// Returns the marks of the connections whose packets may jump.
    #[inline(always)]
    pub(crate) fn jump_marks(&self) -> Marks {
        self.jump_marks.load()
    }

    /// Returns the marks of the connections whose packets may be dropped.
    #[inline(always)]
    pub(crate) fn drop_marks(&self) -> Marks {
        self.drop_marks.load()
    }

    /// Sets both marks. Returns whether they were others.
    pub(crate) fn set_marks(&self, sysctls: &SysctlValues) -> bool {
        let marks = |mark: &Atomic<u32>, mask: &Atomic<u32>| Marks {
            mark: mark.load(Relaxed),
            mask: mask.load(Relaxed),
        };
        let jump = marks(&sysctls.jump_mark, &sysctls.jump_mask);
        let drop = marks(&sysctls.drop_mark, &sysctls.drop_mask);
        self.jump_marks.replace(jump) | self.drop_marks.replace(drop)
    }

    /// Returns after how many packets a connection gets a flow; 0: with its first one.
    #[inline(always)]
    pub(crate) fn learn_after(&self) -> u8 {
        // CAST: `set_learn_after` stores a `u8`.
        self.learn_after.read_once() as u8
    }

    /// Sets after how many packets a connection gets a flow.
    pub(crate) fn set_learn_after(&self, packets: u8) {
        self.learn_after.store(packets.into(), Relaxed);
    }
}
