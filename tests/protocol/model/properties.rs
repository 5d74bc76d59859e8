//! What must hold in every world, and what some world must show so that nothing holds for want of cases.

use stateright::Property;

use super::Protocol;
use super::rules::{Issuer, Over};
use super::world::{Glimpse, Phase, Standing, World, Worth, Wrong};

/// The properties of a variant with its bounds: what its bounds leave out need not be seen.
pub fn of(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let bounds = &protocol.bounds;
    let mut properties = always();
    let mut sometimes = |when: bool, name, condition| {
        if when {
            properties.push(Property::sometimes(name, condition));
        }
    };
    sometimes(true, "a_rotation_is_committed", |_, world: &World| {
        world.glimpses.has(Glimpse::RotationCommitted)
    });
    sometimes(true, "a_token_is_published", |_, world: &World| {
        world.glimpses.has(Glimpse::Published)
    });
    sometimes(
        bounds.nodes > 1,
        "a_takeover_follows_an_expired_lease",
        |_, world: &World| {
            let under_way = |phase| matches!(phase, Phase::Waiting(_) | Phase::Recording(..));
            world.nodes.iter().filter(|it| under_way(it.phase)).count() > 1
        },
    );
    sometimes(
        bounds.losses > 0,
        "an_answer_is_lost",
        |_, world: &World| world.glimpses.has(Glimpse::AnswerLost),
    );
    sometimes(
        bounds.losses > 0,
        "a_credential_becomes_uncertain",
        |_, world: &World| world.row.standing == Standing::Uncertain,
    );
    sometimes(
        bounds.losses > 0,
        "a_credential_ends",
        |_, world: &World| world.row.standing == Standing::Ended,
    );
    sometimes(
        bounds.crashes > 0,
        "an_intent_outlives_its_owner",
        |_, world: &World| world.at_rest() && world.row.intent.is_some(),
    );
    sometimes(
        bounds.faults > 0,
        "an_unanswered_commit_had_landed",
        |_, world: &World| world.glimpses.has(Glimpse::LandedBefore),
    );
    sometimes(
        bounds.faults > 1,
        "an_undurable_record_is_recorded_later",
        |_, world: &World| world.glimpses.has(Glimpse::MadeDurableLater),
    );
    sometimes(
        bounds.late > 0,
        "a_late_commit_is_taken",
        |_, world: &World| world.glimpses.has(Glimpse::LateCommitTaken),
    );
    let rebases = bounds.nodes > 1 && bounds.losses + bounds.crashes > 0;
    sometimes(rebases, "a_commit_is_decided_again", |_, world: &World| {
        world.glimpses.has(Glimpse::Rebased)
    });
    sometimes(
        bounds.revokes > 0,
        "a_late_grant_is_revoked_at_the_issuer",
        |_, world: &World| world.glimpses.has(Glimpse::OrphanRevoked),
    );
    sometimes(
        bounds.orders > 0,
        "an_ordered_probe_is_answered",
        |_, world: &World| world.glimpses.has(Glimpse::ProbeAnswered),
    );
    let grace = protocol.rules.issuer == Issuer::Grace && bounds.losses > 0;
    sometimes(
        grace,
        "a_grant_is_resent_within_its_grace",
        |_, world: &World| world.glimpses.has(Glimpse::ResentInGrace),
    );
    properties
}

fn always() -> Vec<Property<Protocol>> {
    vec![
        // The issuer never sees a replay that it would punish, but for one that an operator ordered.
        Property::always("no_spent_grant_is_presented", |_, world: &World| {
            world.is_free_of(Wrong::SpentGrantPresented)
        }),
        // One that an operator ordered ends no grant that somebody has.
        Property::always("an_ordered_probe_costs_nothing", |_, world: &World| {
            world.is_free_of(Wrong::ProbeCostAGrant)
        }),
        Property::always("a_received_rotation_is_kept", |_, world: &World| {
            world.is_free_of(Wrong::RotationDiscarded)
        }),
        Property::always("nothing_undoes_a_revoke", |_, world: &World| {
            !world.revoked || world.row.standing == Standing::Revoked
        }),
        Property::always("nothing_undoes_a_replacement", |_, world: &World| {
            world.row.grant.is_none_or(|grant| world.in_force(grant))
        }),
        Property::always("versions_never_go_back", |_, world: &World| {
            world.is_free_of(Wrong::WentBack)
        }),
        Property::always(
            "an_intent_precedes_every_presentation",
            |_, world: &World| world.is_free_of(Wrong::PresentedUnmarked),
        ),
        Property::always(
            "nothing_is_presented_while_a_record_waits",
            |_, world: &World| world.is_free_of(Wrong::PresentedWhileUndurable),
        ),
        Property::always("publish_implies_persisted", |_, world: &World| {
            world.is_free_of(Wrong::PublishedUnpersisted)
        }),
        Property::always("at_rest_the_stored_grant_is_live", |_, world: &World| {
            !world.at_rest() || stored_grant_is_live(world)
        }),
        // Something was lost, or the store was away for longer than others wait for an attempt to be over.
        Property::always("a_doubt_has_a_cause", |protocol, world: &World| {
            let doubted = matches!(world.row.standing, Standing::Uncertain | Standing::Ended);
            let lost = world.used.losses + world.used.crashes + world.used.orders > 0;
            let others = protocol.bounds.nodes > 1 && protocol.rules.over == Over::Exchange;
            !world.at_rest() || !doubted || lost || others && world.used.faults > 1
        }),
    ]
}

/// Or the row says that it may not be: it is doubted, ended or revoked, or an intent stands; or an operator ordered it.
fn stored_grant_is_live(world: &World) -> bool {
    let row = &world.row;
    match (row.standing, row.intent, row.grant) {
        (Standing::Live, None, Some(grant)) => {
            world.worth[usize::from(grant)] == Worth::Live || world.ordered.has(grant)
        }
        (Standing::Live, None, None) => false,
        _ => true,
    }
}
