//! The list of credentials, page by page. Where to go on is told as an opaque word: the last key that was looked at.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::broker::{CREDENTIALS_PAGE_MAX, CredentialFilter, CredentialStatus};
use crate::daemon::config::Role;
use crate::daemon::server::body::Parameters;
use crate::daemon::server::json::bad_member;
use crate::daemon::server::problem::Problem;
use crate::daemon::server::{Front, uncached};
use crate::model::credential::CredentialState;
use crate::model::key::{CredentialKey, ProviderName, Subject, Tenant};

/// Credentials of a page when nothing is said: a screen or two.
const PAGE_DEFAULT: usize = 100;

pub(super) async fn list(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (_, request) = front.operator(request, Role::Read).await?;
        let known = ["tenant", "provider", "state", "limit", "after"];
        let parameters = Parameters::of(request.uri().query(), &known)?;
        let filter = CredentialFilter {
            tenant: parameters.named("tenant", Tenant::parse)?,
            provider: parameters.named("provider", ProviderName::parse)?,
            state: parameters.text("state").map(state).transpose()?,
        };
        let limit = parameters.text("limit").map(limit).transpose()?;
        let after = parameters.text("after").map(read_cursor).transpose()?;
        let limit = limit.unwrap_or(PAGE_DEFAULT);
        let page = front.broker.credentials(&filter, after, limit).await?;
        let credentials = page.credentials.iter();
        let mut body = json!({
            "credentials": credentials.map(|(key, status)| entry(key, status)).collect::<Vec<_>>(),
            "damaged": page.damaged,
        });
        if let Some(next) = &page.next {
            body["next"] = cursor(next).into();
        }
        Ok::<_, Problem>(uncached(Json(body).into_response()))
    };
    front.answer(answer.await)
}

/// One credential: which one, then how it stands.
fn entry(key: &CredentialKey, status: &CredentialStatus) -> Value {
    let mut entry = json!({ "tenant": key.tenant.as_str(), "provider": key.provider.as_str() });
    if let Some(subject) = &key.subject {
        entry["subject"] = subject.as_str().into();
    }
    if let (Value::Object(entry), Ok(Value::Object(status))) =
        (&mut entry, serde_json::to_value(status))
    {
        entry.extend(status);
    }
    entry
}

fn state(text: &str) -> Result<&'static str, Problem> {
    let known = CredentialState::LABELS.into_iter();
    let state = known.into_iter().find(|label| *label == text);
    state.ok_or_else(|| {
        bad_member(
            "state",
            &format!("one of {}", CredentialState::LABELS.join(", ")),
        )
    })
}

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=CREDENTIALS_PAGE_MAX).contains(limit))
        .ok_or_else(|| {
            bad_member(
                "limit",
                &format!("a whole number from 1 to {CREDENTIALS_PAGE_MAX}"),
            )
        })
}

fn cursor(key: &CredentialKey) -> String {
    let subject = key.subject.as_ref().map(|subject| subject.as_str());
    let key = json!([key.tenant.as_str(), key.provider.as_str(), subject]);
    URL_SAFE_NO_PAD.encode(key.to_string())
}

fn read_cursor(text: &str) -> Result<CredentialKey, Problem> {
    let read = || {
        let json = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tenant, provider, subject) =
            serde_json::from_slice::<(String, String, Option<String>)>(&json).ok()?;
        let subject = subject.map(|subject| Subject::parse(&subject)).transpose();
        Some(CredentialKey {
            tenant: Tenant::parse(&tenant).ok()?,
            provider: ProviderName::parse(&provider).ok()?,
            subject: subject.ok()?,
        })
    };
    read().ok_or_else(|| bad_member("after", "the `next` of an answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subject: Option<&str>) -> CredentialKey {
        CredentialKey {
            tenant: Tenant::default(),
            provider: ProviderName::parse("acme").unwrap(),
            subject: subject.map(|subject| Subject::parse(subject).unwrap()),
        }
    }

    #[test]
    fn a_cursor_comes_back_as_the_key_it_was_made_of() {
        for subject in [None, Some("ann"), Some("\"],[ü/?&"), Some("null")] {
            let text = cursor(&key(subject));
            assert!(
                text.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
                "{text}"
            );
            assert_eq!(read_cursor(&text).ok(), Some(key(subject)));
        }
        let made_up = URL_SAFE_NO_PAD.encode("[\"\",\"a\",null]");
        for bad in ["", "%", "e30", "W10", "bm9wZQ", &made_up] {
            assert!(read_cursor(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_or_limit_that_does_not_exist_is_refused_with_those_that_do() {
        assert!(state("uncertain").is_ok() && limit("1000").is_ok());
        let words = state("dead")
            .err()
            .and_then(|problem| problem.line())
            .unwrap();
        assert!(words.contains("reauthorization_required"), "{words}");
        for bad in ["0", "1001", "-1", "x", ""] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
