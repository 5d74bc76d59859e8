//! An issuer without a network: answers in the process, at once. What a refresh takes with it is ours and the sandbox's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use keyfob::model::contract::BoxFuture;
use keyfob::model::time::Clock;
use keyfob::model::transport::{Answer, Delivery, OutgoingRequest, Upstream};

use crate::cached::TOKEN_BYTES;
use crate::draw::Draw;

/// Gives a new token for every request, and a new grant with it where grants are spent.
pub struct Prompt {
    clock: Arc<dyn Clock>,
    lifetime: Duration,
    rotates: bool,
    answered: AtomicU64,
    /// What every token ends with: as random as a signature, so that looking for one value in another is as quick, or as
    /// slow, as it is with real tokens.
    tail: String,
}

/// Digits of a token's number at its beginning.
const SERIAL_DIGITS: usize = 20;
/// Of base64 as URLs have it.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// === impl Prompt ===

impl Prompt {
    /// Tokens of this life; `rotates` when each refresh spends its grant.
    pub fn new(clock: Arc<dyn Clock>, lifetime: Duration, rotates: bool) -> Self {
        let mut draw = Draw::new(1);
        let digit = |_| char::from(DIGITS[draw.below(DIGITS.len())]);
        let tail = (SERIAL_DIGITS..TOKEN_BYTES).map(digit).collect();
        Self {
            clock,
            lifetime,
            rotates,
            answered: AtomicU64::new(0),
            tail,
        }
    }

    /// How many requests it answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// What it answers next.
    pub fn answer(&self) -> Answer {
        let serial = self.answered.fetch_add(1, Ordering::Relaxed);
        let grant = match self.rotates {
            true => format!(r#","refresh_token":"grant-{serial:0>40}""#),
            false => String::new(),
        };
        let (life, tail) = (self.lifetime.as_secs(), &self.tail);
        let body = format!(
            r#"{{"access_token":"{serial:0>SERIAL_DIGITS$}{tail}","token_type":"Bearer","expires_in":{life},"scope":"read"{grant}}}"#
        );
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Answer {
            status: StatusCode::OK,
            headers,
            body: Bytes::from(body),
            sent_at: self.clock.now(),
            took: Duration::ZERO,
        }
    }
}

impl Upstream for Prompt {
    fn send(&self, _: OutgoingRequest, _: Duration) -> BoxFuture<'_, Delivery> {
        Box::pin(async { Delivery::Answered(self.answer()) })
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prompt after {} answers", self.answered())
    }
}
