//! When the process is killed: at any moment, or right after the issuer saw something.

use std::time::Duration;

use keyfob::testing::issuer::Moments;
use serde::Serialize;

use super::draw::Draw;
use super::upstream::Upstream;

/// The longest a process lives that is killed at any moment: some refreshes of every credential, and a kill a second.
const ANYTIME_MAX: Duration = Duration::from_millis(400);
/// Moments that an aimed kill lets pass first, so that it meets other credentials than the first to wake.
const SKIPPED_MAX: u64 = 12;
/// Added to a moment in half of the aimed kills: reading, committing and publishing lie within it.
const JITTER_MAX: Duration = Duration::from_millis(3);
/// When every credential waits for its doubt to be decided, no moment comes.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a kill is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Aim {
    /// The start, before anything is served: opening the store included.
    Starting,
    /// Any moment after that.
    Anytime,
    /// A grant was presented; the answer is held back in half of the cases.
    Presented,
    /// The answer's last byte is out.
    Answered,
    /// The process read the answer and closed the connection.
    Read,
}

/// One kill, as drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot {
    pub(super) aim: Aim,
    /// After the moment it is aimed at.
    pub(super) delay: Duration,
    skipped: u64,
    held_back: bool,
}

// === impl Aim ===

impl Aim {
    pub(super) const ALL: [Self; 5] = [
        Self::Starting,
        Self::Anytime,
        Self::Presented,
        Self::Answered,
        Self::Read,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Starting => "while it starts",
            Self::Anytime => "at any moment",
            Self::Presented => "a grant was presented",
            Self::Answered => "the answer is out",
            Self::Read => "the answer was read",
        }
    }
}

// === impl Shot ===

impl Shot {
    /// The next one; `usual_start` is how long a start takes here.
    pub(super) fn draw(draw: &mut Draw, usual_start: Duration) -> Self {
        let aim = match draw.below(20) {
            0..=1 => Aim::Starting,
            2..=6 => Aim::Anytime,
            7..=11 => Aim::Presented,
            12..=15 => Aim::Answered,
            _ => Aim::Read,
        };
        // Each takes as many numbers as the others, so that one aim does not move the next.
        let (skipped, share, coin) = (draw.below(SKIPPED_MAX), draw.share(), draw.below(4));
        let delay = match aim {
            Aim::Starting => usual_start.mul_f64(share),
            Aim::Anytime => ANYTIME_MAX.mul_f64(share),
            Aim::Presented | Aim::Answered | Aim::Read if coin % 2 == 0 => {
                JITTER_MAX.mul_f64(share)
            }
            Aim::Presented | Aim::Answered | Aim::Read => Duration::ZERO,
        };
        Self {
            aim,
            delay,
            skipped,
            held_back: aim == Aim::Presented && coin < 2,
        }
    }

    /// Waits for the moment; false when it did not come.
    pub(super) async fn wait(&self, upstream: &Upstream) -> bool {
        let count = |moments: &Moments| match self.aim {
            Aim::Starting | Aim::Anytime => u64::MAX,
            Aim::Presented => moments.presented,
            Aim::Answered => moments.answered,
            Aim::Read => moments.left,
        };
        let mut moments = upstream.moments();
        let from = count(&moments.borrow());
        if self.held_back {
            upstream.hold_back(self.skipped);
        }
        let here = |now: &Moments| from == u64::MAX || count(now) > from + self.skipped;
        let moment = tokio::time::timeout(PATIENCE, moments.wait_for(here)).await;
        // What it returns holds the issuer up: it is let go before anything is waited for.
        let came = moment.is_ok_and(|moment| moment.is_ok());
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        came
    }
}
