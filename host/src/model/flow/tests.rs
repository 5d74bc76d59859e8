//! The flow against a scripted plugin and an issuer: tables for what each answer leads to. `properties` has any story,
//! `world` what they are told in; the store's own tests drive the same world over a file.

mod properties;
pub(crate) mod world;

use std::time::Duration;

use super::*;
use crate::model::contract::Limited;
use crate::model::credential::CredentialState;
use crate::model::error::ErrorKind;
use world::{Commit, Crash, Fate, Wire, World, grace, single_use, unknown};

#[test]
fn a_rotation_is_recorded_before_the_plugin_reads_the_answer() {
    let mut world = World::new(single_use());
    let fate = Fate {
        plugin_traps_after_answer: true,
        ..Fate::default()
    };
    let landed = world.run(fate);
    assert!(matches!(landed, Some(Landing::Failed(ref f)) if f.plugin));
    assert_eq!(world.stored_grant(), Some(world.issuer.current()));
    assert_eq!(world.stored().credential.state, CredentialState::Live);
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
        assert_eq!(world.stored().credential.state.label(), state, "{wire:?}");
        let intent = world.stored().credential.intent;
        assert_eq!(
            intent.is_some(),
            state == "uncertain",
            "{wire:?}: an intent stays while its request may still arrive"
        );
        assert!(
            world.stored().credential.refresh_token.is_some(),
            "{wire:?} erases no grant"
        );
    }
}

#[test]
fn a_lost_answer_of_a_single_use_grant_is_never_sent_again_by_itself() {
    let mut world = World::new(single_use());
    world.run(Fate::on(Wire::LostAfter));
    world.wait_it_out();
    world.served_until = Some(world.now.plus(Duration::from_secs(30)));
    let waits = world.run(Fate::default());
    assert!(matches!(waits, Some(Landing::Failed(f)) if f.after == Some(Duration::from_secs(30))));
    world.served_until = None;
    let ends = world.run(Fate::default());
    assert!(
        matches!(ends, Some(Landing::Failed(f)) if f.kind == ErrorKind::ReauthorizationRequired)
    );
    assert_eq!(
        world.stored().credential.state.label(),
        "reauthorization_required"
    );
    assert_eq!(world.issuer.presented, 1);
}

#[test]
fn an_unknown_grant_is_probed_once_when_nothing_is_left_to_lose() {
    let mut world = World::new(unknown());
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));

    let mut world = World::new(unknown());
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    world.run(Fate::on(Wire::LostBefore));
    assert_eq!(
        world.stored().credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn an_operators_word_overrides_what_a_lost_answer_leads_to() {
    let stop = Some(AfterLostAnswer::Stop);
    let mut world = World::new(world::Setup {
        after_lost_answer: stop,
        ..unknown()
    });
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    world.run(Fate::default());
    assert_eq!(world.issuer.presented, 1);

    let probe = world::Setup {
        after_lost_answer: Some(AfterLostAnswer::Probe),
        ..single_use()
    };
    let mut world = World::new(probe);
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn a_grace_grant_is_sent_again_inside_its_grace_only() {
    let mut world = World::new(grace());
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));

    let mut world = World::new(grace());
    world.run(Fate::on(Wire::LostBefore));
    world.now = world.now.plus(world::GRACE);
    world.run(Fate::default());
    assert_eq!(
        world.stored().credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn a_grant_whose_request_may_still_arrive_is_not_sent_after_it() {
    let mut world = World::new(grace());
    world.run(Fate::on(Wire::LostAfter));
    let landed = world.run(Fate::default());
    assert!(
        matches!(landed, Some(Landing::Failed(f)) if f.label == "in_flight" && f.after == Some(LATE_MAX))
    );
    assert_eq!(world.issuer.presented, 1);
    world.wait_it_out();
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn an_intent_left_by_a_crash_blocks_until_the_attempt_is_over() {
    let mut world = World::new(single_use());
    assert!(
        world
            .run(Fate {
                crash: Some(Crash::Before(3)),
                ..Fate::default()
            })
            .is_none()
    );
    assert!(world.stored().credential.intent.is_some());
    let landed = world.run(Fate::default());
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.label == "in_flight"));
    assert_eq!(world.issuer.presented, 0);
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
    assert_eq!(world.stored().credential.state.label(), "revoked");
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
    world.run(Fate::on(Wire::Status(429)));
    world.limited = Some(Limited::Grant);
    world.run(Fate::on(Wire::Status(429)));
    assert_eq!(world.stored().credential.state.label(), "suspended");
    let sent = world.issuer.presented;
    world.run(Fate::default());
    assert_eq!(
        world.issuer.presented, sent,
        "nothing is sent while it lasts"
    );
    world.now = world.now.plus(Duration::from_secs(61));
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
}

#[test]
fn an_input_that_answers_nothing_ends_the_flow() {
    let (flow, _) = Flow::new(World::new(single_use()).plan(0), UnixTime::from_secs(1));
    let (_, effect) = flow.advance(Input::Recorded(Ok(Version(1))), UnixTime::from_secs(1));
    assert!(matches!(effect, Effect::Land(Landing::Failed(f)) if f.kind == ErrorKind::Internal));
}

#[test]
fn a_rotation_that_the_store_does_not_take_is_kept_and_its_token_served() {
    let mut world = World::new(single_use());
    // The mark is answered; what comes back is not recorded, however often it is tried.
    world.fail_after_marks = true;
    let landed = world.run(Fate::without_a_store());
    assert!(matches!(landed, Some(Landing::Renewed(_))));
    assert_eq!(world.safe_grant(), Some(world.issuer.current()));
    world.fail_after_marks = false;
    assert!(matches!(
        world.run(Fate::default()),
        Some(Landing::Renewed(_))
    ));
    assert_eq!(world.issuer.replays, 0);
}

#[test]
fn a_commit_of_somebody_who_replaced_nothing_costs_no_rotation() {
    let mut world = World::new(single_use());
    world.touched_meanwhile = true;
    let landed = world.run(Fate::default());
    assert!(matches!(landed, Some(Landing::Renewed(_))));
    assert_eq!(world.stored_grant(), Some(world.issuer.current()));
}

#[test]
fn a_grant_is_not_presented_while_its_mark_cannot_be_recorded() {
    let mut world = World::new(single_use());
    let landed = world.run(Fate::without_a_store());
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.label == "store"));
    assert_eq!(world.issuer.presented, 0);
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
        crash: Some(Crash::Before(4)),
        ..Fate::default()
    });
    world.now = world.now.plus(Duration::from_secs(60));
    world.cause = Cause::Operator;
    world.run(Fate::on(Wire::NotSent));
    assert_eq!(world.stored().credential.state.label(), "uncertain");
    world.cause = Cause::First;
    let sent = world.issuer.presented;
    world.run(Fate::default());
    assert_eq!(
        world.issuer.presented, sent,
        "no flight presents it by itself"
    );
}

#[test]
fn a_probe_under_way_keeps_others_from_probing_too() {
    let mut world = World::new(unknown());
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    go_on_until(&mut world, 1, "send", &Fate::default(), Commit::Answered);
    let sent = world.issuer.presented;
    let landed = world.run(Fate::default());
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.label == "in_flight"));
    assert_eq!(world.issuer.presented, sent);
}

#[test]
fn a_probe_that_died_with_its_process_was_the_probe() {
    let mut world = World::new(unknown());
    world.run(Fate::on(Wire::LostBefore));
    world.wait_it_out();
    let probe = Fate {
        crash: Some(Crash::After(3)),
        ..Fate::on(Wire::LostBefore)
    };
    assert!(world.run(probe).is_none());
    let sent = world.issuer.presented;
    world.now = world.now.plus(Duration::from_secs(60));
    let landed = world.run(Fate::default());
    assert!(matches!(landed, Some(Landing::Failed(f)) if f.label == "lost_answer"));
    assert_eq!(world.issuer.presented, sent);
}

#[test]
fn a_grace_begins_when_the_grant_leaves_and_not_when_its_answer_is_given_up() {
    let mut world = World::new(grace());
    let left_at = world.now;
    world.run(Fate::on(Wire::LostAfter));
    assert!(world.now > left_at, "giving up took its time");
    world.now = left_at.plus(world::GRACE);
    world.run(Fate::default());
    assert_eq!(
        (world.issuer.presented, world.issuer.has_ended()),
        (1, false)
    );
    assert_eq!(
        world.stored().credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn a_crash_inside_the_grace_does_not_begin_it_anew() {
    let mut world = World::new(grace());
    let left_at = world.now;
    world.run(Fate::on(Wire::LostAfter));
    world.wait_it_out();
    // Marked and sent once more, then the process died; and the attempt after that met no issuer.
    world.run(Fate {
        crash: Some(Crash::After(3)),
        ..Fate::on(Wire::LostAfter)
    });
    world.now = left_at.plus(Duration::from_secs(50));
    world.run(Fate::on(Wire::NotSent));
    let sent = world.issuer.presented;
    world.now = left_at.plus(world::GRACE);
    world.run(Fate::default());
    assert_eq!(
        (world.issuer.presented, world.issuer.has_ended()),
        (sent, false)
    );
}

#[test]
fn a_probe_after_the_grace_is_the_last_one() {
    let mut world = World::new(world::Setup {
        after_lost_answer: Some(AfterLostAnswer::Probe),
        ..grace()
    });
    world.run(Fate::on(Wire::LostBefore));
    world.now = world.now.plus(world::GRACE);
    world.run(Fate::on(Wire::LostBefore));
    assert_eq!(world.issuer.presented, 2);
    world.run(Fate::default());
    assert_eq!(world.issuer.presented, 2, "its answer was lost too");
    assert_eq!(
        world.stored().credential.state.label(),
        "reauthorization_required"
    );
}

#[test]
fn a_mark_that_was_made_unheard_is_known_again_under_somebody_elses_commit() {
    let mut world = World::new(single_use());
    go_on_until(&mut world, 0, "mark", &Fate::default(), Commit::Unanswered);
    world.touch();
    let landed = loop {
        world.hear(0);
        if let Some(landing) = world.perform(0, &Fate::default(), Commit::Answered) {
            break landing;
        }
    };
    assert!(matches!(landed, Landing::Renewed(_)));
    assert_eq!(world.stored().credential.intent, None);
    assert_eq!(world.stored_grant(), Some(world.issuer.current()));
}

#[test]
fn a_mark_that_the_store_got_twice_is_ours() {
    let mut world = World::new(single_use());
    let landed = world.run(Fate {
        commits: vec![Commit::Twice; 9],
        ..Fate::default()
    });
    assert!(matches!(landed, Some(Landing::Renewed(_))));
    assert_eq!(world.stored_grant(), Some(world.issuer.current()));
}

#[test]
fn a_record_that_was_made_unheard_does_not_erase_the_mark_of_whoever_came_next() {
    for (setup, wire) in [
        (single_use(), Wire::Answered),
        (unknown(), Wire::LostBefore),
    ] {
        let mut world = World::new(setup);
        go_on_until(
            &mut world,
            0,
            "persist",
            &Fate::on(wire),
            Commit::Unanswered,
        );
        world.wait_it_out();
        go_on_until(&mut world, 1, "send", &Fate::default(), Commit::Answered);
        let mark = world.stored().credential.intent;
        assert!(mark.is_some());
        while !world.is_idle(0) {
            world.hear(0);
            world.perform(0, &Fate::on(wire), Commit::Answered);
        }
        assert_eq!(world.stored().credential.intent, mark, "{wire:?}");
    }
}

/// A process performs its effects up to this one, whose commits go as told; its result is not heard yet.
fn go_on_until(world: &mut World, who: usize, effect: &str, fate: &Fate, commit: Commit) {
    world.log.clear();
    if world.is_idle(who) {
        world.begin(who);
    }
    while world.log.last().is_none_or(|last| *last != effect) {
        world.hear(who);
        let how = match world.next(who) {
            Some(next) if next == effect => commit,
            _ => Commit::Answered,
        };
        assert!(world.perform(who, fate, how).is_none());
    }
}
