// SPDX-License-Identifier: GPL-2.0

//! Which hooks a netns needs, in packet order, by its mode.

use kernel::prelude::*;

use crate::{
    kapi::nf::{
        hook::HookSet,
        skb::{LocalIn, PostRouting}, //
    },
    path::{
        commit::Commit,
        jump::{CommitAndLearn, LookupAndJump, ServeAndNote},
        learn::Learn,
        limit::EnforceLimit,
        lookup::Lookup,
        serve::LearnAndServe,
        verify::{
            CommitWatched,
            Compare,
            CompareRoute,
            LearnAndPredict,
            Predict, //
        },
    },
    state::{settings::Mode, NetState}, //
};

/// A hook.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stage {
    Lookup,
    LookupAndJump,
    Learn,
    LearnAndServe,
    ServeAndNote,
    Commit,
    CommitAndLearn,
    Predict,
    Compare,
    LearnAndPredict,
    CompareRoute,
    CommitWatched,
    LimitIn,
    LimitOut,
}

impl Stage {
    /// The hooks of limits, in every mode but [`Mode::Off`].
    const LIMITS: [Self; 2] = [Self::LimitIn, Self::LimitOut];

    /// The hooks just before conntrack, and the comparison that belongs to one of them. A packet
    /// must not pass two of the former.
    const AROUND_CONNTRACK: [Self; 4] = [
        Self::Lookup,
        Self::LookupAndJump,
        Self::Predict,
        Self::Compare,
    ];

    /// Returns whether the hook has this id, its variant's number.
    fn has_id(self, id: u32) -> bool {
        self as u32 == id
    }

    /// Returns whether a packet must pass only one of the hook with this id and others.
    pub(super) fn excludes_others(id: u32) -> bool {
        Self::AROUND_CONNTRACK.iter().any(|stage| stage.has_id(id))
    }

    /// Registers the hook, unless it is registered.
    pub(super) fn add(self, hooks: &mut HookSet<NetState>) -> Result {
        // CAST: The variant's number.
        let id = self as u32;
        match self {
            Self::Lookup => hooks.add::<Lookup>(id),
            Self::LookupAndJump => hooks.add::<LookupAndJump>(id),
            Self::Learn => hooks.add::<Learn>(id),
            Self::LearnAndServe => hooks.add::<LearnAndServe>(id),
            Self::ServeAndNote => hooks.add::<ServeAndNote>(id),
            Self::Commit => hooks.add::<Commit>(id),
            Self::CommitAndLearn => hooks.add::<CommitAndLearn>(id),
            Self::Predict => hooks.add::<Predict>(id),
            Self::Compare => hooks.add::<Compare>(id),
            Self::LearnAndPredict => hooks.add::<LearnAndPredict>(id),
            Self::CompareRoute => hooks.add::<CompareRoute>(id),
            Self::CommitWatched => hooks.add::<CommitWatched>(id),
            Self::LimitIn => hooks.add::<EnforceLimit<LocalIn>>(id),
            Self::LimitOut => hooks.add::<EnforceLimit<PostRouting>>(id),
        }
    }
}

/// Returns the hooks of a mode, in reverse packet order: each hook relies on the later ones.
fn stages(mode: Mode) -> &'static [Stage] {
    use Stage::*;
    if mode.jumps() {
        return &[CommitAndLearn, ServeAndNote, LookupAndJump];
    }
    let (lookup, routes) = match mode {
        Mode::Off => return &[],
        Mode::Verify { routes: true, .. } => {
            return &[
                CommitWatched,
                CompareRoute,
                LearnAndPredict,
                Compare,
                Predict,
            ]
        }
        Mode::Verify { routes: false, .. } => return &[CommitWatched, Learn, Compare, Predict],
        Mode::On { lookup, routes, .. } => (lookup, routes),
    };
    match (lookup, routes) {
        (true, true) => &[Commit, LearnAndServe, Lookup],
        (false, true) => &[Commit, LearnAndServe],
        (true, false) => &[Commit, Learn, Lookup],
        (false, false) => &[Commit, Learn],
    }
}

/// What hooks a netns needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// The mode in force.
    pub(super) mode: Mode,
    /// Whether a zone had a limit since the netns was set up.
    pub(super) limits: bool,
}

impl Needs {
    /// Returns the hooks, in reverse packet order, except for those of limits, which come first.
    pub(super) fn stages(self) -> impl Iterator<Item = Stage> {
        let limits = if self.limits && self.mode.is_on() {
            &Stage::LIMITS[..]
        } else {
            &[]
        };
        Iterator::chain(limits.iter(), stages(self.mode)).copied()
    }

    /// Returns whether the hook with this id is needed.
    pub(super) fn has(self, id: u32) -> bool {
        self.stages().any(|stage| stage.has_id(id))
    }
}
