//! The clock of the hit path: cheap, a little behind, and honest about it.
//!
//! The kernel's coarse clock needs nobody, and is most of what a hit by handle costs. A word ticked by a thread costs a tenth of
//! it, but stands still while that thread is starved or the process stopped: who embeds the broker chooses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use std::{io, thread};

use crate::model::time::{Clock, SystemClock, UnixTime};

/// The longest a kernel's coarse clock lags: one timer tick at 100 Hz, the slowest in use. In nanoseconds.
const RESOLUTION_NANOS: u64 = 10_000_000;

/// How often a ticked clock ticks: as often as the kernel's.
const TICK: Duration = Duration::from_millis(10);
/// By how much a ticked clock is taken to lag: ten ticks. A thread that is starved for longer eats into the second before its
/// end in which no token is handed out ([`HAND_OUT_MARGIN_MAX`](crate::model::freshness::HAND_OUT_MARGIN_MAX)).
const TICK_LAG: Duration = Duration::from_millis(100);

/// Tells the latest that it can be now.
#[derive(Clone)]
pub enum CoarseClock {
    /// The kernel's coarse realtime clock where there is one, else its precise one.
    Kernel,
    /// A word that a thread keeps at the time.
    Ticked(Ticks),
    /// Another clock, exact: tests and the demo move it by hand.
    Exact(Arc<dyn Clock>),
}

/// The time as a thread of its own writes it down. The thread ends with the last clone.
#[derive(Clone)]
pub struct Ticks(Arc<Written>);

/// Unix milliseconds, alone on its line: what lies beside it must not be fetched anew at every tick.
#[repr(align(128))]
struct Written(AtomicU64);

// === impl CoarseClock ===

impl CoarseClock {
    /// The latest that it can be now: what was read plus how far it may lag. A token that is valid then is valid now.
    #[inline]
    #[must_use]
    pub fn latest(&self) -> UnixTime {
        match self {
            Self::Kernel => kernel(),
            Self::Ticked(ticks) => ticks.latest(),
            Self::Exact(clock) => exact(&**clock),
        }
    }
}

// === impl Ticks ===

impl Ticks {
    /// Starts to tick.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub fn start() -> io::Result<Self> {
        let written = Arc::new(Written(AtomicU64::new(0)));
        written.tick();
        let word = Arc::downgrade(&written);
        thread::Builder::new()
            .name("keyfob-clock".to_owned())
            .spawn(move || keep_at_the_time(&word))?;
        Ok(Self(written))
    }

    #[inline]
    fn latest(&self) -> UnixTime {
        UnixTime::from_millis(self.0.0.load(Ordering::Relaxed))
    }
}

impl Written {
    /// With the lag added here, so that no reader has to.
    fn tick(&self) {
        let latest = SystemClock.now().plus(TICK_LAG);
        self.0.store(latest.as_millis(), Ordering::Relaxed);
    }
}

fn keep_at_the_time(word: &Weak<Written>) {
    while let Some(written) = word.upgrade() {
        written.tick();
        drop(written);
        thread::sleep(TICK);
    }
}

impl From<Arc<dyn Clock>> for CoarseClock {
    fn from(clock: Arc<dyn Clock>) -> Self {
        Self::Exact(clock)
    }
}

/// Kept out of the way of the clocks that are read without a call.
#[cold]
#[inline(never)]
fn exact(clock: &dyn Clock) -> UnixTime {
    clock.now()
}

/// 2.8 ns where `SystemTime::now` takes 21 (a hit by handle is below 1).
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[inline]
fn kernel() -> UnixTime {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid, exclusively borrowed timespec for the length of the call, and the call writes nothing
    // else.
    #[expect(
        unsafe_code,
        reason = "no safe interface to this clock without rebuilding the sandbox's dependencies"
    )]
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    // A failure left it at zero; a clock before 1970 is below.
    if time.tv_sec <= 0 {
        return exact(&SystemClock);
    }
    // The lag is added to what is below the second: nothing to saturate. Without a sign, which the division would look at.
    let millis = (time.tv_nsec.cast_unsigned() + RESOLUTION_NANOS) / 1_000_000;
    UnixTime::from_millis(time.tv_sec.cast_unsigned() * 1_000 + millis)
}

/// macOS and Windows have no coarse realtime clock that is worth another door.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn kernel() -> UnixTime {
    let _ = RESOLUTION_NANOS;
    SystemClock.now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_is_never_behind_the_precise_one() {
        for _ in 0..1_000 {
            let before = SystemClock.now();
            assert!(CoarseClock::Kernel.latest() >= before);
        }
    }

    #[test]
    fn a_ticked_clock_goes_on_by_itself_and_ends_with_its_last_clone() {
        let before = SystemClock.now();
        let ticks = Ticks::start().unwrap();
        let clock = CoarseClock::Ticked(ticks.clone());
        let start = clock.latest();
        assert!(start >= before.plus(TICK), "not behind when the next comes");
        while clock.latest() == start {
            thread::yield_now();
        }
        let word = Arc::downgrade(&ticks.0);
        drop((ticks, clock));
        while word.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
