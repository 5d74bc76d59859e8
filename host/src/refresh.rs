//! Performs the effects of a flow: the only spawner of flights. A flight belongs to the broker; a caller that leaves
//! costs nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Era, NotPublishable, Pin, Slot};
use crate::core::{Core, Landed};
use crate::flight::{Follow, Joined, Lead};
use crate::model::backoff;
use crate::model::contract::{Cause, PluginFault, Rotation};
use crate::model::credential::{CommitFault, Credential, Version};
use crate::model::error::{Error, ErrorKind, Retry};
use crate::model::event::{Event, RefreshOutcome};
use crate::model::flow::{
    Change, Effect, Failure, FailureScope, Flow, Input, Landing, Plan, Record,
};
use crate::model::freshness::{self, Ahead, Life, Plan as RenewalPlan};
use crate::model::key::TokenKey;
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, Generation, ObtainedToken, SlotId};
use crate::model::transport::{Delivery, OutgoingRequest};
use crate::schedule::{Lane, Load, NoTicket};
use crate::snapshot::Provider;

/// How often a flight starts over because the provider's settings changed, or the credential was replaced, under it.
const RESTARTS_MAX: usize = 2;
/// When to ask again after a refresh that vanished: at once would find the same fault.
pub(crate) const ABORTED_PAUSE: Duration = Duration::from_secs(1);
/// Between two tries of a commit that the store did not answer.
const RECORD_PAUSE: Duration = Duration::from_millis(100);

/// What a joiner knew when it asked: a flight that finds more than that has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    /// Why.
    pub(crate) cause: Cause,
    /// The generation that is no longer good enough; none where there was no token.
    pub(crate) seen: Option<Generation>,
}

/// Joins the flight of a slot, or starts one.
pub(crate) fn join(core: &Arc<Core>, slot: &Pin, want: Want) -> Result<Follow<Landed>, Error> {
    if core.stop.is_cancelled() {
        return Err(closing(core));
    }
    match core.flights.join(&slot.id()) {
        Joined::Follow(follow) => Ok(follow),
        Joined::Full => Err(Error::new(
            ErrorKind::Unavailable,
            Retry::After(Duration::from_secs(1)),
            "too many callers wait for this token",
            "the flight has as many waiters as it may have",
            core.correlation(),
        )),
        Joined::Lead(lead) => {
            let follow = lead.follow();
            let (core, slot) = (core.clone(), slot.clone());
            core.tracker.clone().spawn(fly(core, slot, want, lead));
            Ok(follow)
        }
    }
}

fn closing(core: &Core) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        Retry::After(Duration::from_secs(1)),
        "Keyfob is shutting down",
        "no refresh starts while the process drains",
        core.correlation(),
    )
}

async fn fly(core: Arc<Core>, slot: Pin, want: Want, lead: Lead<SlotId, Landed>) {
    let now = core.now();
    // Whoever joined may have looked at the slot before the last flight landed.
    if let Ok(token) = slot.servable(now)
        && Some(token.generation()) != want.seen
    {
        return lead.land(Ok(token));
    }
    if want.cause != Cause::Operator
        && let Some(error) = slot.failure(now)
    {
        return lead.land(Err(error));
    }
    let key = slot.key().clone();
    core.emit(&Event::RefreshStarted {
        key: key.clone(),
        cause: want.cause,
    });
    let mut landed = Attempt::Again;
    for _ in 0..=RESTARTS_MAX {
        landed = attempt(&core, &slot, want).await;
        if !matches!(landed, Attempt::Again) {
            break;
        }
    }
    let finished = core.now();
    let (result, outcome) = match landed {
        Attempt::Published(token) => {
            plan_renewal(&core, &slot, &token);
            let (generation, expires) = (token.generation(), token.expires());
            (
                Ok(token),
                RefreshOutcome::Renewed {
                    generation,
                    expires,
                },
            )
        }
        Attempt::Failed(failure) => fail(&core, &slot, failure, finished),
        Attempt::Again => {
            let failure =
                Failure::unavailable("superseded", "the credential changed under the refresh");
            fail(&core, &slot, failure, finished)
        }
    };
    core.emit(&Event::RefreshFinished {
        key,
        cause: want.cause,
        outcome,
        took: finished.since(now),
    });
    lead.land(result);
}

enum Attempt {
    Published(Arc<AccessToken>),
    Failed(Failure),
    /// What it was based on changed: start over.
    Again,
}

async fn attempt(core: &Arc<Core>, slot: &Slot, want: Want) -> Attempt {
    let key = slot.key();
    // Before anything else: a withdrawal from here on makes what is obtained worthless.
    let era = slot.era();
    let Some(provider) = core.provider(&key.credential.provider) else {
        return Attempt::Failed(Failure::misconfigured(
            "no_provider",
            "the provider was removed",
        ));
    };
    let now = core.now();
    let deadline = now.plus(provider.settings.refresh.timeout);
    let budget = core.budget(&provider);
    let lane = match want.cause {
        Cause::Expiring => Lane::Ahead,
        Cause::First | Cause::Rejected | Cause::Operator => Lane::Waiting,
    };
    let ends = slot.current().map_or(now, |token| token.expires());
    let patience = provider.settings.refresh.timeout;
    let ticket =
        match tokio::time::timeout(patience, budget.ticket(slot.id(), lane, ends, now)).await {
            Ok(Ok(ticket)) => ticket,
            Ok(Err(NoTicket::Paused { until })) => {
                return Attempt::Failed(rate_limited(until.since(now)));
            }
            Ok(Err(NoTicket::Full)) | Err(_) => {
                return Attempt::Failed(Failure::unavailable(
                    "concurrency",
                    "as many refreshes of this provider ran or waited as may",
                ));
            }
        };
    let began = core.now();
    // Where nothing is spent by presenting it, nobody has to wait for anybody: keys of one client credential fly side by
    // side.
    let gate = match provider.rotation().0 {
        Rotation::Never => None,
        Rotation::Unknown | Rotation::SingleUse | Rotation::Grace => {
            let left = deadline.since(core.now());
            let Ok(gate) = tokio::time::timeout(left, core.gates.pass(&key.credential)).await
            else {
                return Attempt::Failed(Failure::unavailable(
                    "gate",
                    "another refresh of this credential took all the time there was",
                ));
            };
            Some(gate)
        }
    };
    let landing = drive(core, &provider, slot, want, deadline).await;
    drop(gate);
    let ended = core.now();
    ticket.finish(ended.since(began), load_of(&landing), ended);
    match landing {
        Landing::Renewed(token) => publish(core, slot, era, &token),
        Landing::Failed(mut failure) => {
            if failure.scope == FailureScope::Client {
                let delay = failure
                    .after
                    .map_or(backoff::RETRY_AFTER_MIN, backoff::clamp);
                budget.pause(ended.plus(delay));
                // Callers are told the same: whoever came back sooner would only meet the pause.
                failure.after = Some(delay);
            }
            Attempt::Failed(failure)
        }
        Landing::Superseded { orphan } => {
            if let Some(grant) = orphan {
                crate::revoke::orphan(core, &provider, key, grant).await;
            }
            Attempt::Again
        }
    }
}

/// How the provider took it: what its word or its silence says about our pace.
fn load_of(landing: &Landing) -> Load {
    match landing {
        Landing::Failed(failure)
            if failure.scope == FailureScope::Client
                || matches!(failure.label, "rate_limited" | "timeout") =>
        {
            Load::TooMuch
        }
        Landing::Failed(_) | Landing::Renewed(_) | Landing::Superseded { .. } => Load::Fine,
    }
}

fn rate_limited(after: Duration) -> Failure {
    Failure::unavailable(
        "rate_limited",
        "the issuer asked this client for fewer requests",
    )
    .after(after)
}

/// Runs one flow to its landing.
async fn drive(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    slot: &Slot,
    want: Want,
    deadline: UnixTime,
) -> Landing {
    let key = slot.key();
    let plan = match plan(core, provider, slot, want.cause, deadline).await {
        Ok(plan) => plan,
        Err(failure) => return Landing::Failed(failure),
    };
    let (mut flow, mut effect) = Flow::new(plan, core.now());
    loop {
        let input = match effect {
            Effect::Lease => Input::Leased(core.store.load(&key.credential).await),
            Effect::Consult => {
                let answer = provider.plugin.refresh(flow.call(), flow.replies()).await;
                if let Err(fault) = &answer {
                    plugin_failed(core, provider, fault);
                }
                Input::Consulted(answer)
            }
            Effect::Send(request) => {
                Input::Delivered(send(core, provider, request, deadline).await)
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
                return landing;
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
    let mut secrets = Vec::with_capacity(provider.settings.secrets.len());
    for secret in &provider.settings.secrets {
        let value = core.secrets.read(&secret.source).await.map_err(|fault| {
            Failure::misconfigured("secret", format!("the secret \"{}\": {fault}", secret.name))
        })?;
        secrets.push((secret.name.clone(), value));
    }
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
    let ours = (record.tries > 0).then(|| record.credential.clone());
    let committed = core
        .store
        .commit(&key.credential, record.expected, record.credential)
        .await;
    let version = match (committed, ours) {
        (Err(CommitFault::Conflict), Some(ours)) => {
            landed_before(core, key, record.expected, &ours).await?
        }
        (committed, _) => committed?,
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
            state,
            version,
            by: "refresh".to_owned(),
        }),
        Change::Intent | Change::Kept => {}
    }
    Ok(version)
}

/// A commit that was not answered may have happened all the same: then the row is ours, and no conflict.
async fn landed_before(
    core: &Core,
    key: &TokenKey,
    expected: Version,
    ours: &Credential,
) -> Result<Version, CommitFault> {
    let stored = core.store.load(&key.credential).await?;
    if stored.version == Version(expected.0 + 1) && stored.credential == *ours {
        Ok(stored.version)
    } else {
        Err(CommitFault::Conflict)
    }
}

fn plugin_failed(core: &Core, provider: &Provider, fault: &PluginFault) {
    core.emit(&Event::PluginFailed {
        provider: provider.settings.name.as_str().to_owned(),
        label: fault.label(),
        detail: fault.to_string(),
    });
}

/// Puts a token where callers find it.
fn publish(core: &Core, slot: &Slot, era: Era, token: &ObtainedToken) -> Attempt {
    let why = match slot.publish(era, token, core.now()) {
        Ok(published) => return Attempt::Published(published),
        Err(NotPublishable::Withdrawn) => return Attempt::Again,
        Err(NotPublishable::Closed) => "the key was evicted or revoked meanwhile",
        Err(NotPublishable::Expired) => "the token had expired when it arrived",
        Err(NotPublishable::Older) => "a newer token is held",
        Err(NotPublishable::NotAHeader) => "the token holds bytes that no header may hold",
    };
    Attempt::Failed(Failure::unavailable("unpublishable", why))
}

/// Draws when this slot's token is renewed, and files it with the scheduler.
pub(crate) fn plan_renewal(core: &Core, slot: &Pin, token: &AccessToken) {
    let Some(provider) = core.provider(&slot.key().credential.provider) else {
        return;
    };
    let refresh = &provider.settings.refresh;
    let plan = RenewalPlan::new(
        Life {
            issued: token.issued(),
            expires: token.expires(),
        },
        Ahead {
            share: refresh.ahead,
            at_most: refresh.max_ahead,
        },
        core.budget(&provider).latency_p95(),
        freshness::draw(
            core.seeds.node,
            slot.key().hash_word(),
            token.generation().number(),
        ),
        slot.stalled(),
    );
    if let Some(plan) = plan {
        if plan.scheduled {
            core.scheduler.file(slot.slot(), plan.due);
        } else {
            slot.set_due(plan.due);
        }
    }
}

/// Remembers a failure, so that callers meet it and not the issuer.
fn fail(core: &Core, slot: &Pin, failure: Failure, now: UnixTime) -> (Landed, RefreshOutcome) {
    let attempts = slot.attempts() + 1;
    let draw = freshness::draw(core.seeds.node, slot.key().hash_word(), now.as_millis());
    let delay = failure
        .after
        .map_or_else(|| backoff::backoff(attempts, draw), backoff::clamp);
    let until = now.plus(delay);
    let retry = match failure.kind {
        ErrorKind::ReauthorizationRequired => Retry::Human,
        ErrorKind::Misconfigured => Retry::Human,
        _ => Retry::After(delay),
    };
    let correlation = core.correlation();
    let error = Error::new(
        failure.kind,
        retry,
        failure.public,
        failure.detail.clone(),
        correlation,
    );
    slot.remember_failure(error.clone(), until);
    // While a token is served, the scheduler tries again; without one, the next caller does.
    if slot.servable(until).is_ok() {
        core.scheduler.file(slot.slot(), until);
    }
    let outcome = RefreshOutcome::Failed {
        kind: failure.kind,
        detail: format!("{}: {}", failure.label, failure.detail),
        not_before: Some(until),
        correlation,
    };
    (Err(error), outcome)
}
