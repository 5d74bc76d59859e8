//! What a process finds of the one before it: attempts that were noted and never ended. Nobody has to ask for such a
//! credential before operators see what became of it.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;
use crate::model::contract::Rotation;
use crate::model::credential::{CommitFault, Stored};
use crate::model::event::Event;
use crate::model::flow::abandoned;
use crate::model::key::CredentialKey;
use crate::model::time::UnixTime;

/// How many rows are looked at in one go: a few milliseconds of a thread that reads.
const PAGE_ROWS: usize = 1_000;
/// The most attempts that are looked after. There is one at the most for each flow of the process before; those beyond are
/// found by whoever asks for their token.
const ATTEMPTS_MAX: usize = 65_536;
/// How long a request of a process that is gone may still be under way: its kernel sends what it was handed. An attempt
/// whose owner is known to be gone is over after this, whatever time it had: the grace of an issuer does not wait for it.
const UNDER_WAY_MAX: Duration = Duration::from_secs(5);

/// Ends what the process before left open, once it is provably over.
pub(super) async fn recover(core: Arc<Core>) {
    let started = core.now();
    let mut left = find(&core, started).await;
    left.sort_by_key(|(over_at, _)| *over_at);
    for (over_at, key) in left {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(over_at.since(core.now())) => {}
        }
        end(&core, &key, started).await;
    }
}

/// Attempts that are older than this process, and when each is over.
async fn find(core: &Core, started: UnixTime) -> Vec<(UnixTime, CredentialKey)> {
    let mut left = Vec::new();
    let mut after: Option<CredentialKey> = None;
    loop {
        // A store that is out of reach now is read by the flows that need it.
        let Ok(page) = core.store.scan(after.as_ref(), PAGE_ROWS).await else {
            return left;
        };
        let more = page.rows.len() == PAGE_ROWS && !core.stop.is_cancelled();
        after = page.rows.last().map(|(key, _)| key.clone());
        for (key, row) in page.rows {
            if let Some(intent) = row.credential.intent
                && intent.at < started
                && left.len() < ATTEMPTS_MAX
            {
                let over_at = match core.store.exclusive() {
                    true => intent.over_at.min(started.plus(UNDER_WAY_MAX)),
                    false => intent.over_at,
                };
                left.push((over_at, key));
            }
        }
        if !more {
            return left;
        }
    }
}

async fn end(core: &Core, key: &CredentialKey, started: UnixTime) {
    let Ok(Stored {
        version,
        credential,
    }) = core.load(key).await
    else {
        return;
    };
    // One that was made since is a flow's of this process, which ends it itself.
    let ours = |at| at >= started;
    if credential.intent.is_none_or(|intent| ours(intent.at)) {
        return;
    }
    let provider = core.provider(&key.provider);
    let (declared, grace) = provider.map_or((Rotation::Unknown, Default::default()), |provider| {
        provider.rotation()
    });
    let Some(next) = abandoned(&credential, declared, grace) else {
        return;
    };
    let state = next.state;
    match core.store.commit(key, version, next).await {
        Ok(version) => {
            // Whoever asked meanwhile was told to wait for the end of the attempt.
            for slot in core.cache.slots_of(key) {
                slot.clear_failure();
            }
            if state != credential.state {
                core.emit(&Event::CredentialChanged {
                    key: key.clone(),
                    was: credential.state,
                    state,
                    version,
                    by: "recovery".to_owned(),
                });
            }
        }
        // Somebody else was first, or the store is away: a flow decides the same when it reads the row.
        Err(CommitFault::Conflict | CommitFault::Unreachable(_)) => {}
    }
}
