//! What a failure looks like on the wire: RFC 9457 `application/problem+json`, with a type from a closed set and a
//! correlation id that finds the operator's line.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::answer::uncached_json;
use crate::broker::{OrderError, SetupMistake};
use crate::model::error::{Correlation, Error, ErrorKind, Retry};

/// What a caller waits when a failure does not say how long.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);
/// What an operator waits while another order is under way: each reads or writes the whole file.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// The last part of a problem's type. Closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slug {
    Unauthenticated,
    Denied,
    ReauthorizationRequired,
    Unavailable,
    Misconfigured,
    Internal,
    InvalidRequest,
    TooLarge,
    UnsupportedMediaType,
    NotFound,
    MethodNotAllowed,
    UnknownProvider,
    AlreadySpent,
    PluginRefused,
    Inapplicable,
    Busy,
    StoreFailed,
}

/// A failure on its way out. Boxed, because it travels in every `Result` of this room.
#[derive(Debug)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    slug: Slug,
    detail: Cow<'static, str>,
    correlation: Correlation,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
    code: Option<&'static str>,
    mistakes: Vec<SetupMistake>,
    /// Whether whoever failed has emitted an event already.
    told: bool,
}

/// A delay as `Retry-After` has it: whole seconds, rounded up, at least one.
pub(super) fn retry_after(delay: Duration) -> HeaderValue {
    HeaderValue::from(retry_after_secs(delay))
}

fn retry_after_secs(delay: Duration) -> u64 {
    let secs = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    secs.max(1)
}

fn correlation() -> Correlation {
    let mut bytes = [0; 8];
    // Without randomness TLS is gone too; a failure is then found by its time instead.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    Correlation(u64::from_ne_bytes(bytes))
}

// === impl Slug ===

impl Slug {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::ReauthorizationRequired => "reauthorization_required",
            Self::Unavailable | Self::Busy => "unavailable",
            Self::Misconfigured => "misconfigured",
            Self::Internal => "internal",
            Self::InvalidRequest | Self::TooLarge | Self::UnsupportedMediaType => "invalid_request",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownProvider => "unknown_provider",
            Self::AlreadySpent => "already_spent",
            Self::PluginRefused => "plugin_refused",
            Self::Inapplicable => "inapplicable",
            Self::StoreFailed => "store_failed",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::ReauthorizationRequired | Self::AlreadySpent | Self::Inapplicable => {
                StatusCode::CONFLICT
            }
            Self::Unavailable | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misconfigured | Self::Internal | Self::StoreFailed => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound | Self::UnknownProvider => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PluginRefused => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Unauthenticated => "Who are you?",
            Self::Denied => "Not allowed",
            Self::ReauthorizationRequired => "A human must authorize again",
            Self::Unavailable => "No token can be had now",
            Self::Misconfigured => "The provider is set up wrong",
            Self::Internal => "Keyfob failed",
            Self::InvalidRequest => "The request makes no sense",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMediaType => "The body is of the wrong type",
            Self::NotFound => "Nothing there",
            Self::MethodNotAllowed => "No such method",
            Self::UnknownProvider => "No such provider",
            Self::AlreadySpent => "The grant was spent before",
            Self::PluginRefused => "The plugin was not taken",
            Self::Inapplicable => "It cannot be done as things stand",
            Self::Busy => "Not now",
            Self::StoreFailed => "The store did not do it",
        }
    }
}

// === impl Problem ===

impl Problem {
    /// A failure that this room found; the words go to whoever asked.
    pub(super) fn new(slug: Slug, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            slug,
            detail: detail.into(),
            correlation: correlation(),
            retry_after: None,
            challenge: None,
            code: None,
            mistakes: Vec::new(),
            told: false,
        }))
    }

    /// The request makes no sense.
    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Slug::InvalidRequest, detail)
    }

    /// With a `WWW-Authenticate` challenge.
    pub(super) fn challenge(mut self, challenge: &'static str) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// With a closed code and everything that is wrong: for operators.
    pub(super) fn because(mut self, code: &'static str, mistakes: Vec<SetupMistake>) -> Self {
        (self.0.code, self.0.mistakes) = (Some(code), mistakes);
        // A refused swap is an event of its own.
        self.0.told = true;
        self
    }

    pub(super) fn slug(&self) -> Slug {
        self.0.slug
    }

    /// What an operator's line says, unless somebody has written one.
    pub(super) fn line(&self) -> Option<String> {
        (!self.0.told).then(|| format!("{}: {}", self.0.correlation, self.0.detail))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let slug = match error.kind() {
            ErrorKind::Unauthenticated => Slug::Unauthenticated,
            ErrorKind::Denied => Slug::Denied,
            ErrorKind::ReauthorizationRequired => Slug::ReauthorizationRequired,
            ErrorKind::Unavailable => Slug::Unavailable,
            ErrorKind::Misconfigured => Slug::Misconfigured,
            ErrorKind::Internal => Slug::Internal,
        };
        let mut problem = Self::new(slug, error.public());
        problem.0.correlation = error.correlation();
        problem.0.told = true;
        problem.0.challenge = (slug == Slug::Unauthenticated).then_some("Bearer");
        problem.0.retry_after = match error.retry() {
            Retry::After(delay) => Some(delay),
            Retry::Never | Retry::Human => (slug == Slug::Unavailable).then_some(RETRY_DEFAULT),
        };
        problem
    }
}

impl From<OrderError> for Problem {
    /// In the operator's own words: who may give orders may read what is wrong with a file.
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Inapplicable(words) => Self::new(Slug::Inapplicable, words),
            OrderError::Failed(words) => Self::new(Slug::StoreFailed, words),
            OrderError::Busy => {
                let words =
                    "another order to the store is under way: give this one when it is done";
                let mut problem = Self::new(Slug::Busy, words);
                problem.0.retry_after = Some(BUSY_PAUSE);
                problem
            }
        }
    }
}

impl Problem {
    /// The object that tells it.
    fn object(&self) -> Value {
        let inner = &*self.0;
        let mut object = json!({
            "type": format!("urn:keyfob:problem:{}", inner.slug.label()),
            "title": inner.slug.title(),
            "status": inner.slug.status().as_u16(),
            "detail": inner.detail,
            "correlation_id": inner.correlation.to_string(),
        });
        if let Some(code) = inner.code {
            object["code"] = code.into();
            object["mistakes"] = json!(inner.mistakes);
        }
        object
    }

    /// The object that tells it inside an answer, where no header can say when to try again.
    pub(super) fn enclosed(&self) -> Value {
        let mut object = self.object();
        if let Some(delay) = self.0.retry_after {
            object["retry_after_seconds"] = retry_after_secs(delay).into();
        }
        object
    }

    /// An answer by itself.
    pub(super) fn into_answer(self) -> http::Response<Bytes> {
        let mut response = uncached_json(self.object().to_string().into_bytes());
        *response.status_mut() = self.0.slug.status();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(challenge) = self.0.challenge {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        if let Some(delay) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after(delay));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_answer().map(axum::body::Body::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_and_never_zero() {
        for (millis, secs) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (29_500, "30")] {
            assert_eq!(retry_after(Duration::from_millis(millis)), secs);
        }
    }

    #[test]
    fn every_kind_of_error_has_its_status_and_tells_no_detail() {
        let kinds = [
            (ErrorKind::Unauthenticated, 401),
            (ErrorKind::Denied, 403),
            (ErrorKind::ReauthorizationRequired, 409),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Misconfigured, 500),
            (ErrorKind::Internal, 500),
        ];
        for (kind, status) in kinds {
            let error = Error::new(kind, Retry::Never, "words", "for operators", Correlation(7));
            let problem = Problem::from(error);
            assert_eq!(problem.slug().label(), kind.label());
            assert!(problem.line().is_none(), "the broker has told it");
            assert!(!problem.0.detail.contains("operators"));
            let response = problem.into_response();
            assert_eq!(response.status(), status);
            let waits = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(waits, kind == ErrorKind::Unavailable);
            let challenged = response.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(challenged, kind == ErrorKind::Unauthenticated);
        }
    }
}
