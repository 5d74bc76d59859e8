//! How a flow fails: what callers are told, what operators read, and how long to wait.

use std::time::Duration;

use crate::model::contract::{Limited, PluginFault, Reason, Refusal};
use crate::model::error::ErrorKind;
use crate::model::transport::TransportFault;

/// The longest text of a plugin that reaches an operator.
pub(super) const WORDS_MAX_BYTES: usize = 512;

const UNAVAILABLE: &str = "no token can be had from the authorization server now";
const REAUTHORIZE: &str = "the grant is no longer good: authorize again";
const MISCONFIGURED: &str = "the provider is not set up right: an operator must act";
const INTERNAL: &str = "Keyfob failed: see the operator's log";

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind.
    pub kind: ErrorKind,
    /// The words for callers.
    pub public: &'static str,
    /// A closed label.
    pub label: &'static str,
    /// The words for operators.
    pub detail: String,
    /// How long to wait, where somebody said.
    pub after: Option<Duration>,
    /// What the waiting covers.
    pub scope: FailureScope,
    /// Whether a plugin is to blame.
    pub plugin: bool,
}

/// What a failure's waiting covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailureScope {
    /// One token key.
    #[default]
    Key,
    /// Every key of the credential.
    Grant,
    /// Every key of the provider.
    Client,
}

// === impl Failure ===

impl Failure {
    fn new(kind: ErrorKind, label: &'static str, detail: impl Into<String>) -> Self {
        let public = match kind {
            ErrorKind::ReauthorizationRequired => REAUTHORIZE,
            ErrorKind::Misconfigured => MISCONFIGURED,
            ErrorKind::Unavailable => UNAVAILABLE,
            _ => INTERNAL,
        };
        Self {
            kind,
            public,
            label,
            detail: detail.into(),
            after: None,
            scope: FailureScope::Key,
            plugin: false,
        }
    }

    /// No token now.
    pub fn unavailable(label: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, label, detail)
    }

    /// An operator must act.
    pub fn misconfigured(label: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Misconfigured, label, detail)
    }

    /// A human must act.
    pub fn reauthorize(label: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::ReauthorizationRequired, label, detail)
    }

    /// Keyfob's own fault.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal", detail)
    }

    pub(super) fn plugin(fault: &PluginFault) -> Self {
        // A breach of contract is one wherever it is noticed; a trap or a hang may be over next time.
        if let PluginFault::Broken(detail) = fault {
            return Self::broken(detail);
        }
        Self {
            plugin: true,
            ..Self::unavailable(fault.label(), fault.to_string())
        }
    }

    /// The plugin asked for what it may not have, or lied.
    pub(super) fn broken(detail: impl Into<String>) -> Self {
        let detail = PluginFault::Broken(detail.into()).to_string();
        Self {
            plugin: true,
            ..Self::misconfigured("broken", detail)
        }
    }

    pub(super) fn transport(fault: &TransportFault) -> Self {
        Self::unavailable(fault.kind.label(), fault.detail.clone())
    }

    pub(super) fn unclear(status: u16) -> Self {
        Self::unavailable(
            "no_token",
            format!("the answer {status} held no token and no error"),
        )
    }

    pub(super) fn dead_on_arrival() -> Self {
        Self::unavailable("dead_on_arrival", "the token had expired when it arrived")
    }

    /// `clean` takes out of the plugin's words whatever must not be read.
    pub(super) fn refusal(refusal: &Refusal, clean: impl Fn(&str) -> String) -> Self {
        let words =
            |reason: &Reason| format!("{}: {}", clean(&reason.code), clean(&reason.message));
        match refusal {
            Refusal::Reauthorize(reason) => Self::reauthorize("refused", words(reason)),
            Refusal::Misconfigured(reason) => Self::misconfigured("refused", words(reason)),
            Refusal::Transient { reason, after } => Self {
                after: *after,
                ..Self::unavailable("transient", words(reason))
            },
            Refusal::RateLimited { after, scope } => Self {
                after: *after,
                scope: match scope {
                    Limited::Grant => FailureScope::Grant,
                    Limited::Client => FailureScope::Client,
                },
                ..Self::unavailable("rate_limited", "the issuer asked for fewer requests")
            },
            Refusal::InDoubt(reason) => Self::unavailable("in_doubt", words(reason)),
            Refusal::Other(reason) => Self::unavailable("other", words(reason)),
        }
    }

    /// Not before this much time has passed.
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.after = Some(after);
        self
    }
}
