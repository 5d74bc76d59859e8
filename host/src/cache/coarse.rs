//! The clock of the hit path: cheap, a little behind, and honest about it.
//!
//! A word ticked by a thread would be cheaper still, but it stands still while that thread is starved or the process
//! stopped, and then an expired token would be served. The kernel's coarse clock needs nobody.

use std::sync::Arc;
use std::time::Duration;

use crate::model::time::{Clock, SystemClock, UnixTime};

/// The longest a kernel's coarse clock lags: one timer tick at 100 Hz, the slowest in use.
const RESOLUTION: Duration = Duration::from_millis(10);

/// Tells the latest that it can be now.
#[derive(Clone)]
pub enum CoarseClock {
    /// The kernel's coarse realtime clock where there is one, else its precise one.
    Kernel,
    /// Another clock, exact: tests and the demo move it by hand.
    Exact(Arc<dyn Clock>),
}

// === impl CoarseClock ===

impl CoarseClock {
    /// The latest that it can be now: what was read plus how far it may lag. A token that is valid then is valid now.
    #[inline]
    #[must_use]
    pub fn latest(&self) -> UnixTime {
        match self {
            Self::Kernel => kernel(),
            Self::Exact(clock) => clock.now(),
        }
    }
}

impl From<Arc<dyn Clock>> for CoarseClock {
    fn from(clock: Arc<dyn Clock>) -> Self {
        Self::Exact(clock)
    }
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
    // else. A failure leaves it untouched and is handled below.
    #[expect(
        unsafe_code,
        reason = "no safe interface to this clock without rebuilding the sandbox's dependencies"
    )]
    let result = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    match (
        result,
        u64::try_from(time.tv_sec),
        u64::try_from(time.tv_nsec),
    ) {
        (0, Ok(secs), Ok(nanos)) => {
            UnixTime::from_millis(secs * 1000 + nanos / 1_000_000).plus(RESOLUTION)
        }
        _ => SystemClock.now(),
    }
}

/// macOS and Windows have no coarse realtime clock that is worth another door.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn kernel() -> UnixTime {
    let _ = RESOLUTION;
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
}
