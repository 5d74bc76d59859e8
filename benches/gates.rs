//! How much work a hit, a step and a refresh are: instructions and allocations, counted by valgrind, against the counts that
//! are committed here. The same on a busy machine as on an idle one, so that a change that makes one of them dearer fails,
//! whatever the clock says.
//!
//! A count below its baseline passes: lower the baseline with the change that earned it. Other processors take other paths
//! through the C library, which the tolerance covers.

use std::hint::black_box;
use std::sync::Arc;

use gungraun::prelude::*;
use gungraun::{Callgrind, Dhat, DhatMetric, EventKind};
use keyfob::cache::{CoarseClock, TokenHandle};
use keyfob::model::contract::Rotation;
use keyfob::model::policy::TokenRequest;
use keyfob::store::memory::MemoryStore;
use keyfob_benches::cached::{self, Cached};
use keyfob_benches::guests::Guest;
use keyfob_benches::stage::{Place, Stage};
use tokio::runtime::Runtime;

/// One count, as it was when it was last looked at.
struct Baseline {
    instructions: u64,
    /// Of a hit there are none. Where plugins run, valgrind cannot tell whose they are: `tests/alloc` counts those.
    allocates: bool,
}

/// A thousand hits, so that entering and leaving does not show.
const HITS: usize = 1_000;
/// The first few pay for tables that grow; those are not what is watched.
const WARM: usize = 5;
/// What a count may be above its baseline: seeds of hash tables and the processor's string functions move it by less.
const TOLERANCE_PERCENT: u64 = 8;
/// Stacks of plugins are far from the thread's own, and smaller than this.
const MAX_STACKFRAME: &str = "--max-stackframe=67108864";

const HANDLE: Baseline = Baseline {
    instructions: 56_040,
    allocates: false,
};
const BORROWED: Baseline = Baseline {
    instructions: 482_245,
    allocates: false,
};
const OWNED: Baseline = Baseline {
    instructions: 525_713,
    allocates: false,
};
const DECISION: Baseline = Baseline {
    instructions: 189_000,
    allocates: true,
};
const STEPS: Baseline = Baseline {
    instructions: 487_000,
    allocates: true,
};
const REFRESH: Baseline = Baseline {
    instructions: 757_000,
    allocates: true,
};
const SINGLE_USE: Baseline = Baseline {
    instructions: 840_000,
    allocates: true,
};

// === impl Baseline ===

impl Baseline {
    fn gate(&self) -> LibraryBenchmarkConfig {
        let most = |count: u64| count + count * TOLERANCE_PERCENT / 100;
        let mut callgrind = Callgrind::default();
        callgrind.hard_limits([(EventKind::Ir, most(self.instructions))]);
        let mut config = LibraryBenchmarkConfig::default();
        config.valgrind_args([MAX_STACKFRAME]).tool(callgrind);
        if !self.allocates {
            let mut dhat = Dhat::default();
            dhat.hard_limits([(DhatMetric::TotalBlocks, 0_u64)]);
            config.tool(dhat);
        }
        config
    }
}

/// Everything on the thread that asks.
fn alone() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn handle() -> TokenHandle {
    let mut handle = Cached::new(1).handle(CoarseClock::Kernel);
    handle.get().expect("it has a token");
    handle
}

fn thousand() -> (Cached, Vec<TokenRequest>) {
    let cached = Cached::new(HITS);
    let requests: Vec<_> = (0..HITS).map(cached::request).collect();
    let first = &requests[0];
    let epoch = cached.epoch.current();
    let found = cached
        .cache
        .lookup(&cached.caller, first, epoch, cached.now);
    assert!(found.is_some());
    (cached, requests)
}

fn guest() -> (Runtime, Guest) {
    let alone = alone();
    let guest = alone.block_on(Guest::new());
    for _ in 0..WARM {
        alone.block_on(guest.refresh());
        alone.block_on(guest.decide());
    }
    (alone, guest)
}

fn stage(rotation: Rotation) -> (Runtime, Stage) {
    let alone = alone();
    let store = Arc::new(MemoryStore::new());
    let stage = alone.block_on(Stage::new(Place::Within, rotation, store));
    for _ in 0..WARM {
        alone.block_on(stage.refresh());
    }
    (alone, stage)
}

// What is set up is given back, so that its end is not counted.

#[library_benchmark(setup = handle, config = HANDLE.gate())]
#[bench::a_thousand()]
fn hit_by_handle(mut handle: TokenHandle) -> TokenHandle {
    for _ in 0..HITS {
        assert!(black_box(&mut handle).get().is_ok());
    }
    handle
}

#[library_benchmark(setup = thousand, config = BORROWED.gate())]
#[bench::a_thousand()]
fn hit_by_key_borrowed(all: (Cached, Vec<TokenRequest>)) -> (Cached, Vec<TokenRequest>) {
    let (cached, requests) = &all;
    for request in requests {
        let (epoch, now) = (cached.epoch.current(), CoarseClock::Kernel.latest());
        let token = cached
            .cache
            .with(&cached.caller, request, epoch, now, |token, _| {
                token.generation()
            });
        assert!(token.is_some());
    }
    all
}

#[library_benchmark(setup = thousand, config = OWNED.gate())]
#[bench::a_thousand()]
fn hit_by_key_owned(all: (Cached, Vec<TokenRequest>)) -> (Cached, Vec<TokenRequest>) {
    let (cached, requests) = &all;
    for request in requests {
        let (epoch, now) = (cached.epoch.current(), CoarseClock::Kernel.latest());
        let hit = cached.cache.lookup(&cached.caller, request, epoch, now);
        assert!(hit.is_some());
    }
    all
}

#[library_benchmark(setup = guest, config = DECISION.gate())]
#[bench::one()]
fn decision(all: (Runtime, Guest)) -> (Runtime, Guest) {
    all.0.block_on(all.1.decide());
    all
}

#[library_benchmark(setup = guest, config = STEPS.gate())]
#[bench::both()]
fn steps_of_a_refresh(all: (Runtime, Guest)) -> (Runtime, Guest) {
    all.0.block_on(all.1.refresh());
    all
}

#[library_benchmark(setup = stage, config = REFRESH.gate())]
#[bench::one(Rotation::Never)]
fn refresh(all: (Runtime, Stage)) -> (Runtime, Stage) {
    all.0.block_on(all.1.refresh());
    all
}

#[library_benchmark(setup = stage, config = SINGLE_USE.gate())]
#[bench::one(Rotation::SingleUse)]
fn refresh_of_a_single_use_grant(all: (Runtime, Stage)) -> (Runtime, Stage) {
    all.0.block_on(all.1.refresh());
    all
}

library_benchmark_group!(
    name = gates,
    benchmarks = [
        hit_by_handle,
        hit_by_key_borrowed,
        hit_by_key_owned,
        decision,
        steps_of_a_refresh,
        refresh,
        refresh_of_a_single_use_grant
    ]
);

main!(library_benchmark_groups = gates);
