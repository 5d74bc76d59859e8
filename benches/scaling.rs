//! How does a hit grow with the number of keys, and hits with the number of threads? From one key to a million on one thread;
//! and from one thread to as many as there are cores, all on the same keys.
//!
//! Each figure is the median of batches; beside others only those count during which all of them got on.

use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::thread;

use dashmap::DashMap;
use keyfob::cache::CoarseClock;
use keyfob::model::time::UnixTime;
use keyfob_benches::asked::Asked;
use keyfob_benches::cached::Cached;
use keyfob_benches::draw::Draw;
use keyfob_benches::pair::{self, Work};
use keyfob_benches::record::{Curve, Record};

const SIZES: [usize; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
/// What all threads ask for: all in the first cache, so that only what threads do to each other shows.
const SHARED: usize = 1_000;
/// How many questions are laid out: more than any cache holds, so that they stream from memory.
const QUESTIONS: usize = 1 << 18;
/// Two thousand batches.
const ITERATIONS: u64 = 4_000_000;
const BY_SIZE: &str = "one hit, by number of keys";
const BY_THREADS: &str = "hits of all threads together, by number of threads";

/// A value with its end.
type Held = (UnixTime, Arc<str>);

fn main() -> anyhow::Result<()> {
    let mut record = Record::new("scaling");
    by_size(&mut record);
    by_threads(&mut record);
    record.save()?;
    Ok(())
}

fn by_size(record: &mut Record) {
    let mut curves: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for keys in SIZES {
        let cached = Cached::new(keys);
        let plain = cached.plain();
        let ways = [
            (
                Draw::new(1).uniform(keys, QUESTIONS),
                "floor: unsynchronised map, uniform",
                "with (borrow), uniform",
            ),
            (
                Draw::new(2).zipf(keys, QUESTIONS),
                "floor: unsynchronised map, Zipf",
                "with (borrow), Zipf",
            ),
        ];
        for (drawn, floor, ours) in ways {
            let mut asked = Asked::new(&drawn);
            let found = alone(|| {
                let subject = asked.next().subject.as_ref();
                let found = plain.get(subject.map_or("", |subject| subject.as_str()));
                assert!(found.is_some_and(is_fresh));
            });
            point(&mut curves, floor, keys, found);
            let found = alone(|| borrow(&cached, &mut asked));
            point(&mut curves, ours, keys, found);
        }
    }
    for (name, points) in &curves {
        for (keys, nanos) in points {
            record.row(&format!("{keys} keys"), name, *nanos, "ns", "");
        }
    }
    // One table for each size, floors first.
    record.rows.sort_by_key(|row| row.group.len());
    draw(record, BY_SIZE, ("keys", "ns a hit"), curves);
}

fn by_threads(record: &mut Record) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cached = Cached::new(SHARED);
    let drawn = Draw::new(3).uniform(SHARED, QUESTIONS);
    let asked = Asked::new(&drawn);
    let handle = cached.handle(CoarseClock::Kernel);
    let held: Vec<(Box<str>, Held)> = cached.plain().into_iter().collect();
    let sharded: DashMap<Box<str>, Held> = held.iter().cloned().collect();
    let locked = RwLock::new(cached.plain());

    let mut curves = Vec::new();
    for threads in 1..=cores {
        let mut measure = |name, nanos: f64| {
            let a_microsecond = threads as f64 * 1e3 / nanos;
            point(&mut curves, name, threads, a_microsecond);
            let note = format!("{nanos:.1} ns each");
            let group = format!("{BY_THREADS}: {threads}");
            record.row(&group, name, a_microsecond, "1/µs", &note);
        };
        let places = || (0..threads).map(|at| asked.from(at * QUESTIONS / threads));
        measure("TokenHandle::get (borrow)", {
            let handles = (0..threads).map(|_| handle.clone());
            together(handles.map(|mut handle| {
                move || {
                    assert!(black_box(&mut handle).get().is_ok());
                }
            }))
        });
        measure("by key, with (borrow)", {
            let cached = &cached;
            together(places().map(|mut asked| move || borrow(cached, &mut asked)))
        });
        measure("by key, lookup (clone)", {
            let cached = &cached;
            together(places().map(|mut asked| {
                move || {
                    let (now, epoch) = (CoarseClock::Kernel.latest(), cached.epoch.current());
                    let found = cached
                        .cache
                        .lookup(&cached.caller, asked.next(), epoch, now);
                    assert!(black_box(found).is_some());
                }
            }))
        });
        measure("dashmap and the end (clone)", {
            let sharded = &sharded;
            together(places().map(|mut asked| {
                move || {
                    let subject = asked.next().subject.as_ref();
                    let subject = subject.map_or("", |subject| subject.as_str());
                    let found = sharded.get(subject);
                    let found = found.filter(|held| is_fresh(held));
                    black_box(found.map(|held| Arc::clone(&held.1)));
                }
            }))
        });
        measure("a map behind RwLock and the end (clone)", {
            let locked = &locked;
            together(places().map(|mut asked| {
                move || {
                    let subject = asked.next().subject.as_ref();
                    let subject = subject.map_or("", |subject| subject.as_str());
                    let map = locked.read().expect("nobody panics");
                    let found = map.get(subject).filter(|held| is_fresh(held));
                    black_box(found.map(|held| Arc::clone(&held.1)));
                }
            }))
        });
    }
    let axes = ("threads", "hits a microsecond, all threads");
    draw(record, BY_THREADS, axes, curves);
}

fn is_fresh((expires, _): &Held) -> bool {
    CoarseClock::Kernel.latest() < *expires
}

fn borrow(cached: &Cached, asked: &mut Asked) {
    let (now, epoch) = (CoarseClock::Kernel.latest(), cached.epoch.current());
    let found = cached
        .cache
        .with(&cached.caller, asked.next(), epoch, now, |token, _| {
            std::ptr::from_ref(token).addr()
        });
    assert!(black_box(found).is_some());
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

fn point(curves: &mut Vec<(&str, Vec<(f64, f64)>)>, name: &'static str, x: usize, y: f64) {
    match curves.iter_mut().find(|(known, _)| *known == name) {
        Some((_, points)) => points.push((x as f64, y)),
        None => curves.push((name, vec![(x as f64, y)])),
    }
}

fn draw(
    record: &mut Record,
    plot: &str,
    (x, y): (&str, &str),
    curves: Vec<(&str, Vec<(f64, f64)>)>,
) {
    let curves = curves.into_iter().map(|(name, points)| Curve {
        plot: plot.to_owned(),
        name: name.to_owned(),
        x: x.to_owned(),
        y: y.to_owned(),
        points,
    });
    record.curves.extend(curves);
}
