//! What the plugin says: the next step, a refusal, or that it is done.

use super::admission::{self, Admission, Knowledge};
use super::failure::{self, Failure};
use super::{
    Advanced, Change, Core, Effect, Flow, INTENT_SLACK, Landing, Marked, STEPS_MAX, State, Then,
};
use crate::model::backoff;
use crate::model::contract::{HttpRequest, Limited, Refusal, Reply, Step};
use crate::model::credential::{CredentialState, EndCause, Intent, Stored};
use crate::model::seal::{Settled, Violation};
use crate::model::time::UnixTime;
use crate::model::transport::OutgoingRequest;

// === impl Core ===

impl Core {
    /// The gate is held: may the grant be used?
    pub(super) fn begin(mut self, stored: Stored, now: UnixTime) -> Advanced {
        self.stored = stored;
        self.base.clone_from(&self.stored.credential.refresh_token);
        self.was = self.stored.credential.state;
        match admission::admit(&self.stored.credential, &self.plan, now) {
            Admission::Go => {}
            Admission::Probe => self.probing = true,
            Admission::Wait(failure) => return self.fail(failure),
            Admission::End(state, failure) => {
                self.stored.credential.state = state;
                // What may still arrive keeps an operator's order waiting.
                self.stored.credential.intent = self
                    .stored
                    .credential
                    .intent
                    .filter(|left| left.over_at > now);
                return self.persist(Change::State, Then::Land(Landing::Failed(failure)));
            }
        }
        if let Some(left) = self.stored.credential.intent
            && self.knowledge() != Knowledge::Reusable
        {
            // A crashed attempt's doubt outlives its mark, whatever comes of this one. It counts from the first: the issuer
            // counts a grace from when the grant was spent.
            let state = &mut self.stored.credential.state;
            if !matches!(state, CredentialState::Uncertain { .. }) {
                *state = CredentialState::Uncertain { since: left.at };
            }
            self.stored.credential.intent = None;
            self.was = self.stored.credential.state;
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

    pub(super) fn consult(self) -> Advanced {
        (
            Flow {
                core: self,
                state: State::Consulting,
            },
            Effect::Consult,
        )
    }

    pub(super) fn step(mut self, step: Step, now: UnixTime) -> Advanced {
        match step {
            Step::Send(_) | Step::Sign(_) if self.replies.len() >= STEPS_MAX => self.fail(
                Failure::broken(format!("it asked for more than {STEPS_MAX} steps")),
            ),
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
        self.mark(Marked {
            request,
            outgoing,
            tries: 0,
        })
    }

    pub(super) fn send(self, request: HttpRequest, outgoing: OutgoingRequest) -> Advanced {
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

    pub(super) fn refused(mut self, refusal: Refusal, now: UnixTime) -> Advanced {
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
            } if had_grant
                && !matches!(
                    self.stored.credential.state,
                    CredentialState::Uncertain { .. }
                ) =>
            {
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
}
