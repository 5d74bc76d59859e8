//! A caller says that a resource refused its token: is it that token's fault, and does another one help?

use std::time::Duration;

use super::{Broker, Issued, RejectOutcome, RejectReport, issue};
use crate::cache::{Rejection as Ruling, Slot};
use crate::model::contract::{Cause, Rejection, Verdict};
use crate::model::error::Error;
use crate::model::event::Event;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::Generation;
use crate::refresh::Want;

/// When to try again where rejecting a token cannot help: long enough that a misconfigured resource drives nothing.
const REJECTION_PAUSE: Duration = Duration::from_secs(30);

/// The token stays, and another report before the pause is over changes nothing.
const KEPT: RejectOutcome = RejectOutcome::Kept {
    retry_after: REJECTION_PAUSE,
};

/// What becomes of a report.
enum Judged {
    /// What there is is handed out.
    Settled(RejectOutcome),
    /// This one is to be replaced.
    Renew(Generation),
}

// === impl Broker ===

impl Broker {
    /// A caller's token was refused by a resource: get another, if that helps.
    ///
    /// # Errors
    ///
    /// As [`Broker::token`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn reject(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        report: &RejectReport,
    ) -> Result<(Issued, RejectOutcome), Error> {
        let core = &self.0;
        let now = core.now();
        let known = self.look_up(principal, request, now);
        let entry = self.entry(known, principal, request, now).await?;
        let slot = &entry.pin;
        if slot.current().is_none() {
            // The rejected token may be one that the store kept: it cannot be judged before it is here.
            self.obtain(&entry, Duration::ZERO, [now; 2]).await?;
        }
        let (token, outcome) = match self.judge(slot, report, now).await {
            Judged::Settled(outcome) => {
                let token = self.obtain(&entry, Duration::ZERO, [now; 2]).await?;
                (token, outcome)
            }
            Judged::Renew(seen) => {
                let want = Want {
                    cause: Cause::Rejected,
                    seen: Some(seen),
                };
                let token = self.wait(slot, want, now).await?;
                // The issuer may give the same token again: another request would not change that.
                let is_same = token.generation() == seen;
                let outcome = if is_same {
                    KEPT
                } else {
                    RejectOutcome::Refreshed
                };
                (token, outcome)
            }
        };
        self.0.emit(&Event::TokenRejected {
            key: slot.key(),
            generation: Generation::from_number(report.generation).unwrap_or(token.generation()),
            outcome: outcome.label(),
            caller: principal.name().to_owned(),
        });
        Ok((
            issue(token, entry.decision.max_lifetime, self.0.now()),
            outcome,
        ))
    }

    async fn judge(&self, slot: &Slot, report: &RejectReport, now: UnixTime) -> Judged {
        let Some(generation) = Generation::from_number(report.generation) else {
            return Judged::Settled(KEPT);
        };
        let is_current = slot
            .servable(now)
            .is_ok_and(|token| token.generation() == generation);
        if is_current && !self.is_dead(slot, report).await {
            return Judged::Settled(KEPT);
        }
        match slot.reject(generation, now) {
            Ruling::Renew => Judged::Renew(generation),
            Ruling::AlreadyReplaced => Judged::Settled(RejectOutcome::AlreadyReplaced),
            Ruling::Kept { retry_after } => Judged::Settled(RejectOutcome::Kept {
                retry_after: retry_after.unwrap_or(REJECTION_PAUSE),
            }),
        }
    }

    /// Asks the plugin whether the resource's words mean that the token is dead. No words, or no answer: believe the caller,
    /// within the pause.
    async fn is_dead(&self, slot: &Slot, report: &RejectReport) -> bool {
        let Some(status) = report.status else {
            return true;
        };
        let Some(provider) = self.0.provider(slot.provider()) else {
            return true;
        };
        let rejection = Rejection {
            status,
            www_authenticate: report.www_authenticate.clone(),
            settings: provider.plugin_settings.clone(),
        };
        match provider.plugin.classify(&rejection).await {
            Ok(verdict) => verdict == Verdict::TokenDead,
            Err(fault) => {
                self.0.emit(&Event::PluginFailed {
                    provider: provider.settings.name.as_str().to_owned(),
                    label: fault.label(),
                    detail: fault.to_string(),
                });
                true
            }
        }
    }
}

// === impl RejectOutcome ===

impl RejectOutcome {
    /// As the interface writes it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::AlreadyReplaced => "already_replaced",
            Self::Kept { .. } => "kept",
        }
    }
}
