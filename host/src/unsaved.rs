//! Records that the store did not take: kept here until it does. A rotation that was received is never thrown away; until
//! it is on record nothing of its credential is presented.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::Core;
use crate::model::backoff;
use crate::model::event::Event;
use crate::model::flow::{Change, Record};
use crate::model::freshness;
use crate::model::key::CredentialKey;
use crate::revoke;
use crate::store::{CommitFault, Unreachable};

/// The most credentials that wait: at about 2 KiB each this is little, and a store that is away while more of them rotate
/// is an outage that no memory bridges.
const UNSAVED_MAX: usize = 4_096;

/// What the store should hold and does not.
#[derive(Default)]
pub(crate) struct Unsaved {
    /// By credential, numbered so that a newer record is not taken for the one that was just saved. Not held across an
    /// await.
    records: Mutex<HashMap<CredentialKey, (u64, Record)>>,
}

// === impl Unsaved ===

impl Unsaved {
    /// Whether something of this credential waits to be recorded.
    pub(crate) fn holds(&self, key: &CredentialKey) -> bool {
        self.records().contains_key(key)
    }

    fn records(&self) -> MutexGuard<'_, HashMap<CredentialKey, (u64, Record)>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peek(&self, key: &CredentialKey) -> Option<(u64, Record)> {
        self.records().get(key).cloned()
    }

    /// True when this record was the latest.
    fn done(&self, key: &CredentialKey, number: u64) -> bool {
        let mut records = self.records();
        let latest = records.get(key).is_none_or(|(latest, _)| *latest == number);
        if latest {
            records.remove(key);
        }
        latest
    }
}

/// Keeps a record and sees to it that it is committed. False when there is no room.
pub(crate) fn keep(core: &Arc<Core>, key: &CredentialKey, record: Record) -> bool {
    let news = {
        let mut records = core.unsaved.records();
        let number = records.get(key).map_or(0, |(number, _)| number + 1);
        if number == 0 && records.len() >= UNSAVED_MAX {
            return false;
        }
        records.insert(key.clone(), (number, record));
        number == 0
    };
    core.emit(&Event::Notice {
        code: "undurable",
        detail: format!("what became of {key:?} could not be recorded; it is kept and tried again"),
    });
    if news {
        core.spawn(save(core.clone(), key.clone()));
    }
    true
}

async fn save(core: Arc<Core>, key: CredentialKey) {
    for tries in 1.. {
        let draw = freshness::draw(core.seeds.node, u64::from(tries), core.now().as_millis());
        tokio::time::sleep(backoff::backoff(tries, draw)).await;
        let Some((number, record)) = core.unsaved.peek(&key) else {
            return;
        };
        if settle(&core, &key, record).await.is_ok() && core.unsaved.done(&key, number) {
            core.emit(&Event::Notice {
                code: "durable_again",
                detail: format!("what became of {key:?} is on record"),
            });
            return;
        }
    }
}

/// Commits a record on top of whatever the row is now, or finds that it no longer counts.
async fn settle(core: &Arc<Core>, key: &CredentialKey, record: Record) -> Result<(), Unreachable> {
    let row = core.store.load(key).await?;
    if record.still_fits(&row) {
        return match core.store.commit(key, row.version, record.credential).await {
            Ok(_) => Ok(()),
            Err(CommitFault::Conflict) => Err(Unreachable("somebody else committed".to_owned())),
            Err(CommitFault::Unreachable(detail)) => Err(Unreachable(detail)),
        };
    }
    if record.change == Change::Rotated
        && let Some(grant) = record.credential.refresh_token
        && let Some(provider) = core.provider(&key.provider)
    {
        revoke::orphan(core, &provider, key, grant, row.credential.state).await;
    }
    Ok(())
}
