//! How does a hit grow with the number of keys, and hits with the number of threads? From one key to a million on one thread;
//! and from one thread to as many as there are cores, all on the same keys.
//!
//! Each figure is the median of batches; beside others only those count during which all of them got on.

use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::thread;

use dashmap::DashMap;
use keyfob::cache::CoarseClock;
use keyfob_benches::asked::Asked;
use keyfob_benches::cached::{self, Cached, Held};
use keyfob_benches::draw::Draw;
use keyfob_benches::pair::{self, Work};
use keyfob_benches::record::Record;

const SIZES: [usize; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
/// What all threads ask for: all in the first cache, so that only what threads do to each other shows.
const SHARED: usize = 1_000;
/// How many questions are laid out: more than any cache holds, so that they stream from memory.
const QUESTIONS: usize = 1 << 18;
/// Two thousand batches.
const ITERATIONS: u64 = 4_000_000;
const BY_SIZE: &str = "one hit, by number of keys";
const BY_THREADS: &str = "hits of all threads together, by number of threads";

fn main() -> anyhow::Result<()> {
    let mut record = Record::new("scaling");
    by_size(&mut record);
    by_threads(&mut record);
    record.save()?;
    Ok(())
}

fn by_size(record: &mut Record) {
    for keys in SIZES {
        let cached = Cached::new(keys);
        let plain = cached.plain();
        let ways = [
            ("uniform", Draw::new(1).uniform(keys, QUESTIONS)),
            ("Zipf", Draw::new(2).zipf(keys, QUESTIONS)),
        ];
        for (way, drawn) in ways {
            let mut asked = Asked::new(&drawn);
            let floor = alone(|| {
                black_box(cached::peek(&plain, asked.next()));
            });
            let ours = alone(|| {
                black_box(cached.borrow(asked.next()));
            });
            for (who, nanos) in [
                ("floor: unsynchronised map", floor),
                ("with (borrow)", ours),
            ] {
                let name = format!("{who}, {way}");
                record.row(&format!("{keys} keys"), &name, nanos, "ns", "");
                let axes = ("keys", "ns a hit");
                record.point(BY_SIZE, &name, axes, (keys as f64, nanos));
            }
        }
    }
}

fn by_threads(record: &mut Record) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cached = &Cached::new(SHARED);
    let asked = Asked::new(&Draw::new(3).uniform(SHARED, QUESTIONS));
    let handle = cached.handle(CoarseClock::Kernel);
    let sharded = &cached.plain().into_iter().collect::<DashMap<_, _>>();
    let locked = &RwLock::new(cached.plain());

    for threads in 1..=cores {
        let mut tell = |name, nanos: f64| {
            let a_microsecond = threads as f64 * 1e3 / nanos;
            let note = format!("{nanos:.1} ns each");
            let group = format!("{BY_THREADS}: {threads}");
            record.row(&group, name, a_microsecond, "1/µs", &note);
            let axes = ("threads", "hits a microsecond, all threads");
            record.point(BY_THREADS, name, axes, (threads as f64, a_microsecond));
        };
        let handles = (0..threads).map(|_| handle.clone());
        let places = || (0..threads).map(|at| asked.from(at * QUESTIONS / threads));
        let nanos = together(handles.map(|mut handle| {
            move || {
                assert!(black_box(&mut handle).get().is_ok());
            }
        }));
        tell("TokenHandle::get (borrow)", nanos);
        let nanos = together(places().map(|mut asked| {
            move || {
                black_box(cached.borrow(asked.next()));
            }
        }));
        tell("by key, with (borrow)", nanos);
        let nanos = together(places().map(|mut asked| {
            move || {
                assert!(black_box(cached.lookup(asked.next())).is_some());
            }
        }));
        tell("by key, lookup (clone)", nanos);
        let nanos = together(places().map(|mut asked| {
            move || {
                let found = sharded.get(cached::subject_of(asked.next()));
                black_box(found.and_then(|held| kept(&held)));
            }
        }));
        tell("dashmap and the end (clone)", nanos);
        let nanos = together(places().map(|mut asked| {
            move || {
                let map = locked.read().expect("nobody panics");
                let found = map.get(cached::subject_of(asked.next()));
                black_box(found.and_then(kept));
            }
        }));
        tell("a map behind RwLock and the end (clone)", nanos);
    }
}

/// A token to keep, unless it is over.
fn kept(held: &Held) -> Option<Arc<str>> {
    cached::is_fresh(held).then(|| Arc::clone(&held.1))
}

/// Nanoseconds that one call takes when nobody else works.
fn alone(work: impl Work) -> f64 {
    together(std::iter::once(work))
}

/// Nanoseconds that one call of the first takes while all others work as well.
fn together(works: impl Iterator<Item = impl Work>) -> f64 {
    let took = pair::among(ITERATIONS, works.collect());
    took.as_secs_f64() * 1e9 / ITERATIONS as f64
}
