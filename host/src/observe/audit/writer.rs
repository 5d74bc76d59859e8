//! The one thread that writes. It takes what is waiting and has it on disk together, so that a burst shares one flush, and
//! when the disk does not take it, it tries again until it does or the process ends.

use std::sync::Arc;
use std::time::Duration;

use super::Tell;
use super::entry::LOST;
use super::log::Log;
use super::queue::{Queue, WAITING_MAX};
use crate::model::time::Clock;

/// Between two tries while the disk does not take what is written: soon enough to be back before the queue is full, and
/// seldom enough to be no load.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Writes until the queue has ended, and tells where the log then ends.
pub(super) fn run(mut log: Log, queue: &Queue, clock: &Arc<dyn Clock>, tell: &Tell) {
    loop {
        let taken = queue.take(|| clock.now());
        if taken.is_empty() {
            break;
        }
        let lost = taken.iter().any(|record| record.event() == LOST);
        log.add(taken);
        if !write(&mut log, queue, clock, tell) {
            let (left, head) = (log.pending(), log.head());
            tell.notice(
                "audit_incomplete",
                format!(
                    "{left} entries could not be written before the end; the log ends with entry {}, head {}",
                    head.seq, head.hash
                ),
            );
            return;
        }
        if lost {
            let detail = "events found no room and are not in the log; it says how many";
            tell.notice("audit_lost", detail.to_owned());
        }
    }
    let head = log.head();
    let detail = format!("the log ends with entry {}, head {}", head.seq, head.hash);
    tell.notice("audit_closed", detail);
}

/// Writes until it succeeds; false when the process ends first.
fn write(log: &mut Log, queue: &Queue, clock: &Arc<dyn Clock>, tell: &Tell) -> bool {
    let mut failed = false;
    let mut ended = false;
    loop {
        let written = log.write();
        for (code, detail) in log.news() {
            tell.notice(code, detail);
        }
        let Err(error) = written else {
            if failed {
                let head = log.head();
                tell.notice(
                    "audit_resumed",
                    format!("the log is written again, up to entry {}", head.seq),
                );
            }
            return true;
        };
        if !failed {
            failed = true;
            let detail = format!(
                "the log cannot be written: {error}; it is tried again, {WAITING_MAX} entries wait, more are counted"
            );
            tell.notice("audit_failed", detail);
        }
        if ended {
            return false;
        }
        // The end has one try left, with everything that is there.
        ended = queue.pause(RETRY_EVERY);
        if ended {
            log.add(queue.take_now(clock.now()));
        }
    }
}
