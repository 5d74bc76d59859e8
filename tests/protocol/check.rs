//! Runs the checker over one variant and says what it found.

use std::collections::BTreeSet;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::model::{Action, Protocol};

/// Every promise holds and everything that should be seen was seen. Returns how many worlds there are.
///
/// # Panics
///
/// With the steps to the first world that breaks a promise.
pub fn holds(name: &str, protocol: Protocol, threads: usize) -> usize {
    let promises = protocol.properties().into_iter();
    let promises = promises.filter(|it| it.expectation == Expectation::Always);
    let promises: BTreeSet<_> = promises.map(|it| it.name).collect();
    let checker = protocol
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyOf(promises))
        .spawn_bfs()
        .join();
    let worlds = checker.unique_state_count();
    let steps = checker.state_count();
    let depth = checker.max_depth();
    println!("{name}: holds in {worlds} worlds, {steps} steps, {depth} deep");
    checker.assert_properties();
    worlds
}

/// The variant breaks this promise. Returns the steps to where it does; none are fewer.
///
/// # Panics
///
/// When it holds.
pub fn breaks(name: &str, protocol: &Protocol, promise: &'static str) -> Vec<Action> {
    let mut before = 0;
    // One step deeper each time: the checker keeps the last counterexample that it met, not the shortest.
    for depth in 2.. {
        let checker = protocol
            .clone()
            .checker()
            .target_max_depth(depth)
            .finish_when(HasDiscoveries::AllOf(BTreeSet::from([promise])))
            .spawn_bfs()
            .join();
        let worlds = checker.unique_state_count();
        if let Some(path) = checker.discovery(promise) {
            let steps = path.into_actions();
            println!(
                "{name}: breaks {promise} in {} of {worlds} worlds: {steps:?}",
                steps.len()
            );
            return steps;
        }
        if worlds == before {
            break;
        }
        before = worlds;
    }
    panic!("{name}: {promise} holds in {before} worlds");
}
