//! One `tracing` line an event: the target is the room it happened in, the fields are closed.

use tracing::{debug, info, warn};

use super::labels;
use crate::model::event::{Event, Observer, RefreshOutcome};
use crate::model::key::{CredentialKey, TokenKey};

/// Notices that say that all goes as it should: nobody has to act on them.
const ROUTINE: [&str; 8] = [
    "listening",
    "draining",
    "stopped",
    "audit_opened",
    "audit_rotated",
    "audit_resumed",
    "audit_closed",
    "store_verified",
];

/// Writes events as `tracing` lines.
///
/// `warn` is for what an operator may have to act on, `info` for what changed, `debug` for what happens all the time.
/// Text from outside is a string field, which every format escapes: no event can forge a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

fn subject(key: &CredentialKey) -> &str {
    key.subject.as_ref().map_or("", |subject| subject.as_str())
}

fn audience(key: &TokenKey) -> &str {
    key.audience
        .as_ref()
        .map_or("", |audience| audience.as_str())
}

/// A line about a key: every one has the same fields for it.
macro_rules! about {
    ($level:ident, $target:literal, $key:expr, $($rest:tt)+) => {{
        let key: &TokenKey = $key;
        $level!(
            target: $target,
            tenant = key.credential.tenant.as_str(),
            provider = key.credential.provider.as_str(),
            subject = subject(&key.credential),
            audience = audience(key),
            scopes = %key.scopes,
            $($rest)+
        );
    }};
}

impl Observer for Lines {
    fn observe(&self, event: &Event) {
        match event {
            Event::RefreshStarted { key, cause } => {
                about!(
                    debug,
                    "keyfob::refresh",
                    key,
                    cause = labels::cause(*cause),
                    "refresh started"
                );
            }
            Event::RefreshFinished {
                key,
                cause,
                outcome,
                took,
            } => {
                let (cause, took_ms) = (labels::cause(*cause), millis(*took));
                match outcome {
                    RefreshOutcome::Renewed {
                        generation,
                        expires,
                    } => {
                        let (generation, expires) = (generation.number(), expires.as_secs());
                        about!(
                            info,
                            "keyfob::refresh",
                            key,
                            cause,
                            took_ms,
                            generation,
                            expires,
                            "token renewed"
                        );
                    }
                    RefreshOutcome::Failed {
                        kind,
                        detail,
                        not_before,
                        correlation,
                    } => {
                        let not_before = not_before.map(|at| at.as_secs());
                        about!(
                            warn, "keyfob::refresh", key, cause, took_ms, kind = kind.label(),
                            detail = detail.as_str(), not_before, correlation = %correlation, "refresh failed"
                        );
                    }
                }
            }
            Event::TokenAdopted {
                key,
                generation,
                expires,
            } => {
                let (generation, expires) = (generation.number(), expires.as_secs());
                about!(
                    info,
                    "keyfob::refresh",
                    key,
                    generation,
                    expires,
                    "token taken from the store"
                );
            }
            Event::UpstreamAnswered {
                provider,
                result,
                took,
                detail,
            } => {
                let (provider, took_ms) = (provider.as_str(), millis(*took));
                match result {
                    Ok(status) => {
                        debug!(target: "keyfob::upstream", provider, status, took_ms, "issuer answered");
                    }
                    Err(fault) => {
                        let (fault, detail) = (fault.label(), detail.as_deref());
                        warn!(target: "keyfob::upstream", provider, fault, detail, took_ms, "no answer from the issuer");
                    }
                }
            }
            Event::PluginFailed {
                provider,
                label,
                detail,
            } => {
                let (provider, detail) = (provider.as_str(), detail.as_str());
                warn!(target: "keyfob::wasm", provider, kind = label, detail, "plugin failed");
            }
            Event::TokenRejected {
                key,
                generation,
                outcome,
                caller,
            } => {
                let (generation, caller) = (generation.number(), caller.as_str());
                about!(
                    info,
                    "keyfob::broker",
                    key,
                    generation,
                    outcome,
                    caller,
                    "token rejected by a resource"
                );
            }
            Event::Denied {
                caller,
                tenant,
                provider,
                code,
                fix,
                correlation,
            } => {
                warn!(
                    target: "keyfob::policy", caller = caller.as_str(), tenant = tenant.as_str(),
                    provider = provider.as_str(), code = code.as_str(), fix = fix.as_str(),
                    correlation = %correlation, "request denied"
                );
            }
            Event::RequestFailed {
                key,
                kind,
                detail,
                correlation,
            } => {
                about!(
                    info, "keyfob::broker", key, kind = kind.label(), detail = detail.as_str(),
                    correlation = %correlation, "request failed"
                );
            }
            Event::CredentialChanged {
                key,
                was: _,
                state,
                version,
                by,
            } => {
                info!(
                    target: "keyfob::store", tenant = key.tenant.as_str(), provider = key.provider.as_str(),
                    subject = subject(key), state = state.label(), version = version.0, by = by.as_str(),
                    "credential changed"
                );
            }
            Event::GrantRotated { key, version } => {
                info!(
                    target: "keyfob::store", tenant = key.tenant.as_str(), provider = key.provider.as_str(),
                    subject = subject(key), version = version.0, "grant rotated"
                );
            }
            Event::PluginSwapped {
                provider,
                revision,
                digest,
                rollback,
                refused,
                by,
            } => {
                let (provider, digest, by) = (provider.as_str(), digest.as_str(), by.as_str());
                match refused.as_deref() {
                    None => {
                        info!(target: "keyfob::snapshot", provider, revision, digest, rollback, by, "plugin swapped")
                    }
                    Some(why) => {
                        warn!(target: "keyfob::snapshot", provider, revision, digest, rollback, by, why, "plugin refused");
                    }
                }
            }
            Event::ConfigReloaded { refused } => match refused.as_deref() {
                None => info!(target: "keyfob::daemon", "configuration reloaded"),
                Some(why) => warn!(target: "keyfob::daemon", why, "configuration refused"),
            },
            Event::StoreKept {
                what,
                detail,
                refused,
                by,
            } => {
                let (detail, by) = (detail.as_str(), by.as_str());
                match refused.as_deref() {
                    None => {
                        info!(target: "keyfob::store", what, detail, by, "order to the store done")
                    }
                    Some(why) => {
                        warn!(target: "keyfob::store", what, why, by, "order to the store failed");
                    }
                }
            }
            Event::KeyEvicted { key, why } => {
                about!(debug, "keyfob::cache", key, why, "key evicted");
            }
            Event::Notice { code, detail } if ROUTINE.contains(code) => {
                info!(target: "keyfob::notice", code, detail = detail.as_str(), "notice");
            }
            Event::Notice { code, detail } => {
                warn!(target: "keyfob::notice", code, detail = detail.as_str(), "notice");
            }
        }
    }
}

/// For a field: no line needs more than milliseconds.
fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
