//! Caches that know nothing of tokens: what a team would put into them, and how those that can let an entry end are told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use keyfob::model::time::{Clock, SystemClock, UnixTime};
use moka::Expiry;

use crate::issuer::{Failed, Fetch};

/// A token, ready to be sent, and its end.
#[derive(Debug)]
pub struct Held {
    /// `Bearer …`
    pub header: HeaderValue,
    /// Its end.
    pub expires: UnixTime,
}

/// Lets `moka` drop an entry at its token's end.
#[derive(Debug)]
pub struct Ends;

// === impl Held ===

impl Held {
    /// Fetches one.
    ///
    /// # Errors
    ///
    /// When the issuer fails.
    pub async fn fetch(fetch: &Fetch) -> Result<Arc<Self>, Failed> {
        let asked = SystemClock.now();
        let fetched = fetch.token().await?;
        Ok(Arc::new(Self {
            header: HeaderValue::try_from(format!("Bearer {}", fetched.token))
                .map_err(Failed::new)?,
            expires: asked.plus(fetched.lifetime()),
        }))
    }

    /// Whether it may be handed out.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, now: UnixTime) -> bool {
        now < self.expires
    }
}

// === impl Ends ===

impl<K> Expiry<K, Arc<Held>> for Ends {
    fn expire_after_create(&self, _: &K, held: &Arc<Held>, _: Instant) -> Option<Duration> {
        Some(held.expires.since(SystemClock.now()))
    }

    fn expire_after_update(
        &self,
        key: &K,
        held: &Arc<Held>,
        updated: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, held, updated)
    }
}
