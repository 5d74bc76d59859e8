//! What came back decides: whether a grant was spent, stayed, was replaced, or nobody knows (the refresh protocol in
//! `docs/architecture.md`).

use super::admission::Knowledge;
use super::failure::Failure;
use super::{Advanced, Change, Core, LATE_MAX, Landing, Then, spend};
use crate::model::contract::{HttpRequest, Reason, Reply, Rotation};
use crate::model::credential::{CredentialState, EndCause, Intent, fingerprint};
use crate::model::seal::Completeness;
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::transport::Delivery;

// === impl Core ===

impl Core {
    /// Reads an answer, or the lack of one.
    pub(super) fn delivered(
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
            // A client credential that is also handed a refresh token has no use for it (RFC 6749, section 4.4.3).
            (Some(grant), _) if with_grant || self.plan.rotation != Rotation::Never => {
                self.adopt(grant, Then::Consult, now)
            }
            (_, Completeness::Token) if with_grant => {
                let credential = &mut self.stored.credential;
                let doubted = credential.state != CredentialState::Live;
                let learned = doubted || !credential.seen.stayed;
                credential.seen.stayed = true;
                credential.state = CredentialState::Live;
                if credential.intent.take().is_some() || learned {
                    let change = if doubted {
                        Change::State
                    } else {
                        Change::Intent
                    };
                    return self.persist(change, Then::Consult);
                }
                self.consult()
            }
            (_, Completeness::NoToken | Completeness::Ambiguous)
                if with_grant && self.knowledge() != Knowledge::Reusable =>
            {
                self.in_doubt(Failure::unclear(status), now)
            }
            _ if with_grant => self.intent_over(Then::Consult),
            _ => self.consult(),
        }
    }

    /// A new grant is recorded before anything can spoil it.
    fn adopt(mut self, grant: Secret<String>, then: Then, now: UnixTime) -> Advanced {
        let credential = &mut self.stored.credential;
        if let Some(old) = credential.refresh_token.replace(grant) {
            credential.seen.rotated = true;
            spend(
                &mut credential.spent,
                fingerprint(&self.plan.spent_key, &old),
            );
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

    /// The grant may have been spent, and nobody knows: what is known of its rotation decides.
    pub(super) fn in_doubt(mut self, failure: Failure, now: UnixTime) -> Advanced {
        // The issuer may have the request still to do: sent again before that is over, it could be overtaken.
        let left = self.stored.credential.intent.take().map(|intent| Intent {
            over_at: intent.over_at.min(now.plus(LATE_MAX)),
            ..intent
        });
        let landing = match (self.knowledge(), self.probing) {
            (Knowledge::Reusable, _) => {
                self.stored.credential.intent = left;
                return self.intent_over(Then::Land(Landing::Failed(failure)));
            }
            (_, true) => {
                self.stored.credential.state = CredentialState::ReauthorizationRequired {
                    since: now,
                    cause: EndCause::LostAnswer,
                };
                self.stored.credential.intent = left;
                Failure::reauthorize("lost_answer", "the probe's answer was lost too")
            }
            _ => {
                let since = match self.stored.credential.state {
                    CredentialState::Uncertain { since } => since,
                    // From when it may have left: a grace begins when the issuer gets it, not when its answer is given up.
                    _ => left.map_or(now, |left| left.at),
                };
                self.stored.credential.state = CredentialState::Uncertain { since };
                // Of the doubt as a whole: a mark that is younger than it stands for an attempt whose end nobody saw.
                self.stored.credential.intent = left.map(|left| Intent { at: since, ..left });
                failure.after(LATE_MAX)
            }
        };
        self.persist(Change::State, Then::Land(Landing::Failed(landing)))
    }
}
