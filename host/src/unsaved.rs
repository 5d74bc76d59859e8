//! Records that the store did not take: kept here until it does. A rotation that was received is never thrown away; until
//! it is on record nothing of its credential is presented.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::Core;
use crate::model::backoff;
use crate::model::event::Event;
use crate::model::flow::{Change, Record};
use crate::model::freshness;
use crate::model::key::{CredentialKey, Tenant};
use crate::revoke;
use crate::store::{CommitFault, Unreachable};

/// The most credentials that wait: at about 2 KiB each this is little, and a store that is away while more of them rotate
/// is an outage that no memory bridges.
const UNSAVED_MAX: usize = 4_096;

/// Between two tries while the process ends: an orchestrator gives it seconds.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// What the store should hold and does not.
#[derive(Default)]
pub(crate) struct Unsaved {
    /// By credential, numbered so that a newer record is not taken for the one that was just saved. Not held across an
    /// await.
    records: Mutex<HashMap<CredentialKey, (u64, Record)>>,
    /// Told when trying again at once may help: an operator changed a credential.
    wake: Notify,
}

// === impl Unsaved ===

impl Unsaved {
    /// Whether something of this credential waits to be recorded.
    pub(crate) fn holds(&self, key: &CredentialKey) -> bool {
        self.records().contains_key(key)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.records().is_empty()
    }

    /// Which credentials wait, for the last word of a process that ends.
    pub(crate) fn keys(&self) -> Vec<CredentialKey> {
        self.records().keys().cloned().collect()
    }

    /// Forgets what waits of a tenant that is gone.
    pub(crate) fn forget(&self, tenant: &Tenant) {
        self.records().retain(|key, _| key.tenant != *tenant);
    }

    /// Tries again at once.
    pub(crate) fn hurry(&self) {
        self.wake.notify_waiters();
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

/// Keeps a record and sees to it that it is committed. Where there is no room it is lost, and operators are told so.
pub(crate) fn keep(core: &Arc<Core>, key: &CredentialKey, mut record: Record) {
    let kept = {
        let mut records = core.unsaved.records();
        let before = records
            .get(key)
            .map(|(number, before)| (*number, before.change));
        if let Some((_, Change::Rotated)) = before {
            // What it says of the grant still is to be recorded, or its orphan revoked.
            record.change = Change::Rotated;
        }
        if before.is_none() && records.len() >= UNSAVED_MAX {
            // A mark that could not be cleared costs a wait, a rotation costs a grant.
            let mark = records
                .iter()
                .find(|(_, (_, it))| it.change == Change::Intent);
            match mark.map(|(key, _)| key.clone()) {
                Some(mark) if record.change != Change::Intent => drop(records.remove(&mark)),
                _ => {
                    drop(records);
                    let detail = format!("what became of {key:?} could not be recorded, nor kept");
                    core.emit(&Event::Notice {
                        code: "record_lost",
                        detail,
                    });
                    return;
                }
            }
        }
        records.insert(
            key.clone(),
            (before.map_or(0, |(number, _)| number + 1), record),
        );
        before.is_some()
    };
    core.emit(&Event::Notice {
        code: "undurable",
        detail: format!("what became of {key:?} could not be recorded; it is kept and tried again"),
    });
    if !kept {
        core.spawn(save(core.clone(), key.clone()));
    }
}

async fn save(core: Arc<Core>, key: CredentialKey) {
    for tries in 1.. {
        let draw = freshness::draw(core.seeds.node, u64::from(tries), core.now().as_millis());
        // A process that ends has no time for patience.
        let ending = core.stop.is_cancelled();
        let pause = if ending {
            LAST_PAUSE
        } else {
            backoff::backoff(tries, draw)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.unsaved.wake.notified() => {}
            () = core.stop.cancelled(), if !ending => {}
        }
        let Some((number, record)) = core.unsaved.peek(&key) else {
            return;
        };
        let Ok(settled) = settle(&core, &key, record).await else {
            continue;
        };
        if core.unsaved.done(&key, number) {
            core.emit(&Event::Notice {
                code: if settled {
                    "durable_again"
                } else {
                    "record_dropped"
                },
                detail: match settled {
                    true => format!("what became of {key:?} is on record"),
                    false => format!("{key:?} was revoked or replaced meanwhile: that stands"),
                },
            });
            return;
        }
    }
}

/// Commits a record on top of whatever the row is now; false when it no longer counts.
async fn settle(
    core: &Arc<Core>,
    key: &CredentialKey,
    record: Record,
) -> Result<bool, Unreachable> {
    let row = core.load(key).await?;
    if record.still_fits(&row) {
        let merged = record.onto(&row.credential);
        if merged == row.credential {
            return Ok(true);
        }
        let version = match core.store.commit(key, row.version, merged).await {
            Ok(version) => version,
            Err(CommitFault::Conflict) => return Err(Unreachable("somebody else did".to_owned())),
            Err(CommitFault::Unreachable(detail)) => return Err(Unreachable(detail)),
        };
        if record.change == Change::Rotated {
            core.emit(&Event::GrantRotated {
                key: key.clone(),
                version,
            });
        }
        return Ok(true);
    }
    if record.change == Change::Rotated
        && let Some(grant) = record.credential.refresh_token
        && let Some(provider) = core.provider(&key.provider)
    {
        revoke::orphan(core, &provider, key, grant, row.credential.state).await;
    }
    Ok(false)
}
