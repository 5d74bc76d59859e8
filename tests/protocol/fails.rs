//! Each rule taken away, and the promise that breaks without it: a model that could not fail would prove nothing.

use crate::check::breaks;
use crate::model::*;

/// Two nodes, and one message lost.
const BOUNDS: Bounds = Bounds {
    nodes: 2,
    attempts: 3,
    crashes: 0,
    losses: 1,
    faults: 0,
    late: 0,
    outages: 0,
    revokes: 0,
    replaces: 0,
    orders: 0,
    failovers: 0,
};
const ONE_FAULT: Bounds = Bounds {
    faults: 1,
    ..BOUNDS
};
const STRICT: Rules = Rules::single_use();
const GRACE: Rules = Rules::grace();

fn fails(name: &str, rules: Rules, bounds: Bounds, promise: &'static str) {
    breaks(name, &Protocol { rules, bounds }, promise);
}

#[test]
fn a_lease_alone_lets_two_present_one_grant() {
    let rules = Rules {
        intent: Intent::None,
        ..STRICT
    };
    let name = "lease, no intent";
    fails(name, rules, BOUNDS, "no_spent_grant_is_presented");
    fails(name, rules, BOUNDS, "an_intent_precedes_every_presentation");
    fails(name, rules, BOUNDS, "at_rest_the_stored_grant_is_live");
}

#[test]
fn a_fenced_commit_throws_a_received_rotation_away() {
    let rules = Rules {
        intent: Intent::None,
        commit: Gate::Owner,
        ..STRICT
    };
    let name = "lease, fenced commit";
    fails(name, rules, BOUNDS, "no_spent_grant_is_presented");
    fails(name, rules, BOUNDS, "a_received_rotation_is_kept");
    let rules = Rules {
        commit: Gate::Owner,
        ..STRICT
    };
    let name = "blocking intent, fenced commit";
    fails(name, rules, BOUNDS, "a_received_rotation_is_kept");
}

#[test]
fn an_intent_that_a_takeover_may_pass_protects_nothing() {
    let rules = Rules {
        intent: Intent::Passable,
        ..STRICT
    };
    let name = "intent that does not block a takeover";
    fails(name, rules, BOUNDS, "no_spent_grant_is_presented");
}

#[test]
fn a_fence_that_counts_is_handed_out_twice_by_a_store_that_loses_leases() {
    let rules = Rules {
        mark: Gate::Number,
        store: Store::LosesLeases,
        ..STRICT
    };
    let bounds = Bounds {
        failovers: 1,
        ..BOUNDS
    };
    let name = "numeric fence, lease writes lost";
    fails(name, rules, bounds, "no_spent_grant_is_presented");
}

#[test]
fn a_store_that_rolls_back_breaks_all_of_it() {
    let rules = Rules {
        store: Store::RollsBack,
        ..STRICT
    };
    let bounds = Bounds {
        failovers: 1,
        revokes: 1,
        ..BOUNDS
    };
    let name = "the last write is lost on failover";
    fails(name, rules, bounds, "no_spent_grant_is_presented");
    fails(name, rules, bounds, "nothing_undoes_a_revoke");
    fails(name, rules, bounds, "versions_never_go_back");
}

#[test]
fn a_conflict_that_ends_a_flow_throws_a_rotation_away() {
    let rules = Rules {
        conflict: Conflict::GiveUp,
        ..STRICT
    };
    let name = "a conflict ends the flow";
    fails(name, rules, BOUNDS, "a_received_rotation_is_kept");
}

#[test]
fn a_commit_written_onto_whatever_is_there_undoes_what_an_operator_did() {
    let rules = Rules {
        conflict: Conflict::Blind,
        ..STRICT
    };
    let bounds = Bounds {
        nodes: 1,
        revokes: 1,
        replaces: 1,
        ..BOUNDS
    };
    let name = "a conflict is written over";
    fails(name, rules, bounds, "nothing_undoes_a_revoke");
    fails(name, rules, bounds, "nothing_undoes_a_replacement");
}

#[test]
fn a_rotation_that_had_landed_and_is_written_again_wipes_out_the_next_intent() {
    let rules = Rules {
        conflict: Conflict::Overwrite,
        ..STRICT
    };
    let name = "a commit decided again is written over the same grant";
    fails(name, rules, ONE_FAULT, "no_spent_grant_is_presented");
    fails(name, rules, ONE_FAULT, "at_rest_the_stored_grant_is_live");
}

#[test]
fn an_unanswered_commit_is_not_a_failed_one() {
    let rules = Rules {
        unanswered: Unanswered::GiveUp,
        ..STRICT
    };
    let name = "an unanswered commit counts as failed";
    fails(name, rules, ONE_FAULT, "a_received_rotation_is_kept");
    fails(name, rules, ONE_FAULT, "a_doubt_has_a_cause");
}

#[test]
fn a_token_published_before_its_commit_is_one_whose_grant_nobody_has() {
    let rules = Rules {
        publish: Publish::BeforeCommit,
        ..STRICT
    };
    let name = "publish before commit";
    fails(name, rules, BOUNDS, "publish_implies_persisted");
}

#[test]
fn a_node_that_keeps_a_record_and_goes_on_presents_by_an_old_row() {
    let rules = Rules {
        undurable: Undurable::Presents,
        ..STRICT
    };
    let bounds = Bounds {
        nodes: 1,
        faults: 2,
        ..BOUNDS
    };
    let name = "a record waits and the node goes on";
    let promise = "nothing_is_presented_while_a_record_waits";
    fails(name, rules, bounds, promise);
}

#[test]
fn a_grant_in_grace_is_not_resent_before_the_first_attempt_is_over() {
    let promise = "no_spent_grant_is_presented";
    let passable = Rules {
        intent: Intent::Passable,
        ..GRACE
    };
    fails("grace, takeover at any time", passable, BOUNDS, promise);
    let exchange = Rules {
        over: Over::Exchange,
        ..GRACE
    };
    fails(
        "grace, takeover during a slow commit",
        exchange,
        BOUNDS,
        promise,
    );
    let name = "grace, resent while the first request may still arrive";
    let at_once = Rules {
        doubt: Doubt::ClearsIntent,
        ..GRACE
    };
    let bounds = Bounds { nodes: 1, ..BOUNDS };
    fails(name, at_once, bounds, promise);
}

#[test]
fn a_grace_declared_as_long_as_the_issuers_ends_in_between() {
    let rules = Rules {
        window: Window::AsLong,
        ..GRACE
    };
    let bounds = Bounds { nodes: 1, ..BOUNDS };
    let name = "grace without a margin";
    fails(name, rules, bounds, "no_spent_grant_is_presented");
}

#[test]
fn an_ordered_probe_can_cost_what_another_node_is_about_to_commit() {
    let promise = "an_ordered_probe_costs_nothing";
    let timely = Rules {
        requests: Requests::EndWithSender,
        ..STRICT
    };
    let ordered = Bounds {
        orders: 1,
        ..BOUNDS
    };
    fails("probe during a slow commit", timely, ordered, promise);
    let one = Bounds {
        nodes: 1,
        ..ordered
    };
    let at_once = Rules {
        doubt: Doubt::ClearsIntent,
        ..STRICT
    };
    let name = "probe while the first request may still arrive";
    fails(name, at_once, one, promise);
}
