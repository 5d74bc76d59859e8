//! One flow, driven to its landing: every effect performed, every result reported back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Want;
use crate::cache::Slot;
use crate::core::Core;
use crate::model::contract::{Cause, PluginFault, Rotation};
use crate::model::credential::{CommitFault, Version};
use crate::model::event::Event;
use crate::model::flow::{Change, Effect, Failure, Flow, Input, Landing, Plan, Record};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::transport::{Delivery, OutgoingRequest};
use crate::snapshot::Provider;
use crate::store::{Lease, Owner, Unreachable};
use crate::unsaved;

/// Between two tries of a commit that the store did not answer.
const RECORD_PAUSE: Duration = Duration::from_millis(100);

/// Added to a flow's deadline before its lease ends by itself: what it takes to land and to give the lease back.
const LEASE_SLACK: Duration = Duration::from_secs(5);
/// A lease that the store does not take back in this time ends by itself: the next of the credential waits meanwhile.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// How a flow went.
pub(super) struct Driven {
    /// How it ended.
    pub(super) landing: Landing,
    /// What its last request met; none when it sent none.
    pub(super) heard: Option<Heard>,
    /// The version of the credential that it was decided on. Its own commits do not count: a token is withdrawn by a
    /// version that an operator made since.
    pub(super) version: Version,
}

/// What the last request of a flow met.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// This status.
    Status(u16),
    /// No answer.
    Nothing,
}

/// A lease of the store's, given back whatever becomes of the flow.
struct Held<'a> {
    core: &'a Arc<Core>,
    key: &'a CredentialKey,
    owner: Owner,
}

/// Runs one flow to its landing.
pub(super) async fn drive(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    slot: &Slot,
    want: Want,
    deadline: UnixTime,
) -> Driven {
    let key = &slot.key();
    let unsent = |failure| Driven {
        landing: Landing::Failed(failure),
        heard: None,
        version: Version::default(),
    };
    // Secrets are files too, and a file system can hang.
    let left = deadline.since(core.now());
    let planned =
        tokio::time::timeout(left, plan(core, provider, slot, want.cause, deadline)).await;
    let plan = match planned {
        Ok(Ok(plan)) => plan,
        Ok(Err(failure)) => return unsent(failure),
        Err(_) => {
            let detail = "the secrets could not be read in time";
            return unsent(Failure::misconfigured("secret", detail));
        }
    };
    // Where nothing is spent by presenting it, nobody waits for anybody.
    let lease = match plan.rotation {
        Rotation::Never => Ok(None),
        Rotation::Unknown | Rotation::SingleUse | Rotation::Grace => {
            acquire(core, &key.credential, plan.owner, deadline).await
        }
    };
    let (held, away) = match lease {
        Ok(held) => (held, None),
        Err(NoLease::Busy(failure)) => return unsent(failure),
        Err(NoLease::Away(fault)) => (None, Some(fault)),
    };
    let driven = run(core, provider, key, plan, deadline, away).await;
    if let Some(held) = held {
        held.give_back().await;
    }
    driven
}

/// Performs the effects of a flow; `away` is what the store said when it was asked for the lease, if it did not answer.
async fn run(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    key: &TokenKey,
    plan: Plan,
    deadline: UnixTime,
    mut away: Option<Unreachable>,
) -> Driven {
    let mut heard = None;
    let mut version = None;
    let (mut flow, mut effect) = Flow::new(plan, core.now());
    loop {
        let input = match effect {
            Effect::Lease if core.unsaved.holds(&key.credential) => {
                let detail = "what became of this grant is not on record yet".to_owned();
                Input::Leased(Err(Unreachable(detail)))
            }
            Effect::Lease | Effect::Reload => {
                let loaded = match away.take() {
                    Some(fault) => Err(fault),
                    None => core.load(&key.credential).await,
                };
                if let Ok(stored) = &loaded {
                    version.get_or_insert(stored.version);
                }
                Input::Leased(loaded)
            }
            Effect::Strand(record) => {
                unsaved::keep(core, &key.credential, record);
                Input::Stranded
            }
            Effect::Consult => {
                let answer = provider.plugin.refresh(flow.call(), flow.replies()).await;
                if let Err(fault) = &answer {
                    plugin_failed(core, provider, fault);
                }
                Input::Consulted(answer)
            }
            Effect::Send(request) => {
                let delivery = send(core, provider, request, deadline).await;
                heard = Some(match &delivery {
                    Delivery::Answered(answer) => Heard::Status(answer.status.as_u16()),
                    Delivery::NotSent(_) | Delivery::Lost(_) => Heard::Nothing,
                });
                Input::Delivered(delivery)
            }
            Effect::Mark(record) | Effect::Persist(record) => {
                Input::Recorded(commit(core, key, record).await)
            }
            Effect::Land(landing) => {
                if let Landing::Failed(failure) = &landing
                    && failure.plugin
                {
                    core.emit(&Event::PluginFailed {
                        provider: provider.settings.name.as_str().to_owned(),
                        label: failure.label,
                        detail: failure.detail.clone(),
                    });
                }
                return Driven {
                    landing,
                    heard,
                    version: version.unwrap_or_default(),
                };
            }
        };
        (flow, effect) = flow.advance(input, core.now());
    }
}

/// Why there is no lease.
enum NoLease {
    /// Somebody else has it.
    Busy(Failure),
    /// The store did not answer.
    Away(Unreachable),
}

/// Asks the store who may send. An efficiency: what keeps a grant from being presented twice is the intent in its record.
async fn acquire<'a>(
    core: &'a Arc<Core>,
    key: &'a CredentialKey,
    owner: Owner,
    deadline: UnixTime,
) -> Result<Option<Held<'a>>, NoLease> {
    let now = core.now();
    let left = deadline.since(now);
    // Before it is asked for: what is cut off here may be held all the same.
    let held = Held { core, key, owner };
    let asked = core.store.acquire(key, owner, left + LEASE_SLACK, now);
    let answer = match tokio::time::timeout(left, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Unreachable("it did not answer in time".to_owned())),
    };
    core.store_away.store(answer.is_err(), Ordering::Relaxed);
    match answer {
        Ok(Lease::Held { .. }) => Ok(Some(held)),
        Ok(Lease::Busy { until }) => {
            std::mem::forget(held);
            let failure =
                Failure::unavailable("in_flight", "another attempt may still be under way");
            Err(NoLease::Busy(failure.after(until.since(now))))
        }
        Err(fault) => Err(NoLease::Away(fault)),
    }
}

async fn plan(
    core: &Core,
    provider: &Provider,
    slot: &Slot,
    cause: Cause,
    deadline: UnixTime,
) -> Result<Plan, Failure> {
    let secrets = secrets_of(core, provider).await?;
    let (rotation, grace) = provider.rotation();
    let now = core.now();
    Ok(Plan {
        key: slot.key(),
        cause,
        deadline,
        settings: provider.plugin_settings.clone(),
        rules: provider.rules.clone(),
        secrets,
        rotation,
        grace,
        after_lost_answer: provider.settings.refresh.after_lost_answer,
        default_lifetime: provider.settings.refresh.default_lifetime,
        served_until: slot.servable(now).ok().map(|token| token.expires()),
        entropy: random()?,
        seed: Secret::new(random()?),
        owner: random()?,
        spent_key: core.seeds.fingerprints.clone(),
    })
}

/// The secrets of a provider by name, as they are now. Files among them can hang: give it a deadline.
pub(crate) async fn secrets_of(
    core: &Core,
    provider: &Provider,
) -> Result<Vec<(String, Secret<String>)>, Failure> {
    let mut secrets = Vec::with_capacity(provider.settings.secrets.len());
    for secret in &provider.settings.secrets {
        let value = core.secrets.read(&secret.source).await.map_err(|fault| {
            Failure::misconfigured("secret", format!("the secret \"{}\": {fault}", secret.name))
        })?;
        secrets.push((secret.name.clone(), value));
    }
    Ok(secrets)
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::internal("the system gave no random bytes"))?;
    Ok(bytes)
}

pub(crate) async fn send(
    core: &Core,
    provider: &Provider,
    request: OutgoingRequest,
    deadline: UnixTime,
) -> Delivery {
    let before = core.now();
    let delivery = provider
        .upstream
        .send(request, deadline.since(before))
        .await;
    let (result, detail) = match &delivery {
        Delivery::Answered(answer) => (Ok(answer.status.as_u16()), None),
        Delivery::NotSent(fault) | Delivery::Lost(fault) => {
            (Err(fault.kind), Some(fault.detail.clone()))
        }
    };
    core.emit(&Event::UpstreamAnswered {
        provider: provider.settings.name.clone(),
        result,
        took: core.now().since(before),
        detail,
    });
    delivery
}

async fn commit(core: &Core, key: &TokenKey, record: Record) -> Result<Version, CommitFault> {
    if record.tries > 0 {
        tokio::time::sleep(RECORD_PAUSE * record.tries).await;
    }
    let state = record.credential.state;
    let committed = core
        .store
        .commit(&key.credential, record.expected, record.credential.clone())
        .await;
    let away = matches!(committed, Err(CommitFault::Unreachable(_)));
    core.store_away.store(away, Ordering::Relaxed);
    let version = match committed {
        // A commit that was not answered, or that the store got twice, may have happened: then the row is ours.
        Err(CommitFault::Conflict) => {
            let row = core.load(&key.credential).await?;
            record.is_made(&row).ok_or(CommitFault::Conflict)?
        }
        committed => committed?,
    };
    match record.change {
        Change::Rotated => {
            core.emit(&Event::GrantRotated {
                key: key.credential.clone(),
                version,
            });
        }
        Change::State => core.emit(&Event::CredentialChanged {
            key: key.credential.clone(),
            was: record.was,
            state,
            version,
            by: "refresh".to_owned(),
        }),
        Change::Intent | Change::Kept => {}
    }
    Ok(version)
}

fn plugin_failed(core: &Core, provider: &Provider, fault: &PluginFault) {
    core.emit(&Event::PluginFailed {
        provider: provider.settings.name.as_str().to_owned(),
        label: fault.label(),
        detail: fault.to_string(),
    });
}

// === impl Held ===

impl Held<'_> {
    /// Gives it back before the next of the credential asks for it.
    async fn give_back(self) {
        let released = self.core.store.release(self.key, self.owner);
        // Not heard, it ends by itself.
        let _ = tokio::time::timeout(RELEASE_MAX, released).await;
        std::mem::forget(self);
    }
}

impl Drop for Held<'_> {
    /// The flow was cut off: nobody waits for this.
    fn drop(&mut self) {
        let (core, key, owner) = (self.core.clone(), self.key.clone(), self.owner);
        let release = async move { core.store.release(&key, owner).await };
        self.core.spawn(release);
    }
}
