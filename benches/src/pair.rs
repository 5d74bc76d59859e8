//! Timing one thread while others work: on a machine whose cores are shared, "two threads were started" does not mean that
//! they ran at the same time. Only those batches count during which the others got on.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough that two clock readings do not show, short enough that a scheduler's slice holds thousands.
const BATCH: u64 = 2_000;
/// The other thread notes its progress this often: rarely enough that the note costs it nothing.
const NOTE_EVERY: u64 = 64;
/// A median needs a few.
const BATCHES_MIN: usize = 9;
/// How long no batch may count before the machine is said to be too busy: the other thread may wait for its turn for long.
const COMPANY_WITHIN: Duration = Duration::from_secs(20);

/// What one thread does, one operation a call.
pub trait Work: FnMut() + Send {}

impl<F: FnMut() + Send> Work for F {}

/// A counter on lines of its own.
#[repr(align(128))]
struct Progress(AtomicU64);

/// Ends the other thread, however this one ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long `iterations` calls of `measured` take while another thread calls `beside` all the time: as many times the median
/// of those batches in which that thread got through at least `beside_min` operations. The median, because a batch in which
/// the machine took the core away says nothing about us.
///
/// # Panics
///
/// When hardly any batch counted: the machine has no second core to give.
pub fn beside(
    iterations: u64,
    beside_min: u64,
    measured: impl Work,
    beside: impl Work,
) -> Duration {
    crowd(iterations, beside_min, measured, vec![beside])
}

/// For work as fast as the other thread's: half of a batch beside it is company enough.
pub fn alike(iterations: u64, measured: impl Work, beside_it: impl Work) -> Duration {
    beside(iterations, BATCH / 2, measured, beside_it)
}

/// The same for the first of any number of workers who all do the same, each on a thread of its own.
///
/// # Panics
///
/// When there is none, and as [`beside`] does.
pub fn among(iterations: u64, works: Vec<impl Work>) -> Duration {
    let mut others = works.into_iter();
    let measured = others.next().expect("somebody to measure");
    crowd(iterations, BATCH / 2, measured, others.collect())
}

fn crowd(
    iterations: u64,
    each_min: u64,
    mut measured: impl Work,
    others: Vec<impl Work>,
) -> Duration {
    let progress: Vec<Progress> = others.iter().map(|_| Progress(AtomicU64::new(0))).collect();
    let over = AtomicBool::new(false);
    let batches = usize::try_from(iterations.div_ceil(BATCH))
        .map_or(BATCHES_MIN, |batches| batches.max(BATCHES_MIN));
    let started = Barrier::new(others.len() + 1);
    let (progress, over, started) = (&progress, &over, &started);
    thread::scope(|scope| {
        for (progress, mut other) in progress.iter().zip(others) {
            // A worker's work moves to its own stack: what two keep of their progress must not share a line.
            scope.spawn(move || {
                started.wait();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..NOTE_EVERY {
                        other();
                    }
                    progress.0.fetch_add(NOTE_EVERY, Ordering::Relaxed);
                }
            });
        }
        let _over = Over(over);
        started.wait();
        let noted = |at: &Progress| at.0.load(Ordering::Relaxed);
        let (mut took, mut last) = (Vec::new(), now());
        let mut before: Vec<u64> = Vec::with_capacity(progress.len());
        while took.len() < batches {
            before.clear();
            before.extend(progress.iter().map(noted));
            let start = now();
            for _ in 0..BATCH {
                measured();
            }
            let batch = start.elapsed();
            let mut got_on = progress.iter().zip(&before);
            if got_on.all(|(at, before)| noted(at) - before >= each_min) {
                took.push(batch);
                last = start;
            }
            assert!(
                start - last < COMPANY_WITHIN,
                "another thread did not get on: is there a core for each?"
            );
        }
        took.sort_unstable();
        took[took.len() / 2].mul_f64(iterations as f64 / BATCH as f64)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is time itself"
)]
fn now() -> Instant {
    Instant::now()
}
