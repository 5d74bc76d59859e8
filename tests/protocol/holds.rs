//! The protocol as the code has it, in sizes that a continuous run can afford.

use crate::check::holds;
use crate::model::*;

/// One process, and one of everything.
const BOUNDS: Bounds = Bounds {
    nodes: 1,
    attempts: 3,
    crashes: 1,
    losses: 1,
    faults: 2,
    late: 0,
    outages: 1,
    revokes: 1,
    replaces: 0,
    orders: 0,
    failovers: 0,
};
const STRICT: Rules = Rules::single_use();

fn all_holds(name: &str, rules: Rules, bounds: Bounds) {
    holds(name, Protocol { rules, bounds }, 1);
}

#[test]
fn one_process_keeps_every_promise() {
    let rules = STRICT;
    all_holds("one process", rules, BOUNDS);
    let bounds = Bounds {
        replaces: 1,
        outages: 0,
        ..BOUNDS
    };
    all_holds("one process, replaced", rules, bounds);
    let bounds = Bounds {
        late: 1,
        outages: 0,
        ..BOUNDS
    };
    all_holds("one process, late commits", rules, bounds);
}

#[test]
fn one_process_keeps_every_promise_when_an_operator_orders_a_probe() {
    let bounds = Bounds {
        orders: 1,
        revokes: 0,
        ..BOUNDS
    };
    all_holds("one process, ordered probe", STRICT, bounds);
}

#[test]
fn one_process_keeps_every_promise_with_a_grant_in_grace() {
    let bounds = Bounds {
        losses: 2,
        revokes: 0,
        ..BOUNDS
    };
    all_holds("one process, grace", Rules::grace(), bounds);
}

#[test]
fn two_nodes_keep_every_promise() {
    let bounds = Bounds {
        nodes: 2,
        faults: 1,
        outages: 0,
        ..BOUNDS
    };
    all_holds("two nodes", STRICT, bounds);
    let bounds = Bounds {
        nodes: 2,
        crashes: 0,
        outages: 0,
        revokes: 0,
        ..BOUNDS
    };
    all_holds("two nodes, undurable records", STRICT, bounds);
    let bounds = Bounds { late: 1, ..bounds };
    all_holds("two nodes, late commits", STRICT, bounds);
}

#[test]
fn two_nodes_keep_every_promise_with_a_grant_in_grace() {
    let bounds = Bounds {
        nodes: 2,
        crashes: 0,
        losses: 2,
        faults: 1,
        outages: 0,
        revokes: 0,
        ..BOUNDS
    };
    all_holds("two nodes, grace", Rules::grace(), bounds);
}

#[test]
fn two_nodes_keep_every_promise_when_an_operator_orders_a_probe() {
    let rules = Rules {
        over: Over::Attempt,
        requests: Requests::EndWithSender,
        ..STRICT
    };
    let bounds = Bounds {
        nodes: 2,
        crashes: 0,
        faults: 1,
        orders: 1,
        outages: 0,
        revokes: 0,
        ..BOUNDS
    };
    all_holds("two nodes, ordered probe", rules, bounds);
    let bounds = Bounds {
        orders: 2,
        ..bounds
    };
    all_holds("two nodes, two ordered probes", rules, bounds);
    let bounds = Bounds {
        faults: 2,
        orders: 0,
        ..bounds
    };
    all_holds("two nodes, nobody doubted for a slow store", rules, bounds);
    let bounds = Bounds {
        faults: 0,
        orders: 1,
        ..bounds
    };
    all_holds(
        "two nodes, grace, handed over again",
        Rules::grace(),
        bounds,
    );
}

#[test]
fn three_nodes_keep_every_promise() {
    let rules = Rules {
        store: Store::LosesLeases,
        ..STRICT
    };
    let bounds = Bounds {
        nodes: 3,
        crashes: 0,
        faults: 1,
        outages: 0,
        revokes: 0,
        failovers: 1,
        ..BOUNDS
    };
    all_holds("three nodes", rules, bounds);
}
