//! Timing one thread while another works: on a machine whose cores are shared, "two threads were started" does not mean that
//! they ran at the same time. Only those batches count during which the other one got on.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough that two clock readings do not show, short enough that a scheduler's slice holds thousands.
const BATCH: u64 = 2_000;
/// The other thread notes its progress this often: rarely enough that the note costs it nothing.
const NOTE_EVERY: u64 = 64;
/// How many batches are tried for one that counts, before the machine is said to be too busy.
const TRIES_PER_BATCH: u64 = 200;

/// What one thread does, one operation a call.
pub trait Work: FnMut() + Send {}

impl<F: FnMut() + Send> Work for F {}

/// A counter on lines of its own.
#[repr(align(128))]
struct Progress(AtomicU64);

/// How long `iterations` calls of `measured` take while another thread calls `beside` all the time, scaled from the batches
/// in which that thread got through at least `beside_min` operations.
///
/// # Panics
///
/// When hardly any batch counted: the machine has no second core to give.
pub fn beside(
    iterations: u64,
    beside_min: u64,
    mut measured: impl Work,
    mut beside: impl Work,
) -> Duration {
    let progress = Progress(AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let started = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            started.wait();
            while !over.load(Ordering::Relaxed) {
                for _ in 0..NOTE_EVERY {
                    beside();
                }
                progress.0.fetch_add(NOTE_EVERY, Ordering::Relaxed);
            }
        });
        started.wait();
        let (mut counted, mut took, mut tried) = (0, Duration::ZERO, 0);
        while counted < iterations {
            let before = progress.0.load(Ordering::Relaxed);
            let start = now();
            for _ in 0..BATCH {
                measured();
            }
            let batch = start.elapsed();
            let done = progress.0.load(Ordering::Relaxed) - before;
            tried += 1;
            if done >= beside_min {
                counted += BATCH;
                took += batch;
            }
            assert!(
                tried < TRIES_PER_BATCH * iterations.div_ceil(BATCH).max(10),
                "only {counted} of {} operations ran beside another thread: is there a second core?",
                tried * BATCH
            );
        }
        over.store(true, Ordering::Relaxed);
        took.mul_f64(iterations as f64 / counted as f64)
    })
}

/// For work as fast as the other thread's: half of a batch beside it is company enough.
pub fn alike(iterations: u64, measured: impl Work, beside_it: impl Work) -> Duration {
    beside(iterations, BATCH / 2, measured, beside_it)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is time itself"
)]
fn now() -> Instant {
    Instant::now()
}
