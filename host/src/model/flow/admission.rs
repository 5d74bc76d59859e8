//! Whether a credential's grant may be presented now, given its state and what is known of its rotation.

use std::time::Duration;

use super::{Failure, Plan};
use crate::model::contract::{Cause, Rotation};
use crate::model::credential::{
    AfterLostAnswer, Credential, CredentialState, EndCause, Intent, Seen,
};
use crate::model::time::UnixTime;

/// What is known of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Knowledge {
    /// Presenting it twice is harmless.
    Reusable,
    /// Presenting it twice is harmless for a while.
    Grace(Duration),
    /// Nothing, and it was never refreshed here.
    Unknown,
    /// It is good once.
    SingleUse,
}

/// Whether to go on.
pub(super) enum Admission {
    /// Yes.
    Go,
    /// Yes, once: its last answer was lost and nothing is left to lose.
    Probe,
    /// Not now.
    Wait(Failure),
    /// No, and the credential changes its state.
    End(CredentialState, Failure),
}

// === impl Admission ===

impl Admission {
    /// Whether the grant would be presented.
    fn sends(&self) -> bool {
        matches!(self, Self::Go | Self::Probe)
    }
}

// === impl Knowledge ===

impl Knowledge {
    /// What was declared and seen, as [`Seen::rotation`] weighs it.
    pub(super) fn of(declared: Rotation, grace: Duration, seen: Seen) -> Self {
        match seen.rotation(declared) {
            Rotation::Never => Self::Reusable,
            Rotation::Grace => Self::Grace(grace),
            Rotation::SingleUse => Self::SingleUse,
            Rotation::Unknown => Self::Unknown,
        }
    }
}

pub(super) fn admit(credential: &Credential, plan: &Plan, now: UnixTime) -> Admission {
    match credential.state {
        CredentialState::Revoked { .. } => Admission::Wait(Failure::reauthorize(
            "revoked",
            "an operator revoked this credential",
        )),
        CredentialState::ReauthorizationRequired { cause, .. } => {
            let (code, detail) = match cause {
                EndCause::Refused => ("refused", "the issuer refused the grant"),
                EndCause::LostAnswer => {
                    ("lost_answer", "the grant was presented and no answer came")
                }
            };
            Admission::Wait(Failure::reauthorize(code, detail))
        }
        CredentialState::Suspended { until } if until > now => Admission::Wait(
            Failure::unavailable("suspended", "the credential is suspended")
                .after(until.since(now)),
        ),
        state => {
            let left = credential.intent;
            let admission = match Doubt::of(state, left) {
                Some(doubt) => uncertain(&doubt, credential.seen, plan, now),
                None => Admission::Go,
            };
            let under_way = left.filter(|intent| intent.over_at > now);
            match (under_way, state) {
                (None, _) => admission,
                // Its sender gave up and waits for no answer; where nothing is to be sent, there is nothing to wait for.
                (Some(intent), CredentialState::Uncertain { since })
                    if intent.at <= since && !admission.sends() =>
                {
                    admission
                }
                (Some(intent), _) => Admission::Wait(
                    Failure::unavailable("in_flight", "another attempt may still be under way")
                        .after(intent.over_at.since(now)),
                ),
            }
        }
    }
}

/// A presentation that got no answer.
struct Doubt {
    /// When the first one was made.
    since: UnixTime,
    /// The grant was presented again after that, and the process died with the answer: that was the probe.
    probed: bool,
}

impl Doubt {
    fn of(state: CredentialState, left: Option<Intent>) -> Option<Self> {
        match (state, left) {
            (CredentialState::Uncertain { since }, left) => Some(Self {
                since,
                probed: left.is_some_and(|left| left.at > since),
            }),
            (_, Some(left)) => Some(Self {
                since: left.at,
                probed: false,
            }),
            (_, None) => None,
        }
    }
}

/// The last presentation got no answer.
fn uncertain(doubt: &Doubt, seen: Seen, plan: &Plan, now: UnixTime) -> Admission {
    let knowledge = Knowledge::of(plan.rotation, plan.grace, seen);
    match knowledge {
        Knowledge::Reusable => return Admission::Go,
        Knowledge::Grace(grace) if now.since(doubt.since) < grace => return Admission::Go,
        _ if plan.cause == Cause::Operator => return Admission::Probe,
        _ => {}
    }
    if let Some(until) = plan.served_until.filter(|until| *until > now) {
        return Admission::Wait(
            Failure::unavailable(
                "uncertain",
                "the grant's last answer was lost; its token still lives",
            )
            .after(until.since(now)),
        );
    }
    match (plan.after_lost_answer, knowledge) {
        (Some(AfterLostAnswer::Probe), _) | (None, Knowledge::Unknown) if !doubt.probed => {
            Admission::Probe
        }
        _ => Admission::End(
            CredentialState::ReauthorizationRequired {
                since: now,
                cause: EndCause::LostAnswer,
            },
            Failure::reauthorize(
                "lost_answer",
                "a single-use grant was presented and no answer came",
            ),
        ),
    }
}
