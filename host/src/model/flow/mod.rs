//! One refresh as a value: `advance(self, input, now) → (Flow, Effect)`. Whoever drives it performs the effect and comes
//! back with what happened; nothing here waits, sends or asks the time.
//!
//! ```text
//!  Leasing ──Leased──▶ Consulting ◀───────────────┐
//!     │                  │  │  │                  │ reply
//!     │ may not go       │  │  └─Sign: at once────┤
//!     ▼                  │  └─Send─┬─no grant─▶ Sending ──▶ answered
//!   Land                 │         └─grant──▶ Marking ─▶ Sending     │ rotation, intent over
//!     ▲                  │                                           ▼
//!     └──── Recording ◀──Done                                    Recording
//! ```
//!
//! Two orders are the only paths there are: a grant that may be single-use is *marked* before it leaves, and what came
//! back of it is *recorded* before the plugin reads the answer or anybody gets the token.

mod admission;
mod failure;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::backoff;
use super::contract::{
    Call, Cause, HttpRequest, Limited, PluginFault, Reason, Refusal, Reply, Rotation, Step,
};
use super::credential::{
    AfterLostAnswer, CommitFault, Credential, CredentialState, EndCause, Intent, Stored,
    Unreachable, Version, fingerprint,
};
use super::key::TokenKey;
use super::seal::{Completeness, Rules, Settled, Vault, Violation};
use super::secret::Secret;
use super::time::UnixTime;
use super::token::ObtainedToken;
use super::transport::{Delivery, OutgoingRequest};
use admission::{Admission, Knowledge};
pub use failure::{Failure, FailureScope};

/// The most replies a plugin gets in one flow: the longest real exchange (sign, send, sign, send) takes four.
pub const STEPS_MAX: usize = 8;
/// How often a commit that the store did not answer is tried again before the flow gives up on it.
const RECORD_TRIES: u32 = 5;
/// The most fingerprints of spent grants kept per credential: replays come from recent backups, not from last year's.
const SPENT_MAX: usize = 64;
/// Added to a flow's deadline before its intent counts as over: the slack between two readings of the clock.
const INTENT_SLACK: Duration = Duration::from_secs(5);

/// What a flow is told once, when it begins.
pub struct Plan {
    /// Which token.
    pub key: TokenKey,
    /// Why.
    pub cause: Cause,
    /// When everything must be over.
    pub deadline: UnixTime,
    /// The provider's settings as JSON.
    pub settings: Arc<str>,
    /// What may go where.
    pub rules: Arc<Rules>,
    /// The secrets' values, read for this flow.
    pub secrets: Vec<(String, Secret<String>)>,
    /// What is declared of the grant's rotation.
    pub rotation: Rotation,
    /// With [`Rotation::Grace`].
    pub grace: Duration,
    /// What to do when an answer was lost; none decides by rotation.
    pub after_lost_answer: Option<AfterLostAnswer>,
    /// Lifetime of a token whose answer states none.
    pub default_lifetime: Duration,
    /// Until when callers can be served the token they have.
    pub served_until: Option<UnixTime>,
    /// 32 random bytes for the plugin.
    pub entropy: [u8; 32],
    /// 32 random bytes that no plugin sees: handles are drawn from them.
    pub seed: Secret<[u8; 32]>,
    /// Names this attempt in an intent.
    pub owner: [u8; 16],
    /// Keys the fingerprints of spent grants.
    pub spent_key: Secret<[u8; 32]>,
}

/// One refresh.
pub struct Flow {
    core: Core,
    state: State,
}

/// What the driver reports.
pub enum Input {
    /// The credential's gate is held and its record was read.
    Leased(Result<Stored, Unreachable>),
    /// The plugin answered.
    Consulted(Result<Result<Step, Refusal>, PluginFault>),
    /// The request went out, or did not.
    Delivered(Delivery),
    /// The record was committed at this version, or was not.
    Recorded(Result<Version, CommitFault>),
}

/// What the driver must do next.
pub enum Effect {
    /// Enter the credential's gate and read its record: answer with [`Input::Leased`].
    Lease,
    /// Commit the intent: answer with [`Input::Recorded`].
    Mark(Record),
    /// Call the plugin with [`Flow::call`] and [`Flow::replies`]: answer with [`Input::Consulted`].
    Consult,
    /// Send it once: answer with [`Input::Delivered`].
    Send(OutgoingRequest),
    /// Commit what came back: answer with [`Input::Recorded`].
    Persist(Record),
    /// Over: publish to everyone who waits.
    Land(Landing),
}

/// A commit to be made.
pub struct Record {
    /// What it replaces.
    pub expected: Version,
    /// The record.
    pub credential: Credential,
    /// What changed, for whoever watches.
    pub change: Change,
    /// How often this one was tried before.
    pub tries: u32,
}

/// What a commit is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// An intent was set or cleared.
    Intent,
    /// The issuer replaced the grant.
    Rotated,
    /// The state changed.
    State,
    /// What the plugin wants to find again.
    Kept,
}

/// How a flow ended.
pub enum Landing {
    /// With a token.
    Renewed(ObtainedToken),
    /// With a failure.
    Failed(Failure),
    /// Somebody revoked or replaced the credential meanwhile; a grant that came back belongs to nobody.
    Superseded {
        /// The grant, if one came back.
        orphan: Option<Secret<String>>,
    },
}

struct Core {
    plan: Plan,
    vault: Vault,
    stored: Stored,
    call: Call,
    replies: Vec<Reply>,
    /// Just before the last request that was answered went out.
    sent_at: Option<UnixTime>,
    /// The grant in hand came back in this flow.
    rotated_here: bool,
    /// This flow presents a grant whose last answer was lost.
    probing: bool,
}

enum State {
    Leasing,
    Consulting,
    Marking {
        request: HttpRequest,
        outgoing: OutgoingRequest,
    },
    Sending {
        request: HttpRequest,
        with_grant: bool,
    },
    Recording {
        change: Change,
        tries: u32,
        then: Then,
    },
    Landed,
}

enum Then {
    Consult,
    Land(Landing),
}

type Advanced = (Flow, Effect);

// === impl Flow ===

impl Flow {
    /// Begins a flow; perform [`Effect::Lease`] first.
    pub fn new(mut plan: Plan, now: UnixTime) -> Advanced {
        let secrets = std::mem::take(&mut plan.secrets);
        let vault = Vault::new(plan.rules.clone(), secrets, plan.seed.clone());
        let credential = &plan.key.credential;
        let call = Call {
            now: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            entropy: plan.entropy.to_vec(),
            settings: plan.settings.clone(),
            tenant: credential.tenant.as_str().to_owned(),
            subject: credential.subject.as_ref().map(|s| s.as_str().to_owned()),
            scopes: plan.key.scopes.iter().map(str::to_owned).collect(),
            audience: plan.key.audience.as_ref().map(|a| a.as_str().to_owned()),
            refresh_token: None,
            held: Vec::new(),
            memo: Vec::new(),
            cause: plan.cause,
        };
        let core = Core {
            plan,
            vault,
            stored: Stored::default(),
            call,
            replies: Vec::new(),
            sent_at: None,
            rotated_here: false,
            probing: false,
        };
        (
            Self {
                core,
                state: State::Leasing,
            },
            Effect::Lease,
        )
    }

    /// What the plugin is asked.
    pub fn call(&self) -> &Call {
        &self.core.call
    }

    /// What it has been told so far.
    pub fn replies(&self) -> &[Reply] {
        &self.core.replies
    }

    /// Takes what happened and says what is next. An input that answers no open effect ends the flow with a failure.
    pub fn advance(self, input: Input, now: UnixTime) -> Advanced {
        let Self { core, state } = self;
        match (state, input) {
            (State::Leasing, Input::Leased(Ok(stored))) => core.begin(stored, now),
            (State::Leasing, Input::Leased(Err(Unreachable(detail)))) => core.fail(
                Failure::unavailable("store", format!("the store: {detail}")),
            ),
            (State::Consulting, Input::Consulted(Ok(Ok(step)))) => core.step(step, now),
            (State::Consulting, Input::Consulted(Ok(Err(refusal)))) => core.refused(refusal, now),
            (State::Consulting, Input::Consulted(Err(fault))) => core.fail(Failure::plugin(&fault)),
            (State::Marking { request, outgoing }, Input::Recorded(Ok(version))) => {
                core.at(version).send(request, outgoing)
            }
            (State::Marking { .. }, Input::Recorded(Err(CommitFault::Conflict))) => {
                core.land(Landing::Superseded { orphan: None })
            }
            (State::Marking { .. }, Input::Recorded(Err(CommitFault::Unreachable(detail)))) => core
                .fail(Failure::unavailable(
                    "store",
                    format!(
                        "a grant that may be single-use is not presented without a store: {detail}"
                    ),
                )),
            (
                State::Sending {
                    request,
                    with_grant,
                },
                Input::Delivered(delivery),
            ) => core.delivered(request, with_grant, delivery, now),
            (State::Recording { then, .. }, Input::Recorded(Ok(version))) => {
                core.at(version).resume(then)
            }
            (State::Recording { .. }, Input::Recorded(Err(CommitFault::Conflict))) => {
                core.superseded()
            }
            (
                State::Recording {
                    change,
                    tries,
                    then,
                },
                Input::Recorded(Err(CommitFault::Unreachable(detail))),
            ) => core.record_again(change, tries + 1, then, &detail),
            _ => core.fail(Failure::internal("the refresh was driven out of order")),
        }
    }
}

// === impl Core ===

impl Core {
    /// The gate is held: may the grant be used?
    fn begin(mut self, stored: Stored, now: UnixTime) -> Advanced {
        self.stored = stored;
        match admission::admit(&self.stored.credential, &self.plan, now) {
            Admission::Go => {}
            Admission::Probe => self.probing = true,
            Admission::Wait(failure) => return self.fail(failure),
            Admission::End(state, failure) => {
                self.stored.credential.state = state;
                self.stored.credential.intent = None;
                return self.persist(Change::State, Then::Land(Landing::Failed(failure)));
            }
        }
        let credential = &self.stored.credential;
        self.call.refresh_token = credential
            .refresh_token
            .as_ref()
            .map(|grant| self.vault.seal_grant(grant));
        self.call.held = credential
            .held
            .iter()
            .map(|(name, value)| (name.clone(), self.vault.seal_held(value)))
            .collect();
        self.call.memo.clone_from(&credential.memo);
        self.consult()
    }

    fn consult(self) -> Advanced {
        if self.replies.len() > STEPS_MAX {
            return self.fail(Failure::broken(format!(
                "it asked for more than {STEPS_MAX} steps"
            )));
        }
        (
            Flow {
                core: self,
                state: State::Consulting,
            },
            Effect::Consult,
        )
    }

    fn step(mut self, step: Step, now: UnixTime) -> Advanced {
        match step {
            Step::Send(request) => match self.vault.write(&request) {
                Ok(outgoing) => self.mark_or_send(request, outgoing, now),
                Err(violation) => self.violated(&violation),
            },
            // Signing is arithmetic: it is done here, with a key that stays in the vault.
            Step::Sign(request) => match self.vault.sign(&request, now) {
                Ok(signature) => {
                    self.replies.push(Reply::Signed(signature));
                    self.consult()
                }
                Err(violation) => self.violated(&violation),
            },
            Step::Done(set) => {
                let Some(sent_at) = self.sent_at else {
                    return self.fail(Failure::broken("it finished before anything was sent"));
                };
                let plan = &self.plan;
                match self
                    .vault
                    .settle(&set, &plan.key.scopes, sent_at, plan.default_lifetime)
                {
                    Ok(settled) if settled.token.expires <= now => {
                        self.fail(Failure::dead_on_arrival())
                    }
                    Ok(settled) => self.settle(settled, now),
                    Err(Violation::DeadOnArrival) => self.fail(Failure::dead_on_arrival()),
                    Err(violation) => self.violated(&violation),
                }
            }
        }
    }

    fn mark_or_send(
        mut self,
        request: HttpRequest,
        outgoing: OutgoingRequest,
        now: UnixTime,
    ) -> Advanced {
        let marks = outgoing.carries_grant && self.knowledge() != Knowledge::Reusable;
        if !marks || self.stored.credential.intent.is_some() {
            return self.send(request, outgoing);
        }
        if self.rotated_here {
            // A rotated grant presented again in one flow would be a second rotation that nobody asked for.
            return self.fail(Failure::broken(
                "it presented the grant that this flow brought back",
            ));
        }
        self.stored.credential.intent = Some(Intent {
            owner: self.plan.owner,
            at: now,
            over_at: self.plan.deadline.plus(INTENT_SLACK),
        });
        let record = self.record_of(Change::Intent, 0);
        (
            Flow {
                core: self,
                state: State::Marking { request, outgoing },
            },
            Effect::Mark(record),
        )
    }

    fn send(self, request: HttpRequest, outgoing: OutgoingRequest) -> Advanced {
        let with_grant = outgoing.carries_grant;
        (
            Flow {
                core: self,
                state: State::Sending {
                    request,
                    with_grant,
                },
            },
            Effect::Send(outgoing),
        )
    }

    /// What came back decides (DESIGN 8a.4).
    fn delivered(
        mut self,
        request: HttpRequest,
        with_grant: bool,
        delivery: Delivery,
        now: UnixTime,
    ) -> Advanced {
        let answer = match delivery {
            Delivery::Answered(answer) => answer,
            Delivery::NotSent(fault) if with_grant => {
                let failure = Failure::transport(&fault);
                return self.intent_over(Then::Land(Landing::Failed(failure)));
            }
            Delivery::NotSent(fault) => {
                let reason = Reason {
                    code: fault.kind.label().into(),
                    message: fault.detail,
                };
                self.replies.push(Reply::Unreached(reason));
                return self.consult();
            }
            Delivery::Lost(fault) if with_grant => {
                return self.in_doubt(Failure::transport(&fault), now);
            }
            Delivery::Lost(fault) => return self.fail(Failure::transport(&fault)),
        };
        self.sent_at = Some(answer.sent_at);
        let opened = match self.vault.read(&request, &answer) {
            Ok(opened) => opened,
            Err(violation) => {
                let failure = self.broken(&violation);
                // A grant that came with an answer nobody should read is a grant all the same.
                return match self.vault.captured_grant().cloned() {
                    Some(grant) => self.adopt(grant, Then::Land(Landing::Failed(failure)), now),
                    None if with_grant => self.in_doubt(failure, now),
                    None => self.fail(failure),
                };
            }
        };
        let status = opened.response.status;
        self.replies.push(Reply::Response(opened.response));
        match (opened.grant, opened.verdict) {
            (Some(grant), _) => self.adopt(grant, Then::Consult, now),
            (None, Completeness::Token) if with_grant => {
                let credential = &mut self.stored.credential;
                let learned = !credential.seen.stayed || credential.state != CredentialState::Live;
                credential.seen.stayed = true;
                credential.state = CredentialState::Live;
                if credential.intent.take().is_some() || learned {
                    return self.persist(Change::Intent, Then::Consult);
                }
                self.consult()
            }
            (None, Completeness::NoToken | Completeness::Ambiguous)
                if with_grant && self.knowledge() != Knowledge::Reusable =>
            {
                self.in_doubt(Failure::unclear(status), now)
            }
            (None, _) => self.intent_over(Then::Consult),
        }
    }

    /// A new grant is recorded before anything can spoil it.
    fn adopt(mut self, grant: Secret<String>, then: Then, now: UnixTime) -> Advanced {
        let credential = &mut self.stored.credential;
        if let Some(old) = credential.refresh_token.replace(grant) {
            credential.seen.rotated = true;
            credential
                .spent
                .push(fingerprint(&self.plan.spent_key, &old));
            let surplus = credential.spent.len().saturating_sub(SPENT_MAX);
            credential.spent.drain(..surplus);
        }
        credential.grant_since = now;
        credential.state = CredentialState::Live;
        credential.intent = None;
        self.rotated_here = true;
        self.persist(Change::Rotated, then)
    }

    /// The attempt is over and the grant is as it was.
    fn intent_over(mut self, then: Then) -> Advanced {
        if self.stored.credential.intent.take().is_none() {
            return self.resume(then);
        }
        self.persist(Change::Intent, then)
    }

    /// The grant may have been spent, and nobody knows (DESIGN 8a.6).
    fn in_doubt(mut self, failure: Failure, now: UnixTime) -> Advanced {
        let landing = match (self.knowledge(), self.probing) {
            (Knowledge::Reusable, _) => {
                return self.intent_over(Then::Land(Landing::Failed(failure)));
            }
            (Knowledge::Unknown | Knowledge::SingleUse, true) => {
                self.stored.credential.state = CredentialState::ReauthorizationRequired {
                    since: now,
                    cause: EndCause::LostAnswer,
                };
                Failure::reauthorize("lost_answer", "the probe's answer was lost too")
            }
            _ => {
                if !matches!(
                    self.stored.credential.state,
                    CredentialState::Uncertain { .. }
                ) {
                    self.stored.credential.state = CredentialState::Uncertain { since: now };
                }
                failure
            }
        };
        self.stored.credential.intent = None;
        self.persist(Change::State, Then::Land(Landing::Failed(landing)))
    }

    fn refused(mut self, refusal: Refusal, now: UnixTime) -> Advanced {
        let failure = Failure::refusal(&refusal, |text| {
            self.vault.filter(text, failure::WORDS_MAX_BYTES)
        });
        let had_grant = self.call.refresh_token.is_some();
        match refusal {
            Refusal::Reauthorize(_) if had_grant && !self.rotated_here => {
                self.stored.credential.state = CredentialState::ReauthorizationRequired {
                    since: now,
                    cause: EndCause::Refused,
                };
                self.persist(Change::State, Then::Land(Landing::Failed(failure)))
            }
            Refusal::RateLimited {
                after,
                scope: Limited::Grant,
            } if had_grant => {
                let pause = backoff::clamp(after.unwrap_or_default());
                self.stored.credential.state = CredentialState::Suspended {
                    until: now.plus(pause),
                };
                self.persist(Change::State, Then::Land(Landing::Failed(failure)))
            }
            Refusal::InDoubt(_) if had_grant && !self.rotated_here => self.in_doubt(failure, now),
            _ => self.fail(failure),
        }
    }

    /// The token is good: keep what the plugin wants to find again, then hand the token out.
    fn settle(mut self, settled: Settled, now: UnixTime) -> Advanced {
        let landing = Then::Land(Landing::Renewed(settled.token));
        if let Some(grant) = settled.refresh_token {
            let known = self.stored.credential.refresh_token.as_ref();
            if !known.is_some_and(|known| known.same_as(&grant)) {
                self.stored.credential.refresh_token = Some(grant);
                self.stored.credential.grant_since = now;
                self.stored.credential.held = settled.held;
                self.stored.credential.memo = settled.memo;
                return self.persist(Change::Rotated, landing);
            }
        }
        let credential = &mut self.stored.credential;
        let same_held = credential.held.len() == settled.held.len()
            && credential
                .held
                .iter()
                .zip(&settled.held)
                .all(|((a, x), (b, y))| a == b && x.same_as(y));
        if same_held && credential.memo == settled.memo && credential.state == CredentialState::Live
        {
            return self.resume(landing);
        }
        credential.held = settled.held;
        credential.memo = settled.memo;
        credential.state = CredentialState::Live;
        self.persist(Change::Kept, landing)
    }

    fn violated(self, violation: &Violation) -> Advanced {
        let failure = self.broken(violation);
        self.fail(failure)
    }

    /// What the plugin did wrong, and the line that would allow it where there is one.
    fn broken(&self, violation: &Violation) -> Failure {
        match violation.fix(&self.plan.key.credential.provider) {
            Some(line) => Failure::broken(format!("{violation}; to grant it: {line}")),
            None => Failure::broken(violation.to_string()),
        }
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::of(
            self.plan.rotation,
            self.plan.grace,
            self.stored.credential.seen,
        )
    }

    fn record_of(&self, change: Change, tries: u32) -> Record {
        Record {
            expected: self.stored.version,
            credential: self.stored.credential.clone(),
            change,
            tries,
        }
    }

    fn persist(self, change: Change, then: Then) -> Advanced {
        let record = self.record_of(change, 0);
        (
            Flow {
                core: self,
                state: State::Recording {
                    change,
                    tries: 0,
                    then,
                },
            },
            Effect::Persist(record),
        )
    }

    fn record_again(self, change: Change, tries: u32, then: Then, detail: &str) -> Advanced {
        if tries >= RECORD_TRIES {
            let failure = Failure::unavailable("store", format!("the store: {detail}"));
            return self.fail(failure);
        }
        let record = self.record_of(change, tries);
        (
            Flow {
                core: self,
                state: State::Recording {
                    change,
                    tries,
                    then,
                },
            },
            Effect::Persist(record),
        )
    }

    /// Somebody committed while this flow ran: theirs stands.
    fn superseded(mut self) -> Advanced {
        let orphan = if self.rotated_here {
            self.stored.credential.refresh_token.take()
        } else {
            None
        };
        self.land(Landing::Superseded { orphan })
    }

    fn at(mut self, version: Version) -> Self {
        self.stored.version = version;
        self
    }

    fn resume(self, then: Then) -> Advanced {
        match then {
            Then::Consult => self.consult(),
            Then::Land(landing) => self.land(landing),
        }
    }

    fn fail(self, failure: Failure) -> Advanced {
        self.land(Landing::Failed(failure))
    }

    fn land(self, landing: Landing) -> Advanced {
        (
            Flow {
                core: self,
                state: State::Landed,
            },
            Effect::Land(landing),
        )
    }
}
