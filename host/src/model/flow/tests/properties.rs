//! The flow under any story: what is lost, refused, garbled, late or doubled on the way, crashes, restarts, operators, and
//! another process on the same row.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::*;
use super::world::{self, Commit, Fate, Manner, Setup, Wire, World, grace, single_use, unknown};
use crate::model::credential::{CredentialState, EndCause, Seen};
use crate::model::error::ErrorKind;

/// More flows than any story needs to come to rest: an intent's end, a suspension, a probe, and some to spare.
const ROUNDS_MAX: u32 = 16;

/// One thing that happens.
#[derive(Clone)]
enum Act {
    /// Half a step of this process's flow, which is begun where there is none.
    Step(usize, Wire, Commit),
    Crash(usize),
    /// The store takes what a process kept.
    Save(usize),
    /// A commit that was on its way arrives.
    Arrive,
    Revoke,
    /// A new grant is handed over.
    Replace,
    /// The same grant is handed over again: an operator orders one more presentation.
    Again,
    /// The row is committed as it is.
    Touch,
    Wait(Duration),
}

impl fmt::Debug for Act {
    /// On one line, so that a story that fails can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(who, wire, commit) => write!(f, "{who} goes on: {wire:?}, {commit:?}"),
            Self::Crash(who) => write!(f, "{who} dies"),
            Self::Save(who) => write!(f, "{who} saves"),
            Self::Arrive => f.write_str("a commit arrives"),
            Self::Revoke => f.write_str("revoke"),
            Self::Replace => f.write_str("replace"),
            Self::Again => f.write_str("hand over again"),
            Self::Touch => f.write_str("touch"),
            Self::Wait(span) => write!(f, "wait {} s", span.as_secs()),
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        24 => (0..2_usize, world::wires(), world::commits())
            .prop_map(|(who, wire, commit)| Act::Step(who, wire, commit)),
        1 => (0..2_usize).prop_map(Act::Crash),
        1 => (0..2_usize).prop_map(Act::Save),
        1 => Just(Act::Arrive),
        1 => prop_oneof![Just(Act::Revoke), Just(Act::Replace), Just(Act::Again), Just(Act::Touch)],
        1 => (1..40_u64).prop_map(|seconds| Act::Wait(Duration::from_secs(seconds))),
    ];
    prop::collection::vec(act, 0..90)
}

/// What is declared, and what is therefore promised.
fn setups() -> impl Strategy<Value = Setup> {
    let stop = Some(AfterLostAnswer::Stop);
    let rotated = Seen {
        rotated: true,
        ..Seen::default()
    };
    prop_oneof![
        Just(single_use()),
        Just(Setup {
            after_lost_answer: stop,
            ..unknown()
        }),
        Just(Setup {
            seen: rotated,
            ..unknown()
        }),
        Just(unknown()),
        Just(grace()),
        Just(Setup {
            rotation: Rotation::Never,
            manner: Manner::Keeps,
            ..single_use()
        }),
        // Declared wrongly: nothing is promised of its presentations, all the more of its records.
        Just(Setup {
            rotation: Rotation::Never,
            ..single_use()
        }),
    ]
}

/// A story as it is told, and what holds after every act of it.
struct Story {
    world: World,
    setup: Setup,
    /// How often an operator ordered one more presentation of a grant.
    ordered: HashMap<String, u32>,
    revoked: bool,
    replaced: bool,
    newest: String,
    /// Neither crash nor pause: nothing happened that could cost a grant nobody presented.
    quiet: bool,
}

impl Story {
    fn new(setup: Setup) -> Self {
        Self {
            world: World::new(setup),
            setup,
            ordered: HashMap::new(),
            revoked: false,
            replaced: false,
            newest: String::new(),
            quiet: true,
        }
    }

    fn play(&mut self, act: Act) -> Result<(), TestCaseError> {
        match act {
            Act::Step(who, wire, commit) => drop(self.step(who, wire, commit)?),
            Act::Crash(who) => {
                self.quiet = false;
                self.world.crash(who);
            }
            Act::Save(who) => self.world.save(who),
            Act::Arrive => drop(self.world.arrive()),
            Act::Revoke => {
                self.revoked = true;
                self.world.revoke();
            }
            Act::Replace => {
                self.revoked = false;
                self.replaced = true;
                self.world.replace();
            }
            Act::Again => {
                if let Some(grant) = self.world.hand_over_again() {
                    *self.ordered.entry(grant).or_default() += 1;
                }
            }
            Act::Touch => self.world.touch(),
            Act::Wait(span) => {
                self.quiet = false;
                self.world.now = self.world.now.plus(span);
            }
        }
        self.check()
    }

    fn step(
        &mut self,
        who: usize,
        wire: Wire,
        commit: Commit,
    ) -> Result<Option<Landing>, TestCaseError> {
        let world = &mut self.world;
        if world.is_waiting(who) {
            world.hear(who);
            return Ok(None);
        }
        if world.is_idle(who) {
            world.begin(who);
        }
        let landed = world.perform(who, &Fate::on(wire), commit);
        if let Some(landing) = &landed {
            prop_assert!(
                world.is_kept(who, landing),
                "a grant that was received is lost"
            );
        }
        Ok(landed)
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let row = self.world.stored();
        let issuer = &self.world.issuer;
        let state = row.credential.state;
        if self.revoked {
            let revoked = matches!(state, CredentialState::Revoked { .. });
            prop_assert!(revoked, "a flow brought a revoked credential back");
            prop_assert!(row.credential.refresh_token.is_none());
        }
        if let Some(grant) = row.credential.refresh_token {
            let grant = grant.expose().clone();
            prop_assert!(
                grant >= self.newest,
                "an older grant overwrote {}",
                self.newest
            );
            if let CredentialState::ReauthorizationRequired {
                cause: EndCause::Refused,
                ..
            } = state
            {
                let refused = issuer.refused.contains(&grant);
                prop_assert!(
                    refused,
                    "the refusal of another grant ended that of a winner"
                );
            }
            self.newest = grant;
        }
        let promised = match self.setup.rotation {
            Rotation::Never => return Ok(()),
            Rotation::Grace => {
                // An order forgets the doubt, and when it began: the operator answers for what follows.
                let by_itself = self.ordered.is_empty();
                prop_assert!(
                    !by_itself || issuer.replays == 0,
                    "presented after its grace"
                );
                return Ok(());
            }
            // One presentation, and one probe: unless its kind is known, which a replacement forgets.
            Rotation::Unknown
                if self.setup.after_lost_answer.is_none()
                    && (self.replaced || !self.setup.seen.rotated) =>
            {
                2
            }
            Rotation::Unknown | Rotation::SingleUse => 1,
        };
        for (grant, times) in &issuer.feared {
            let ordered = self.ordered.get(grant).copied().unwrap_or_default();
            prop_assert!(*times <= promised + ordered, "{grant} left {times} times");
        }
        Ok(())
    }

    /// Everybody goes on undisturbed; every flow ends, and so does the story.
    fn come_to_rest(&mut self) -> Result<(), TestCaseError> {
        for round in 0..ROUNDS_MAX {
            // In the first round, flows end that began before the last act.
            let mut resting = round > 0;
            for who in 0..2 {
                while self.world.arrive() {}
                self.world.save(who);
                let landing = loop {
                    if let Some(landing) = self.step(who, Wire::Answered, Commit::Answered)? {
                        break landing;
                    }
                    self.check()?;
                };
                resting &= match landing {
                    Landing::Renewed(_) => true,
                    Landing::Failed(failure) => failure.kind == ErrorKind::ReauthorizationRequired,
                    Landing::Superseded { .. } => false,
                };
            }
            if resting {
                return self.check_rest();
            }
            self.world.now = self.world.now.plus(Duration::from_secs(20));
        }
        Err(TestCaseError::fail("it does not come to rest"))
    }

    fn check_rest(&mut self) -> Result<(), TestCaseError> {
        let row = self.world.stored();
        let never_left = self.world.issuer.presented == 0;
        let ended = matches!(
            row.credential.state,
            CredentialState::ReauthorizationRequired { .. }
        );
        let intent = row.credential.intent;
        prop_assert!(intent.is_none() || ended, "an intent is left behind");
        prop_assert!(
            !(ended && never_left && self.quiet),
            "a grant that never left here is lost"
        );
        if row.credential.state == CredentialState::Live {
            let grant = self.world.stored_grant();
            let taken = self.world.issuer.current();
            prop_assert_eq!(grant, Some(taken), "a live credential that nobody takes");
        }
        Ok(())
    }
}

proptest! {
    /// Whatever is lost, refused, garbled, late or doubled, whoever crashes, restarts or interferes: a single-use grant
    /// reaches the issuer at most once, and once more for each order; a rotation that reached a living process is on
    /// record, or kept until it is, before its token is published; a loser never overwrites a winner, and nobody a revoke;
    /// all comes to rest.
    #[test]
    fn two_processes_on_one_row_keep_every_promise(setup in setups(), acts in acts()) {
        let mut story = Story::new(setup);
        for act in acts {
            story.play(act)?;
        }
        story.come_to_rest()?;
    }

    /// The same for one process, whole flows at a time: deeper than steps by chance would come.
    #[test]
    fn a_single_use_grant_is_never_replayed_and_a_received_one_never_lost(
        fates in prop::collection::vec(world::fates(), 1..8),
        is_unknown in any::<bool>(),
        touched in any::<bool>(),
    ) {
        // "Unknown" is played with `stop`: probing is a second presentation that the operator accepts.
        let setup = match is_unknown {
            true => Setup {
                after_lost_answer: Some(AfterLostAnswer::Stop),
                ..unknown()
            },
            false => single_use(),
        };
        let mut world = World::new(setup);
        world.touched_meanwhile = touched;
        for fate in fates {
            let revoked = fate.revoked_meanwhile;
            let landed = world.run(fate);
            prop_assert_eq!(world.issuer.replays, 0);
            if let Some(landing) = &landed {
                prop_assert!(world.is_kept(0, landing));
                while world.arrive() {}
                world.save(0);
                let row = world.stored();
                let doubted = matches!(row.credential.state, CredentialState::Uncertain { .. });
                let intent = row.credential.intent;
                prop_assert!(
                    intent.is_none() || doubted || world.died.is_some(),
                    "left behind by a flow that landed"
                );
            }
            if let (Some(Landing::Renewed(_)), false) = (landed, revoked) {
                prop_assert_eq!(world.safe_grant(), Some(world.issuer.current()));
            }
            world.now = world.now.plus(Duration::from_secs(40));
        }
    }
}
