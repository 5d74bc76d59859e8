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
    mut measured: impl Work,
    mut beside: impl Work,
) -> Duration {
    let progress = Progress(AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let batches = usize::try_from(iterations.div_ceil(BATCH))
        .map_or(BATCHES_MIN, |batches| batches.max(BATCHES_MIN));
    let started = Barrier::new(2);
    // The other thread's work moves to the other thread's stack: what both keep of their progress must not share a line.
    let (progress, over, started) = (&progress, &over, &started);
    thread::scope(|scope| {
        scope.spawn(move || {
            started.wait();
            while !over.load(Ordering::Relaxed) {
                for _ in 0..NOTE_EVERY {
                    beside();
                }
                progress.0.fetch_add(NOTE_EVERY, Ordering::Relaxed);
            }
        });
        let _over = Over(over);
        started.wait();
        let (mut took, mut last) = (Vec::new(), now());
        while took.len() < batches {
            let before = progress.0.load(Ordering::Relaxed);
            let start = now();
            for _ in 0..BATCH {
                measured();
            }
            let batch = start.elapsed();
            if progress.0.load(Ordering::Relaxed) - before >= beside_min {
                took.push(batch);
                last = start;
            }
            assert!(
                start - last < COMPANY_WITHIN,
                "the other thread did not get on: is there a second core?"
            );
        }
        took.sort_unstable();
        took[took.len() / 2].mul_f64(iterations as f64 / BATCH as f64)
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
