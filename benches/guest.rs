//! What does the sandbox cost? A call into a plugin next to a bare call of the same component in the same engine, and next to a
//! component in which there is nothing. And what decides how plugins are compiled and their memories put back: the cost of a
//! start against the cost of every step.
//!
//! Trust the ratios within one run. Rows of compilation are processor time, which a busy machine does not lengthen.

use std::time::Duration;

use criterion::{Criterion, criterion_group};
use keyfob_benches::bare::{Bare, Loaded, Setup};
use keyfob_benches::guests::Guest;
use keyfob_benches::instructions::{self, Row};
use keyfob_benches::record::Record;
use keyfob_benches::spent::spent;
use keyfob_benches::stage;
use tokio::runtime::Runtime;
use wasmtime::component::Component;

/// The groups, in the order of the tables.
const GROUPS: [&str; 2] = ["a step", "a refresh's two steps, bare, by setup"];
/// How often each compilation is repeated; the median counts.
const COMPILATIONS: usize = 9;
/// How engines can be set up. The first is ours.
const SETUPS: [(&str, Setup); 5] = [
    ("as ours", Setup::OURS),
    (
        "optimised the other way",
        Setup {
            optimised: !Setup::OURS.optimised,
            ..Setup::OURS
        },
    ),
    (
        "nothing kept resident",
        Setup {
            resident_bytes: 0,
            ..Setup::OURS
        },
    ),
    (
        "written pages looked up",
        Setup {
            scanned: true,
            ..Setup::OURS
        },
    ),
    (
        "without epochs",
        Setup {
            epochs: false,
            ..Setup::OURS
        },
    ),
];

fn alone() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn bare(setup: Setup) -> Bare {
    Bare::new(setup, stage::oauth2(), &stage::oauth2_settings()).expect("a plugin")
}

/// One call each; a refresh is two of them.
fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("a step");
    let alone = alone();
    let nothing = Loaded::nothing(Setup::OURS).expect("an engine");
    let bare = bare(Setup::OURS);
    let guest = alone.block_on(Guest::new());
    group.bench_function("floor: an instance of nothing", |b| {
        b.iter(|| alone.block_on(nothing.instantiate()).expect("room"));
    });
    group.bench_function("floor: an instance of oauth2", |b| {
        b.iter(|| alone.block_on(bare.instantiate()).expect("room"));
    });
    group.bench_function("floor: classify, bare", |b| {
        b.iter(|| alone.block_on(bare.classify()).expect("a verdict"));
    });
    group.bench_function("classify, ours", |b| {
        b.iter(|| alone.block_on(guest.classify()));
    });
    group.bench_function("floor: both steps of a refresh, bare", |b| {
        b.iter(|| alone.block_on(bare.refresh()).expect("two answers"));
    });
    group.bench_function("both steps of a refresh, ours", |b| {
        b.iter(|| alone.block_on(guest.refresh()));
    });
    group.bench_function("decide, ours", |b| {
        b.iter(|| alone.block_on(guest.decide()))
    });
    group.finish();
}

/// The same two steps in engines set up otherwise.
fn setups(c: &mut Criterion) {
    let mut group = c.benchmark_group("a refresh's two steps, bare, by setup");
    let alone = alone();
    for (name, setup) in SETUPS {
        // Not every kernel can tell which pages were written.
        if setup.engine().is_err() {
            continue;
        }
        let bare = bare(setup);
        group.bench_function(name, |b| {
            b.iter(|| alone.block_on(bare.refresh()).expect("two answers"));
        });
    }
    group.finish();
}

/// Processor time of a compilation, and what comes of it.
fn compilations(record: &mut Record) -> anyhow::Result<()> {
    let shipped = [
        ("oauth2", stage::oauth2()),
        ("allowlist", stage::allowlist()),
    ];
    for (plugin, bytes) in shipped {
        for optimised in [false, true] {
            let setup = Setup {
                optimised,
                ..Setup::OURS
            };
            let how = if optimised {
                "optimised"
            } else {
                "not optimised"
            };
            let engine = setup.engine()?;
            let mut times = Vec::with_capacity(COMPILATIONS);
            let mut code = 0;
            for _ in 0..COMPILATIONS {
                let before = spent();
                let compiled = Component::from_binary(&engine, bytes)?;
                times.push(spent() - before);
                let image = compiled.image_range();
                code = image.end.addr() - image.start.addr();
            }
            times.sort_unstable();
            let median = times[COMPILATIONS / 2].as_secs_f64() * 1e3;
            record.row(
                "compiling",
                &format!("{plugin}, {how}"),
                median,
                "ms",
                "processor time",
            );
            let name = format!("{plugin}, {how}: its code");
            record.row("compiling", &name, code as f64 / 1024.0, "KiB", "");
        }
    }
    Ok(())
}

/// The rows of [`steps`], counted.
const COUNTED: [Row; 6] = [
    ("floor: an instance of oauth2", || {
        let (alone, bare) = (alone(), bare(Setup::OURS));
        Box::new(move || alone.block_on(bare.instantiate()).expect("room"))
    }),
    ("floor: classify, bare", || {
        let (alone, bare) = (alone(), bare(Setup::OURS));
        Box::new(move || alone.block_on(bare.classify()).expect("a verdict"))
    }),
    ("classify, ours", || {
        let alone = alone();
        let guest = alone.block_on(Guest::new());
        Box::new(move || alone.block_on(guest.classify()))
    }),
    ("floor: both steps of a refresh, bare", || {
        let (alone, bare) = (alone(), bare(Setup::OURS));
        Box::new(move || alone.block_on(bare.refresh()).expect("two answers"))
    }),
    ("both steps of a refresh, ours", || {
        let alone = alone();
        let guest = alone.block_on(Guest::new());
        Box::new(move || alone.block_on(guest.refresh()))
    }),
    ("decide, ours", || {
        let alone = alone();
        let guest = alone.block_on(Guest::new());
        Box::new(move || alone.block_on(guest.decide()))
    }),
];

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = steps, setups
}

fn main() -> anyhow::Result<()> {
    if instructions::counts(&COUNTED) {
        return Ok(());
    }
    let mut record = Record::new("guest");
    benches();
    Criterion::default().configure_from_args().final_summary();
    record.criterion(&GROUPS)?;
    compilations(&mut record)?;
    let group = "a step: instructions, a byte of memory put back counts as one";
    instructions::record(&mut record, group, &COUNTED)?;
    record.save()?;
    Ok(())
}
