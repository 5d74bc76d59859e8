//! Performs the effects of a flow: the only spawner of flights. A flight belongs to the broker; a caller that leaves
//! costs nothing.

mod drive;
mod keep;
mod turn;
mod warm;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::cache::{Era, NotPublishable, Pin, Slot};
use crate::core::{Core, Landed};
use crate::flight::{Follow, Joined, Lead};
use crate::model::backoff;
use crate::model::contract::{Cause, Rotation};
use crate::model::credential::CredentialState;
use crate::model::error::{Error, ErrorKind, Retry};
use crate::model::event::{Event, RefreshOutcome};
use crate::model::flow::{Failure, FailureScope, Landing};
use crate::model::freshness::{self, Ahead, Life, Plan as RenewalPlan};
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, Generation, ObtainedToken, SlotId, TokenRecord};
use crate::revoke;
use crate::schedule::{Lane, Load};
use drive::{Driven, Heard, drive};
pub(crate) use drive::{random, secrets_of, send};
pub(crate) use keep::Keeping;

/// How often a flight starts over because the provider's settings changed, or the credential was replaced, under it.
const RESTARTS_MAX: usize = 2;
/// When to ask again after a refresh that vanished: at once would find the same fault.
pub(crate) const ABORTED_PAUSE: Duration = Duration::from_secs(1);

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
            core.clone().spawn(fly(core, slot, want, lead));
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
    if want.cause == Cause::First
        && slot.current().is_none()
        && let Some(token) = warm::adopt(&core, &slot).await
    {
        plan_renewal(&core, &slot, &token);
        return lead.land(Ok(token));
    }
    let key = slot.key();
    core.emit(&Event::RefreshStarted {
        key: key.clone(),
        cause: want.cause,
    });
    let landed = AssertUnwindSafe(attempts(&core, &slot, want))
        .catch_unwind()
        .await;
    let landed =
        landed.unwrap_or_else(|_| Attempt::Failed(Failure::internal("the refresh panicked")));
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

/// Tries until what it was based on stays as it was, a few times.
async fn attempts(core: &Arc<Core>, slot: &Pin, want: Want) -> Attempt {
    for _ in 0..=RESTARTS_MAX {
        // Before anything else: a withdrawal from here on makes what is obtained, or what fails, worthless.
        let era = slot.era();
        match attempt(core, slot, want, era).await {
            Attempt::Again => {}
            Attempt::Failed(_) if slot.era() != era => {}
            landed => return landed,
        }
    }
    Attempt::Again
}

async fn attempt(core: &Arc<Core>, slot: &Pin, want: Want, era: Era) -> Attempt {
    let key = &slot.key();
    let Some(provider) = core.provider(&key.credential.provider) else {
        return Attempt::Failed(Failure::misconfigured(
            "no_provider",
            "the provider was removed",
        ));
    };
    let budget = core.budget(&provider);
    let lane = match want.cause {
        Cause::Expiring => Lane::Ahead,
        Cause::First | Cause::Rejected | Cause::Operator => Lane::Waiting,
    };
    let patience = provider.settings.refresh.timeout;
    let ticket = match turn::ticket(core, &budget, slot, lane, patience).await {
        Ok(ticket) => ticket,
        Err(failure) => return Attempt::Failed(failure),
    };
    // Where nothing is spent by presenting it, nobody has to wait for anybody: keys of one client credential fly side by
    // side.
    let gate = match provider.rotation().0 {
        Rotation::Never => None,
        Rotation::Unknown | Rotation::SingleUse | Rotation::Grace => {
            let Ok(gate) = tokio::time::timeout(patience, core.gates.pass(&key.credential)).await
            else {
                return Attempt::Failed(Failure::unavailable(
                    "gate",
                    "another refresh of this credential took all the time there was",
                ));
            };
            Some(gate)
        }
    };
    if core.stop.is_cancelled() {
        return Attempt::Failed(turn::stopping());
    }
    // Another flight of this slot may have landed while this one queued: what it brought is newer than what was wanted.
    if let Ok(token) = slot.servable(core.now())
        && Some(token.generation()) != want.seen
    {
        return Attempt::Published(token);
    }
    // From here, whatever the queues took: a single-use grant must not be sent with what little they left.
    let began = core.now();
    let deadline = began.plus(patience);
    let Driven {
        landing,
        heard,
        version,
    } = drive(core, &provider, slot, want, deadline).await;
    drop(gate);
    let ended = core.now();
    match heard {
        // A flow that sent nothing says nothing about the provider.
        None => drop(ticket),
        Some(heard) => ticket.finish(ended.since(began), load_of(&landing, heard), ended),
    }
    match landing {
        Landing::Renewed(token) => {
            let landed = publish(core, slot, era, &token);
            if let Attempt::Published(published) = &landed {
                let record = TokenRecord {
                    token,
                    generation: published.generation(),
                    fingerprint: provider.fingerprint,
                    obtained_at: version,
                };
                keep::keep(core, slot.slot(), record);
            }
            landed
        }
        Landing::Failed(mut failure) => {
            if failure.scope == FailureScope::Client && slot.era() == era {
                let delay = pause(core, slot, failure.after, ended);
                budget.pause(ended.plus(delay));
                // Callers are told the same: whoever came back sooner would only meet the pause.
                failure.after = Some(delay);
            }
            Attempt::Failed(failure)
        }
        Landing::Superseded { orphan, revoked } => {
            if let Some(grant) = orphan {
                let state = match revoked {
                    true => CredentialState::Revoked { at: ended },
                    false => CredentialState::Live,
                };
                revoke::orphan(core, &provider, &key.credential, grant, state).await;
            }
            Attempt::Again
        }
    }
}

/// How long a failure is left alone: by the issuer's word, else by our own measure.
fn pause(core: &Core, slot: &Slot, asked: Option<Duration>, now: UnixTime) -> Duration {
    let draw = freshness::draw(core.seeds.node, slot.key().hash_word(), now.as_millis());
    asked.map_or_else(
        || backoff::backoff(slot.attempts() + 1, draw),
        backoff::clamp,
    )
}

/// How the provider took it: what its word or its silence says about our pace.
fn load_of(landing: &Landing, heard: Heard) -> Load {
    let limited = matches!(landing, Landing::Failed(it) if it.scope == FailureScope::Client);
    match heard {
        Heard::Nothing | Heard::Status(429 | 503) => Load::TooMuch,
        Heard::Status(_) if limited => Load::TooMuch,
        Heard::Status(_) => Load::Fine,
    }
}

/// Puts a token where callers find it.
fn publish(core: &Core, slot: &Slot, era: Era, token: &ObtainedToken) -> Attempt {
    let why = match slot.publish(era, token, core.now()) {
        Ok(published) => {
            core.watchers.changed(&slot.key());
            return Attempt::Published(published);
        }
        Err(NotPublishable::Withdrawn) => return Attempt::Again,
        Err(NotPublishable::Closed) => "the key was evicted or revoked meanwhile",
        Err(NotPublishable::Expired) => "the token had expired when it arrived",
        Err(NotPublishable::Older) => "a newer token is held",
        Err(NotPublishable::NotAHeader) => "the token holds bytes that no header may hold",
    };
    Attempt::Failed(Failure::unavailable("unpublishable", why))
}

/// Draws when this slot's token is renewed, and files it with the scheduler.
fn plan_renewal(core: &Core, slot: &Pin, token: &AccessToken) {
    if let Some(plan) = renewal_of(core, slot, token) {
        // A token out of the store may have missed its moment.
        let plan = resume(core, slot, plan, core.now());
        if plan.scheduled {
            core.scheduler.file(slot.slot(), plan.due);
        } else {
            slot.set_due(plan.due);
        }
    }
}

/// When to renew a slot's token for which nothing can be done before `from`; `None` when it ends before.
pub(crate) fn renewal_from(core: &Core, slot: &Slot, from: UnixTime) -> Option<UnixTime> {
    let token = slot.servable(from).ok()?;
    let plan = renewal_of(core, slot, &token);
    Some(plan.map_or(from, |plan| resume(core, slot, plan, from).due))
}

fn resume(core: &Core, slot: &Slot, plan: RenewalPlan, from: UnixTime) -> RenewalPlan {
    // Another draw each time: keys that missed their moments together may miss the next ones too.
    let word = slot.key().hash_word() ^ from.as_millis();
    plan.resume(from, freshness::draw(core.seeds.node, word, 0))
}

fn renewal_of(core: &Core, slot: &Slot, token: &AccessToken) -> Option<RenewalPlan> {
    let provider = core.provider(slot.provider())?;
    let refresh = &provider.settings.refresh;
    RenewalPlan::new(
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
    )
}

/// Remembers a failure, so that callers meet it and not the issuer.
fn fail(core: &Core, slot: &Pin, failure: Failure, now: UnixTime) -> (Landed, RefreshOutcome) {
    let delay = pause(core, slot, failure.after, now);
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
    // While a token is served, the scheduler tries again; without one, the next caller does. What a pause of the whole
    // provider held up does not all come at its end.
    if let Some(spread) = renewal_from(core, slot, until) {
        let again = match failure.scope {
            FailureScope::Client => spread,
            FailureScope::Key | FailureScope::Grant => until,
        };
        core.scheduler.file(slot.slot(), again);
    }
    let outcome = RefreshOutcome::Failed {
        kind: failure.kind,
        detail: format!("{}: {}", failure.label, failure.detail),
        not_before: Some(until),
        correlation,
    };
    (Err(error), outcome)
}
