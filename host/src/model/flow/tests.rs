//! The flow against a scripted plugin and a rotating issuer: tables for what each answer leads to, and a property over
//! any sequence of faults, crashes and restarts.

mod world;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::contract::Limited;
use crate::model::credential::{CredentialState, EndCause};
use crate::model::error::ErrorKind;
use world::{Fate, Wire, World, single_use};

#[test]
fn a_rotation_is_recorded_before_the_plugin_reads_the_answer() {
    let mut world = World::new(single_use());
    let fate = Fate {
        plugin_traps_after_answer: true,
        ..Fate::default()
    };
    let landed = world.run(fate);
    assert!(matches!(landed, Some(Landing::Failed(ref f)) if f.plugin));
    assert_eq!(world.stored_grant(), Some(world.issuers_grant()));
    assert_eq!(world.stored.credential.state, CredentialState::Live);
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn a_grant_that_may_be_single_use_is_marked_before_it_leaves() {
    for rotation in [Rotation::SingleUse, Rotation::Unknown, Rotation::Grace] {
        let mut world = World::new(world::Setup {
            rotation,
            ..single_use()
        });
        world.run(Fate::default());
        assert_eq!(world.log[..3], ["lease", "consult", "mark"], "{rotation:?}");
    }
    let mut world = World::new(world::Setup {
        rotation: Rotation::Never,
        ..single_use()
    });
    world.run(Fate::default());
    assert_eq!(world.log[..3], ["lease", "consult", "send"]);
}

#[test]
fn what_came_back_decides_what_becomes_of_a_single_use_grant() {
    let live = "live";
    let table = [
        (Wire::Answered, live),
        (Wire::NotSent, live),
        (Wire::Status(503), live),
        (Wire::Status(500), live),
        (Wire::Status(429), live),
        (Wire::Status(502), "uncertain"),
        (Wire::Status(504), "uncertain"),
        (Wire::LostBefore, "uncertain"),
        (Wire::LostAfter, "uncertain"),
        (Wire::Garbled, "uncertain"),
        (Wire::Refused, "reauthorization_required"),
    ];
    for (wire, state) in table {
        let mut world = World::new(single_use());
        world.run(Fate {
            wire,
            ..Fate::default()
        });
        assert_eq!(world.stored.credential.state.label(), state, "{wire:?}");
        assert_eq!(
            world.stored.credential.intent, None,
            "{wire:?} leaves no intent"
        );
        assert!(
            world.stored.credential.refresh_token.is_some(),
            "{wire:?} erases no grant"
        );
    }
}

#[test]
fn a_lost_answer_of_a_single_use_grant_is_never_sent_again_by_itself() {
    let mut world = World::new(single_use());
    world.run(Fate {
        wire: Wire::LostAfter,
        ..Fate::default()
    });
    world.served_until = Some(world.now.plus(Duration::from_secs(30)));
    let waits = world.run(Fate::default());
    assert!(matches!(waits, Some(Landing::Failed(f)) if f.after == Some(Duration::from_secs(30))));
    world.served_until = None;
    let ends = world.run(Fate::default());
    assert!(
        matches!(ends, Some(Landing::Failed(f)) if f.kind == ErrorKind::ReauthorizationRequired)
    );
    assert_eq!(
        world.stored.credential.state.label(),
        "reauthorization_required"
    );
    assert_eq!(world.presented, 1);
}

#[test]
fn an_unknown_grant_is_probed_once_when_nothing_is_left_to_lose() {
    let unknown = world::Setup {
        rotation: Rotation::Unknown,
        ..single_use()
    };
    let mut world = World::new(unknown);
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));

    let mut world = World::new(unknown);
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    assert_eq!(
        world.stored.credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn a_probe_whose_answer_is_lost_too_is_the_last() {
    let probed = |rotation| world::Setup {
        rotation,
        after_lost_answer: Some(AfterLostAnswer::Probe),
    };
    let undeclared = world::Setup {
        rotation: Rotation::Unknown,
        ..single_use()
    };
    // The process dies with the answer on its way, or lives on without it.
    let crashed = Fate {
        crash_at: Some(4),
        ..Fate::default()
    };
    let lost = Fate {
        wire: Wire::LostAfter,
        ..Fate::default()
    };
    for setup in [
        undeclared,
        probed(Rotation::SingleUse),
        probed(Rotation::Grace),
    ] {
        for fate in [&crashed, &lost] {
            let mut world = World::new(setup);
            for _ in 0..4 {
                world.run(fate.clone());
                world.now = world.now.plus(world::GRACE);
            }
            assert_eq!(world.presented, 2, "{:?} {fate:?}", setup.rotation);
            assert!(matches!(
                world.stored.credential.state,
                CredentialState::ReauthorizationRequired {
                    cause: EndCause::LostAnswer,
                    ..
                }
            ));
        }
    }
}

#[test]
fn an_operators_word_overrides_what_a_lost_answer_leads_to() {
    let stop = Some(AfterLostAnswer::Stop);
    let unknown = world::Setup {
        rotation: Rotation::Unknown,
        after_lost_answer: stop,
    };
    let mut world = World::new(unknown);
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    world.run(Fate::default());
    assert_eq!(world.presented, 1);

    let probe = world::Setup {
        after_lost_answer: Some(AfterLostAnswer::Probe),
        ..single_use()
    };
    let mut world = World::new(probe);
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn a_grace_grant_is_sent_again_inside_its_grace_only() {
    let grace = world::Setup {
        rotation: Rotation::Grace,
        ..single_use()
    };
    let mut world = World::new(grace);
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));

    let mut world = World::new(grace);
    world.run(Fate {
        wire: Wire::LostBefore,
        ..Fate::default()
    });
    world.now = world.now.plus(world::GRACE);
    world.run(Fate::default());
    assert_eq!(
        world.stored.credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn attempts_that_crash_inside_the_grace_do_not_prolong_it() {
    let grace = world::Setup {
        rotation: Rotation::Grace,
        ..single_use()
    };
    let mut world = World::new(grace);
    let first = world.now;
    while world.now.since(first) < 3 * world::GRACE {
        let before = world.presented;
        world.run(Fate {
            crash_at: Some(4),
            ..Fate::default()
        });
        let inside = world.now.since(first) < world::GRACE;
        assert!(inside || world.presented == before, "presented after it");
        world.now = world.now.plus(world::GRACE / 3);
    }
    assert_eq!(world.presented, 3);
    assert_eq!(
        world.stored.credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn an_intent_left_by_a_crash_blocks_until_the_attempt_is_over() {
    let mut world = World::new(single_use());
    assert!(
        world
            .run(Fate {
                crash_at: Some(3),
                ..Fate::default()
            })
            .is_none()
    );
    assert!(world.stored.credential.intent.is_some());
    let landed = world.run(Fate::default());
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.label == "in_flight"));
    assert_eq!(world.presented, 0);
}

#[test]
fn revoke_during_a_refresh_wins_and_the_orphan_is_handed_over() {
    let mut world = World::new(single_use());
    let landed = world.run(Fate {
        revoked_meanwhile: true,
        ..Fate::default()
    });
    assert!(matches!(
        landed,
        Some(Landing::Superseded {
            orphan: Some(_),
            revoked: true
        })
    ));
    assert_eq!(world.stored.credential.state.label(), "revoked");
}

#[test]
fn a_plugin_cannot_step_for_ever() {
    let mut world = World::new(single_use());
    let landed = world.run(Fate {
        plugin_never_ends: true,
        ..Fate::default()
    });
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.plugin));
    assert!(world.log.iter().filter(|e| **e == "consult").count() <= STEPS_MAX + 1);
}

#[test]
fn a_rate_limit_says_what_it_covers() {
    for (scope, expected) in [
        (Limited::Grant, FailureScope::Grant),
        (Limited::Client, FailureScope::Client),
    ] {
        let after = Some(Duration::from_secs(7));
        let failure = Failure::refusal(&Refusal::RateLimited { after, scope }, |text| {
            text.to_owned()
        });
        assert_eq!((failure.scope, failure.after), (expected, after));
    }
}

#[test]
fn a_single_grants_rate_limit_suspends_that_grant() {
    let mut world = World::new(single_use());
    world.run(Fate {
        wire: Wire::Status(429),
        ..Fate::default()
    });
    world.limited = Some(Limited::Grant);
    world.run(Fate {
        wire: Wire::Status(429),
        ..Fate::default()
    });
    assert_eq!(world.stored.credential.state.label(), "suspended");
    let sent = world.presented;
    world.run(Fate::default());
    assert_eq!(world.presented, sent, "nothing is sent while it lasts");
    world.now = world.now.plus(Duration::from_secs(61));
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn an_input_that_answers_nothing_ends_the_flow() {
    let (flow, _) = Flow::new(World::new(single_use()).plan(), UnixTime::from_secs(1));
    let (_, effect) = flow.advance(Input::Recorded(Ok(Version(1))), UnixTime::from_secs(1));
    assert!(matches!(effect, Effect::Land(Landing::Failed(f)) if f.kind == ErrorKind::Internal));
}

#[test]
fn a_rotation_that_the_store_does_not_take_is_kept_and_its_token_served() {
    let mut world = World::new(single_use());
    // The mark is answered; what comes back is not recorded, however often it is tried.
    world.fail_after_marks = true;
    let landed = world.run(Fate {
        store_fails: 99,
        ..Fate::default()
    });
    assert!(matches!(landed, Some(Landing::Renewed(_))));
    assert_eq!(world.safe_grant(), Some(world.issuers_grant()));
    world.fail_after_marks = false;
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
    assert_eq!(world.replays, 0);
}

#[test]
fn a_commit_of_somebody_who_replaced_nothing_costs_no_rotation() {
    let mut world = World::new(single_use());
    world.touched_meanwhile = true;
    let landed = world.run(Fate::default());
    assert!(matches!(landed, Some(Landing::Renewed(_))));
    assert_eq!(world.stored_grant(), Some(world.issuers_grant()));
}

#[test]
fn a_grant_is_not_presented_while_its_mark_cannot_be_recorded() {
    let mut world = World::new(single_use());
    let landed = world.run(Fate {
        store_fails: 99,
        ..Fate::default()
    });
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.label == "store"));
    assert_eq!(world.presented, 0);
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn a_crashed_attempts_doubt_outlives_an_operators_probe_that_met_no_issuer() {
    let mut world = World::new(single_use());
    // Marked and sent, then the process died.
    world.run(Fate {
        crash_at: Some(4),
        ..Fate::default()
    });
    world.now = world.now.plus(Duration::from_secs(60));
    world.cause = Cause::Operator;
    world.run(Fate {
        wire: Wire::NotSent,
        ..Fate::default()
    });
    assert_eq!(world.stored.credential.state.label(), "uncertain");
    world.cause = Cause::First;
    let sent = world.presented;
    world.run(Fate::default());
    assert_eq!(world.presented, sent, "no flight presents it by itself");
}

proptest! {
    /// Whatever is lost, refused, garbled, crashes or restarts: a single-use grant reaches the issuer at most once unless
    /// the issuer said that nothing happened; a rotation that reached the process is never lost; what is published was
    /// recorded first; every flow ends.
    #[test]
    fn a_single_use_grant_is_never_replayed_and_a_received_one_never_lost(
        fates in prop::collection::vec(world::fates(), 1..8),
        rotation in prop_oneof![Just(Rotation::SingleUse), Just(Rotation::Unknown)],
    ) {
        // "Unknown" is played with `stop`: probing is a second presentation that the operator accepts.
        let after_lost_answer = (rotation == Rotation::Unknown).then_some(AfterLostAnswer::Stop);
        let mut world = World::new(world::Setup { rotation, after_lost_answer });
        for fate in fates {
            let revoked = fate.revoked_meanwhile;
            let landed = world.run(fate);
            prop_assert_eq!(world.replays, 0);
            if let Some(Landing::Renewed(_)) = landed {
                prop_assert_eq!(world.safe_grant(), Some(world.issuers_grant()));
            }
            // Received, the process lives on, and nobody revoked it: it is on record, or kept until it is.
            if let (Some(received), Some(_), false) = (world.received.take(), &landed, revoked) {
                prop_assert_eq!(world.safe_grant(), Some(received));
            }
            world.now = world.now.plus(Duration::from_secs(40));
        }
    }
}
