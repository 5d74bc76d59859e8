//! The error callers get: what to do, what an operator reads, and nothing for an attacker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What kind of failure it is. Closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorKind {
    /// The caller is not known.
    Unauthenticated,
    /// The policy says no, or there is no such provider.
    Denied,
    /// The grant is dead: a human must authorize again.
    ReauthorizationRequired,
    /// No token can be had now.
    Unavailable,
    /// The provider is set up wrong.
    Misconfigured,
    /// Keyfob itself failed.
    Internal,
}

/// When trying again makes sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It does not.
    Never,
    /// Not before this much time has passed.
    After(Duration),
    /// After a human did something.
    Human,
}

/// Names one failure: in the caller's answer and in the operator's log line.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Correlation(pub u64);

/// A failure, shared by everyone who waited for the same thing.
#[derive(Clone)]
pub struct Error(Arc<ErrorInner>);

struct ErrorInner {
    kind: ErrorKind,
    retry: Retry,
    public: &'static str,
    detail: String,
    correlation: Correlation,
}

// === impl ErrorKind ===

impl ErrorKind {
    /// As a metric label and as the last part of the problem type.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::ReauthorizationRequired => "reauthorization_required",
            Self::Unavailable => "unavailable",
            Self::Misconfigured => "misconfigured",
            Self::Internal => "internal",
        }
    }
}

// === impl Error ===

impl Error {
    /// `public` are the host's words for the caller; `detail` is for operators and holds no secret because nothing it is
    /// made from can print one.
    pub fn new(
        kind: ErrorKind,
        retry: Retry,
        public: &'static str,
        detail: impl Into<String>,
        correlation: Correlation,
    ) -> Self {
        Self(Arc::new(ErrorInner {
            kind,
            retry,
            public,
            detail: detail.into(),
            correlation,
        }))
    }

    /// Of which kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// When to try again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The words for the caller.
    pub fn public(&self) -> &'static str {
        self.0.public
    }

    /// The words for the operator.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Finds the operator's line.
    pub fn correlation(&self) -> Correlation {
        self.0.correlation
    }

    /// The same failure, with what is left of its waiting time.
    #[must_use]
    pub fn with_retry(&self, retry: Retry) -> Self {
        Self::new(
            self.0.kind,
            retry,
            self.0.public,
            self.0.detail.clone(),
            self.0.correlation,
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.public, self.0.correlation)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("retry", &self.0.retry)
            .field("detail", &self.0.detail)
            .field("correlation", &self.0.correlation)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}

// === impl Correlation ===

impl fmt::Display for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
