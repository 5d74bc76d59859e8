//! What leaves the process and what comes back, as values: the seam between the flow and `upstream`.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::contract::BoxFuture;
use super::secret::Secret;
use super::time::UnixTime;

/// The largest answer that is read; token answers are a few KiB, a JWT with many claims tens.
pub const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// A finished request: every secret in its place, the destination checked against the allow-list.
///
/// Made by `seal` only. `Debug` shows method and URL without query.
pub struct OutgoingRequest {
    /// HTTP method.
    pub method: Method,
    /// Where to, query included.
    pub url: Url,
    /// Every header; values from secrets are marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Secret<Vec<u8>>,
    /// Whether a grant that may be single-use is in it: then it travels on a connection of its own.
    pub carries_grant: bool,
}

/// An answer read to its end, at most [`ANSWER_MAX_BYTES`] long.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// Body as it came.
    pub body: Bytes,
    /// Just before the request was sent: token lifetimes count from here.
    pub sent_at: UnixTime,
    /// From there to the last byte.
    pub took: Duration,
}

/// How far a request got.
#[derive(Debug)]
pub enum Delivery {
    /// The server answered, completely.
    Answered(Answer),
    /// Provably nothing was sent: name, address, connect or TLS failed.
    NotSent(TransportFault),
    /// It was or may have been sent, and no complete answer came.
    Lost(TransportFault),
}

/// What went wrong on the way, in the host's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportFault {
    /// A closed label.
    pub kind: FaultKind,
    /// For operators: no header, body, query or secret in it.
    pub detail: String,
}

/// The closed set of transport faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The name did not resolve.
    Name,
    /// The address it resolved to is not allowed.
    Address,
    /// No connection.
    Connect,
    /// TLS failed.
    Tls,
    /// The deadline passed.
    Timeout,
    /// The connection broke.
    Broken,
    /// The answer was larger than allowed.
    TooLarge,
}

/// The only way out of the process: one per provider, with its trust, certificates and limits.
pub trait Upstream: Send + Sync + fmt::Debug {
    /// Sends once: no retry, no redirect. `timeout` covers everything from name lookup to the last byte.
    fn send(&self, request: OutgoingRequest, timeout: Duration) -> BoxFuture<'_, Delivery>;
}

// === impl OutgoingRequest ===

impl fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}{}",
            self.method,
            self.url.origin().ascii_serialization(),
            self.url.path()
        )
    }
}

// === impl Answer ===

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.status, self.body.len())
    }
}

// === impl FaultKind ===

impl FaultKind {
    /// As a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::TooLarge => "too_large",
        }
    }
}
