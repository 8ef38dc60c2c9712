// SPDX-License-Identifier: GPL-2.0

//! The validity of a route over time: the stamp that a slot carries, and the facts that it is
//! checked against.
//!
//! Pure: also built and tested on the host.

use crate::route::miss::Miss;

/// The state of a netns that decides whether a stamp is still valid. Times in jiffies, of which the
/// low 32 bits are kept; they wrap.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    /// The current time.
    pub(crate) jiffies: u32,
    /// The number of changes so far that may have changed a route.
    pub(crate) generation: u32,
    /// The kind of the last change: a [`Miss`], converted only when it is needed.
    pub(crate) cause: i8,
    /// The age at which a route must be looked up again.
    pub(crate) max_age: u32,
}

/// When a route was looked up. Taken before the lookup, so that a change during the lookup makes
/// the stamp invalid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    generation: u32,
    born: u32,
}

impl Stamp {
    /// Creates a stamp for a lookup that follows.
    pub(crate) fn new(facts: &Facts) -> Self {
        Self {
            generation: facts.generation,
            born: facts.jiffies,
        }
    }

    /// Returns the stamp as a number, so that both parts are read and written at once.
    pub(crate) const fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.born as u64
    }

    /// Returns the stamp for a number of [`Stamp::to_raw`].
    #[inline(always)]
    pub(crate) const fn from_raw(raw: u64) -> Self {
        // CAST: To the two halves of a `u64`.
        Self {
            generation: (raw >> 32) as u32,
            born: raw as u32,
        }
    }

    /// Returns whether the route may still be used, or the reason why not.
    #[inline(always)]
    pub(crate) fn check(&self, facts: &Facts) -> Result<(), Miss> {
        if let Some(cause) = self.outdated_by(facts) {
            Err(cause)
        } else if self.age(facts) >= facts.max_age {
            Err(Miss::Aged)
        } else {
            Ok(())
        }
    }

    /// Returns the kind of the last change, if there was one after the lookup.
    #[inline(always)]
    pub(crate) fn outdated_by(&self, facts: &Facts) -> Option<Miss> {
        (self.generation != facts.generation).then(|| Miss::from_raw(facts.cause))
    }

    /// Returns whether the lookup came before a change with this generation.
    #[inline(always)]
    pub(crate) fn precedes(&self, change: u32) -> bool {
        // CAST: The sign tells which is greater, because generations wrap.
        change.wrapping_sub(self.generation) as i32 > 0
    }

    /// Returns the stamp of a route that no change until `facts` has changed.
    pub(crate) fn spared(self, facts: &Facts) -> Self {
        Self {
            generation: facts.generation,
            ..self
        }
    }

    /// Returns when the lookup was, in jiffies.
    pub(crate) fn born(self) -> u32 {
        self.born
    }

    /// Returns a stamp with the age of an older one, or the same stamp if the other one is not
    /// older.
    pub(crate) fn as_old_as(self, other: Self) -> Self {
        // CAST: The sign tells which is later, because jiffies wrap.
        let is_older = (other.born.wrapping_sub(self.born) as i32) < 0;
        Self {
            born: if is_older { other.born } else { self.born },
            ..self
        }
    }

    /// Returns the time since the lookup, in jiffies.
    pub(crate) fn age(&self, facts: &Facts) -> u32 {
        facts.jiffies.wrapping_sub(self.born)
    }
}
