//! How often a decision, the steps of a refresh and a whole refresh ask for memory, against the counts that are committed
//! here: the gate beside `gates`, for what valgrind cannot count. Hits are held to none by `tests/alloc`.
//!
//! A count below its baseline passes: lower the baseline with the change that earned it. A binary of its own, because an
//! allocator is global.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use keyfob::model::contract::Rotation;
use keyfob::store::memory::MemoryStore;
use keyfob_benches::guests::Guest;
use keyfob_benches::stage::{Place, Stage};
use tokio::runtime::Runtime;

/// What comes now and then (a table that grows) is spread over so many runs.
const TIMES: u64 = 50;
/// The first few pay for tables that grow.
const WARM: u64 = 10;
/// What a count may be above its baseline, and one more.
const TOLERANCE_PERCENT: u64 = 5;

const DECISION: u64 = 33;
const STEPS: u64 = 84;
const REFRESH: u64 = 339;
const SINGLE_USE: u64 = 416;

/// The system's allocator, counting what this thread asks it for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on as it came; counting touches a thread-local that needs neither allocation nor
// destruction, and a thread that is ending is not counted.
#[expect(unsafe_code, reason = "an allocator is unsafe by its interface")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Everything on the thread that counts.
fn alone() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn gate(what: &str, baseline: u64, mut run: impl FnMut()) {
    for _ in 0..WARM {
        run();
    }
    let before = ASKED.get();
    for _ in 0..TIMES {
        run();
    }
    let each = (ASKED.get() - before) / TIMES;
    let most = baseline + baseline * TOLERANCE_PERCENT / 100 + 1;
    assert!(each > 0, "{what}: nothing was counted");
    assert!(
        each <= most,
        "{what}: {each} allocations, where {baseline} were enough before"
    );
}

#[test]
fn a_decision_and_the_steps_of_a_refresh_allocate_no_more_than_they_did() {
    let alone = alone();
    let guest = alone.block_on(Guest::new());
    gate("a decision", DECISION, || alone.block_on(guest.decide()));
    gate("both steps of a refresh", STEPS, || {
        alone.block_on(guest.refresh());
    });
}

#[test]
fn a_whole_refresh_allocates_no_more_than_it_did() {
    for (what, rotation, baseline) in [
        ("a refresh", Rotation::Never, REFRESH),
        (
            "a refresh of a single-use grant",
            Rotation::SingleUse,
            SINGLE_USE,
        ),
    ] {
        let alone = alone();
        let store = Arc::new(MemoryStore::new());
        let stage = alone.block_on(Stage::new(Place::Within, rotation, store));
        gate(what, baseline, || alone.block_on(stage.refresh()));
        alone.block_on(stage.end());
    }
}
