//! The refresh protocol at its full size, for whoever changes it: minutes, where the tests take seconds.
//!
//! ```text
//! cargo run --release -p keyfob-tests --example protocol
//! ```

#[expect(dead_code, reason = "what breaks is for the tests")]
mod check;
#[expect(dead_code, reason = "the variants that break are for the tests")]
mod model;

use std::time::Instant;

use check::holds;
use model::{Bounds, Doubt, Over, Protocol, Requests, Rules, Store};

/// What may go wrong at most in one run, each by itself and all together.
const BOUNDS: Bounds = Bounds {
    nodes: 1,
    attempts: 3,
    crashes: 2,
    losses: 1,
    faults: 1,
    late: 0,
    outages: 0,
    revokes: 1,
    replaces: 0,
    orders: 0,
    failovers: 0,
};

#[expect(
    clippy::disallowed_methods,
    reason = "a stopwatch for whoever waits: nothing is decided by it"
)]
fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{threads} threads");
    for (name, rules, bounds) in sizes() {
        let began = Instant::now();
        holds(name, Protocol { rules, bounds }, threads);
        println!("    {:.1} s", began.elapsed().as_secs_f32());
    }
}

fn sizes() -> Vec<(&'static str, Rules, Bounds)> {
    let single_use = Rules::single_use();
    let timely = Rules {
        requests: Requests::EndWithSender,
        ..single_use
    };
    let one = Bounds {
        attempts: 4,
        losses: 2,
        faults: 3,
        outages: 1,
        replaces: 1,
        ..BOUNDS
    };
    vec![
        ("one process", single_use, one),
        (
            "one process, orders",
            single_use,
            Bounds {
                attempts: 3,
                orders: 1,
                faults: 2,
                ..one
            },
        ),
        (
            "one process, grace",
            Rules::grace(),
            Bounds {
                attempts: 3,
                faults: 2,
                ..one
            },
        ),
        (
            "two nodes",
            single_use,
            Bounds {
                nodes: 2,
                losses: 2,
                faults: 2,
                replaces: 1,
                ..BOUNDS
            },
        ),
        (
            "two nodes, orders",
            Rules {
                over: Over::Attempt,
                ..timely
            },
            Bounds {
                nodes: 2,
                crashes: 1,
                faults: 2,
                orders: 1,
                ..BOUNDS
            },
        ),
        (
            "two nodes, grace",
            Rules::grace(),
            Bounds {
                nodes: 2,
                crashes: 1,
                losses: 2,
                revokes: 0,
                ..BOUNDS
            },
        ),
        (
            "two nodes, grace, requests end with their sender",
            Rules {
                requests: Requests::EndWithSender,
                doubt: Doubt::ClearsIntent,
                ..Rules::grace()
            },
            Bounds {
                nodes: 2,
                crashes: 1,
                losses: 2,
                revokes: 0,
                ..BOUNDS
            },
        ),
        (
            "two nodes, late commits",
            single_use,
            Bounds {
                nodes: 2,
                faults: 2,
                late: 1,
                ..BOUNDS
            },
        ),
        (
            "three nodes",
            Rules {
                store: Store::LosesLeases,
                ..single_use
            },
            Bounds {
                nodes: 3,
                failovers: 1,
                ..BOUNDS
            },
        ),
        (
            "three nodes, undurable records, late commits",
            single_use,
            Bounds {
                nodes: 3,
                crashes: 1,
                faults: 2,
                late: 1,
                ..BOUNDS
            },
        ),
        (
            "three nodes, four presentations",
            single_use,
            Bounds {
                nodes: 3,
                attempts: 4,
                ..BOUNDS
            },
        ),
        (
            "three nodes, grace",
            Rules::grace(),
            Bounds {
                nodes: 3,
                losses: 2,
                ..BOUNDS
            },
        ),
    ]
}
