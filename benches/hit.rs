//! What does a token cost that is in memory? By handle and by key, next to what neither can be faster than: the same clock
//! read and expiry check over two words, or over an unsynchronised map. Trust the ratios within one run.
//!
//! Requests are laid out in the order in which they are asked, so that only the cache's memory is missed, never the
//! question's. Rows of two threads count only batches during which the other thread got on (`keyfob_benches::pair`).

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group};
use keyfob::cache::{CoarseClock, SharedTokenHandle, Ticks};
use keyfob::model::time::{Clock, SystemClock, UnixTime};
use keyfob_benches::asked::Asked;
use keyfob_benches::cached::{self, Cached, Still};
use keyfob_benches::draw::Draw;
use keyfob_benches::pair;
use keyfob_benches::record::Record;

/// All in the first cache.
const FEW: usize = 1_000;
/// All in memory.
const MANY: usize = 1_000_000;
/// How many questions are laid out: more than any cache holds, so that they stream from memory.
const QUESTIONS: usize = 1 << 18;
/// The groups, in the order of the table.
const GROUPS: [&str; 6] = [
    "handle",
    "one key",
    "1,000 keys, uniform",
    "1,000,000 keys, uniform",
    "1,000,000 keys, Zipf",
    "while tokens change",
];

fn handles(c: &mut Criterion) {
    let mut group = c.benchmark_group(GROUPS[0]);
    let cached = Cached::new(1);

    // Is this the generation I hold, and is it not over?
    let (generation, until) = (AtomicU64::new(7), AtomicU64::new(u64::MAX));
    let holds = |now: UnixTime| {
        black_box(&generation).load(Ordering::Acquire) == black_box(7)
            && now.as_millis() < black_box(&until).load(Ordering::Relaxed)
    };
    group.bench_function("floor: two words compared", |b| {
        b.iter(|| holds(black_box(cached.now)))
    });
    group.bench_function("floor: coarse clock", |b| {
        b.iter(|| CoarseClock::Kernel.latest())
    });
    group.bench_function("floor: both", |b| {
        b.iter(|| holds(CoarseClock::Kernel.latest()))
    });
    let ticked = CoarseClock::Ticked(Ticks::start().expect("a thread"));
    group.bench_function("floor: both, ticked clock", |b| {
        b.iter(|| holds(black_box(&ticked).latest()))
    });
    group.bench_function("precise clock", |b| b.iter(|| SystemClock.now()));

    let still: Arc<dyn Clock> = Arc::new(Still::at(cached.now));
    let mut handle = cached.handle(CoarseClock::Exact(still));
    group.bench_function("get, a clock that costs nothing", |b| {
        b.iter(|| black_box(&mut handle).get().is_ok())
    });
    let mut handle = cached.handle(CoarseClock::Kernel);
    group.bench_function("get", |b| b.iter(|| black_box(&mut handle).get().is_ok()));
    let mut by_ticks = cached.handle(ticked);
    group.bench_function("get, ticked clock", |b| {
        b.iter(|| black_box(&mut by_ticks).get().is_ok())
    });
    group.bench_function("get, two threads, one key", |b| {
        b.iter_custom(|iterations| {
            let (mut one, mut other) = (handle.clone(), handle.clone());
            pair::alike(
                iterations,
                move || assert!(black_box(&mut one).get().is_ok()),
                move || assert!(black_box(&mut other).get().is_ok()),
            )
        });
    });
    group.bench_function("get and clone the header", |b| {
        b.iter(|| {
            let token = black_box(&mut handle).get();
            token.map(|token| token.header().clone()).ok()
        });
    });
    let shared = SharedTokenHandle::new(&handle);
    group.bench_function("shared get", |b| {
        b.iter(|| black_box(&shared).get().is_ok())
    });
    group.bench_function("shared get, two threads", |b| {
        b.iter_custom(|iterations| {
            let get = || assert!(black_box(&shared).get().is_ok());
            pair::alike(iterations, get, get)
        });
    });
    group.finish();
}

fn by_key(c: &mut Criterion) {
    one_size(c, 1, &[(GROUPS[1], vec![0; 16])]);
    let uniform = Draw::new(1).uniform(FEW, QUESTIONS);
    one_size(c, FEW, &[(GROUPS[2], uniform)]);
    let uniform = Draw::new(2).uniform(MANY, QUESTIONS);
    let zipf = Draw::new(3).zipf(MANY, QUESTIONS);
    one_size(c, MANY, &[(GROUPS[3], uniform), (GROUPS[4], zipf)]);
}

/// All rows of a cache of one size, for each way to draw from it.
fn one_size(c: &mut Criterion, keys: usize, ways: &[(&str, Vec<usize>)]) {
    let cached = Cached::new(keys);
    let plain = cached.plain();
    for (name, drawn) in ways {
        let mut group = c.benchmark_group(*name);
        let mut asked = Asked::new(drawn);
        group.bench_function("floor: unsynchronised map, borrow", |b| {
            b.iter(|| cached::peek(&plain, asked.next()))
        });
        group.bench_function("with (borrow)", |b| b.iter(|| cached.borrow(asked.next())));
        group.bench_function("floor: unsynchronised map, clone", |b| {
            b.iter(|| {
                let found = plain.get(cached::subject_of(asked.next()));
                let found = found.filter(|held| cached::is_fresh(held));
                found.map(|(_, token)| Arc::clone(token))
            })
        });
        group.bench_function("lookup (clone)", |b| b.iter(|| cached.lookup(asked.next())));
        group.bench_function("with (borrow), two threads", |b| {
            b.iter_custom(|iterations| {
                let (mut one, mut other) = (asked.clone(), asked.elsewhere());
                let cached = &cached;
                // Each thread has its own place in the questions, and moves it to its own stack.
                pair::alike(
                    iterations,
                    move || {
                        black_box(cached.borrow(one.next()));
                    },
                    move || {
                        black_box(cached.borrow(other.next()));
                    },
                )
            });
        });
        group.finish();
    }
}

/// Another thread publishes, changes policy or revokes as fast as it can, on the keys that are read.
fn while_tokens_change(c: &mut Criterion) {
    let mut group = c.benchmark_group(GROUPS[5]);
    let cached = Cached::new(FEW);
    let drawn = Draw::new(4).uniform(FEW, QUESTIONS);
    let asked = Asked::new(&drawn);
    let read = |cached: &Cached, asked: &mut Asked| {
        let now = CoarseClock::Kernel.latest();
        let epoch = cached.epoch.current();
        let token = cached
            .cache
            .with(&cached.caller, asked.next(), epoch, now, |token, _| {
                token.generation()
            });
        black_box(token);
    };
    group.bench_function("nothing changes", |b| {
        let mut asked = asked.elsewhere();
        b.iter(|| read(&cached, &mut asked));
    });
    let mut serial = 0;
    let mut measure = |name: &str, change: &(dyn Fn(usize, u64) + Sync)| {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let (mut asked, mut at) = (asked.elsewhere(), 0);
                let serial = &mut serial;
                pair::beside(
                    iterations,
                    1,
                    || read(&cached, &mut asked),
                    move || {
                        *serial += 1;
                        at = (at + 1) % FEW;
                        change(at, *serial);
                    },
                )
            });
        });
    };
    measure("each token renewed, over and over", &|at, serial| {
        cached::publish(&cached.slots[at], serial, cached.now);
    });
    measure(
        "tokens withdrawn and renewed, over and over",
        &|at, serial| {
            cached.slots[at].withdraw();
            cached::publish(&cached.slots[at], serial, cached.now);
        },
    );
    measure("decisions made anew, over and over", &|at, _| {
        let (caller, slot) = (&cached.caller, &cached.slots[at]);
        let request = cached::request(at);
        cached
            .cache
            .remember(caller, &request, slot, cached.decision, cached.now);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = handles, by_key, while_tokens_change
}

fn main() -> anyhow::Result<()> {
    let mut record = Record::new("hit");
    benches();
    Criterion::default().configure_from_args().final_summary();
    record.criterion(&GROUPS)?;
    record.save()?;
    Ok(())
}
