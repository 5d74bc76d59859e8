//! What can befall a run: on the wire, in the store, to the process.

use proptest::prelude::*;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    Answered,
    NotSent,
    /// It never reached the issuer, and nobody knows.
    LostBefore,
    /// The issuer did it, and the answer was lost.
    LostAfter,
    /// The issuer did it, and the answer is a page for humans.
    Garbled,
    /// `invalid_grant`, whatever the issuer thinks.
    Refused,
    /// A complete answer with this status; the issuer did nothing.
    Status(u16),
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Commit {
    #[default]
    Answered,
    /// It never reached the store, and nobody knows.
    Lost,
    /// The store made it, and the answer was lost.
    Unanswered,
    /// It is not answered, and reaches the store later, perhaps when its sender is long dead.
    Late,
    /// The store gets it twice, and its second answer is the one that arrives.
    Twice,
}

/// When a process dies, by the number of the effect, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Crash {
    /// The effect is not begun.
    Before(usize),
    /// A commit dies with its process after this many writes. Other effects have no inside: nothing happens.
    Within(usize, usize),
    /// The effect was performed, and nobody hears of it.
    After(usize),
}

/// What befalls one run.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) wire: Wire,
    pub(crate) crash: Option<Crash>,
    /// What becomes of its commits in their order; the rest is answered.
    pub(crate) commits: Vec<Commit>,
    pub(crate) plugin_traps_after_answer: bool,
    pub(crate) plugin_never_ends: bool,
    pub(crate) revoked_meanwhile: bool,
}

// === impl Wire ===

impl Wire {
    /// Each there is.
    pub(crate) const ALL: [Self; 11] = [
        Self::Answered,
        Self::NotSent,
        Self::LostBefore,
        Self::LostAfter,
        Self::Garbled,
        Self::Refused,
        Self::Status(429),
        Self::Status(500),
        Self::Status(502),
        Self::Status(503),
        Self::Status(504),
    ];

    /// Whether the issuer is asked and does what it is asked for.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Answered | Self::LostAfter | Self::Garbled)
    }

    /// Whether whoever sent it must fear that it was done.
    pub(super) fn may_be_done(self) -> bool {
        !matches!(
            self,
            Self::NotSent | Self::Refused | Self::Status(429 | 500 | 503)
        )
    }
}

// === impl Fate ===

impl Default for Fate {
    fn default() -> Self {
        Self::on(Wire::Answered)
    }
}

impl Fate {
    /// Nothing but this wire.
    pub(crate) fn on(wire: Wire) -> Self {
        Self {
            wire,
            crash: None,
            commits: Vec::new(),
            plugin_traps_after_answer: false,
            plugin_never_ends: false,
            revoked_meanwhile: false,
        }
    }

    /// The store never answers.
    pub(crate) fn without_a_store() -> Self {
        Self {
            commits: vec![Commit::Lost; 99],
            ..Self::default()
        }
    }
}

pub(crate) fn wires() -> impl Strategy<Value = Wire> {
    prop_oneof![
        4 => Just(Wire::Answered),
        1 => Just(Wire::NotSent),
        1 => Just(Wire::LostBefore),
        1 => Just(Wire::LostAfter),
        1 => Just(Wire::Garbled),
        1 => Just(Wire::Refused),
        2 => prop_oneof![Just(429_u16), Just(500), Just(502), Just(503), Just(504)]
            .prop_map(Wire::Status),
    ]
}

pub(crate) fn commits() -> impl Strategy<Value = Commit> {
    prop_oneof![
        6 => Just(Commit::Answered),
        1 => Just(Commit::Lost),
        1 => Just(Commit::Unanswered),
        1 => Just(Commit::Late),
        1 => Just(Commit::Twice),
    ]
}

fn crashes() -> impl Strategy<Value = Crash> {
    prop_oneof![
        (0_usize..10).prop_map(Crash::Before),
        (0_usize..10).prop_map(Crash::After),
    ]
}

pub(crate) fn fates() -> impl Strategy<Value = Fate> {
    (
        wires(),
        prop::option::weighted(0.3, crashes()),
        prop::collection::vec(commits(), 0..12),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(wire, crash, commits, trap, revoked)| Fate {
            wire,
            crash,
            commits,
            plugin_traps_after_answer: trap && wire == Wire::Answered,
            plugin_never_ends: false,
            revoked_meanwhile: revoked,
        })
}
