//! One flow, driven to its landing: every effect performed, every result reported back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Want;
use crate::cache::Slot;
use crate::core::Core;
use crate::model::contract::{Cause, PluginFault};
use crate::model::credential::{CommitFault, Version};
use crate::model::event::Event;
use crate::model::flow::{Change, Effect, Failure, Flow, Input, Landing, Plan, Record};
use crate::model::key::TokenKey;
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::transport::{Delivery, OutgoingRequest};
use crate::snapshot::Provider;
use crate::store::Unreachable;
use crate::unsaved;

/// Between two tries of a commit that the store did not answer.
const RECORD_PAUSE: Duration = Duration::from_millis(100);

/// What the last request of a flow met.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// This status.
    Status(u16),
    /// No answer.
    Nothing,
}

/// Runs one flow to its landing; says what its last request met.
pub(super) async fn drive(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    slot: &Slot,
    want: Want,
    deadline: UnixTime,
) -> (Landing, Option<Heard>) {
    let key = slot.key();
    // Secrets are files too, and a file system can hang.
    let left = deadline.since(core.now());
    let planned =
        tokio::time::timeout(left, plan(core, provider, slot, want.cause, deadline)).await;
    let plan = match planned {
        Ok(Ok(plan)) => plan,
        Ok(Err(failure)) => return (Landing::Failed(failure), None),
        Err(_) => {
            let detail = "the secrets could not be read in time";
            return (
                Landing::Failed(Failure::misconfigured("secret", detail)),
                None,
            );
        }
    };
    let mut heard = None;
    let (mut flow, mut effect) = Flow::new(plan, core.now());
    loop {
        let input = match effect {
            Effect::Lease if core.unsaved.holds(&key.credential) => {
                let detail = "what became of this grant is not on record yet".to_owned();
                Input::Leased(Err(Unreachable(detail)))
            }
            Effect::Lease | Effect::Reload => Input::Leased(core.load(&key.credential).await),
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
                return (landing, heard);
            }
        };
        (flow, effect) = flow.advance(input, core.now());
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
        key: slot.key().clone(),
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
