//! What a broker does though nobody asks: it renews, paces and tidies, until it stops.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;

/// How often idle keys are looked for: a walk over all of them.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// After how long without a question a key leaves: longer than most tokens live, so that what leaves is dead weight.
const IDLE_AFTER: Duration = Duration::from_secs(2 * 3600);
/// How many kept tokens that are over are forgotten in one step: each step is one commit, and others wait for it.
const FORGET_AT_ONCE: usize = 500;
/// How many such steps are taken in a row: with [`TIDY_EVERY`], more tokens than one process renews.
const FORGET_STEPS: usize = 200;

/// Begins all of it.
pub(super) fn begin(core: &Arc<Core>) {
    core.spawn(renew(core.clone()));
    core.spawn(pace(core.clone()));
    core.spawn(tidy(core.clone()));
}

/// Wakes what is due until the broker stops.
async fn renew(core: Arc<Core>) {
    let run = core
        .scheduler
        .run(core.clone(), core.clock.clone(), core.epoch.clone());
    tokio::select! {
        () = core.quiet.cancelled() => {}
        () = run => {}
    }
}

/// Lets those through whom a provider's rate held back, until the broker stops: nobody queues any more then.
async fn pace(core: Arc<Core>) {
    tokio::select! {
        () = core.stop.cancelled() => {}
        () = core.budgets.run() => {}
    }
}

/// Lets go of keys that nobody asks for and of kept tokens that are over, until the broker stops.
async fn tidy(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(TIDY_EVERY) => {
                let evicting = core.clone();
                let evict = move || evicting.cache.evict_idle(evicting.now(), IDLE_AFTER);
                // Where an observer panicked, its message was printed; who was not evicted now is the next time.
                let _ = tokio::task::spawn_blocking(evict).await;
                if core.store.durable() {
                    forget_tokens(&core).await;
                }
            }
        }
    }
}

/// Forgets tokens that are over. What a store does not forget now it is asked for again next time.
async fn forget_tokens(core: &Core) {
    for _ in 0..FORGET_STEPS {
        let forgotten = core.store.forget_tokens(core.now(), FORGET_AT_ONCE).await;
        let more = forgotten.is_ok_and(|forgotten| forgotten >= FORGET_AT_ONCE);
        if !more || core.stop.is_cancelled() {
            return;
        }
    }
}
