//! What of an event is audited, and in which words. Nothing here can hold a secret: an [`Event`] cannot.

use super::entry::Record;
use crate::model::contract::Cause;
use crate::model::credential::CredentialState;
use crate::model::event::{Event, RefreshOutcome};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::time::UnixTime;
use crate::observe::labels;

/// Notices that say nothing beyond what entries of their own do.
const TOLD_ELSEWHERE: [&str; 3] = ["listening", "draining", "stopped"];
/// How notices of the audit log itself begin: they go to the log of the process, never back into the file they are about.
pub(super) const OWN_NOTICES: &str = "audit_";

/// Something to write, and how much of it there may be.
pub(super) enum Audited {
    /// All of it.
    Always(Record),
    /// Callers bring it about as often as they like, so a second has a limit.
    Limited(Record),
}

/// What is written of an event; nothing of most.
///
/// There is no event for a token that is handed out of memory, on purpose: that path allocates nothing.
pub(super) fn of(event: &Event, at: UnixTime) -> Option<Audited> {
    use Audited::{Always, Limited};
    let new = |event| Record::new(at, event);
    Some(match event {
        Event::RefreshFinished {
            key,
            cause,
            outcome:
                RefreshOutcome::Failed {
                    kind,
                    detail,
                    correlation,
                    ..
                },
            ..
        } => {
            let record = token(new("refresh_failed"), key)
                .text("cause", labels::cause(*cause))
                .text("kind", kind.label())
                .text("detail", detail)
                .text("correlation", &correlation.to_string());
            match cause {
                // Callers bring these about, each with a subject of its own if they like.
                Cause::First | Cause::Rejected => Limited(record),
                Cause::Expiring | Cause::Operator => Always(record),
            }
        }
        Event::PluginFailed {
            provider,
            label,
            detail,
        } => Limited(
            new("plugin_failed")
                .text("provider", provider)
                .text("kind", label)
                .text("detail", detail),
        ),
        Event::TokenRejected {
            key,
            generation,
            outcome,
            caller,
        } => Limited(
            token(new("token_rejected"), key)
                .number("generation", generation.number())
                .text("outcome", outcome)
                .text("caller", caller),
        ),
        Event::Denied {
            caller,
            tenant,
            provider,
            code,
            fix,
            correlation,
        } => Limited(
            new("denied")
                .text("caller", caller)
                .text("tenant", tenant.as_str())
                .text("provider", provider)
                .text("code", code)
                .text("fix", fix)
                .text("correlation", &correlation.to_string()),
        ),
        Event::CredentialChanged {
            key,
            was,
            state,
            version,
            by,
        } => Always(
            credential(new("credential_changed"), key)
                .text("was", was.label())
                .text("state", state.label())
                .some("cause", cause(*state))
                .number("version", version.0)
                .text("by", by),
        ),
        Event::GrantRotated { key, version } => {
            Always(credential(new("grant_rotated"), key).number("version", version.0))
        }
        Event::PluginSwapped {
            provider,
            revision,
            digest,
            rollback,
            refused,
            by,
        } => {
            let record = new(match refused {
                None => "plugin_swapped",
                Some(_) => "plugin_refused",
            });
            Always(
                record
                    .text("provider", provider)
                    .flag("rollback", *rollback)
                    .number("revision", *revision)
                    .text("digest", digest)
                    .some("why", refused.as_deref())
                    .text("by", by),
            )
        }
        Event::StoreKept {
            what,
            detail,
            refused,
            by,
        } => Always(
            new("store_kept")
                .text("what", what)
                .text("detail", detail)
                .some("refused", refused.as_deref())
                .text("by", by),
        ),
        Event::ConfigReloaded { refused: None } => Always(new("config_reloaded")),
        Event::ConfigReloaded { refused: Some(why) } => {
            Always(new("config_refused").text("why", why))
        }
        Event::Notice { code, .. }
            if TOLD_ELSEWHERE.contains(code) || code.starts_with(OWN_NOTICES) =>
        {
            return None;
        }
        Event::Notice { code, detail } => {
            Always(new("notice").text("code", code).text("detail", detail))
        }
        // What is ordinary: the log has it, and metrics count it.
        Event::RefreshStarted { .. }
        | Event::RefreshFinished { .. }
        | Event::UpstreamAnswered { .. }
        | Event::RequestFailed { .. }
        | Event::TokenAdopted { .. }
        | Event::KeyEvicted { .. } => return None,
    })
}

fn credential(record: Record, key: &CredentialKey) -> Record {
    record
        .text("tenant", key.tenant.as_str())
        .text("provider", key.provider.as_str())
        .some("subject", key.subject.as_ref().map(|it| it.as_str()))
}

fn token(record: Record, key: &TokenKey) -> Record {
    credential(record, &key.credential)
        .some("audience", key.audience.as_ref().map(|it| it.as_str()))
        .text("scopes", &key.scopes.to_string())
}

fn cause(state: CredentialState) -> Option<&'static str> {
    match state {
        CredentialState::ReauthorizationRequired { cause, .. } => Some(cause.label()),
        _ => None,
    }
}
