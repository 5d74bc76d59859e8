//! A broker in simulated time: tokio's clock is paused, so that an hour passes as fast as the work of an hour is done, and
//! nobody ever waits in earnest. Issuers are functions: prompt, slow, or with a limit of their own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use keyfob::model::contract::BoxFuture;
use keyfob::model::event::{Event, Observer, RefreshOutcome};
use keyfob::model::time::{Clock, UnixTime};
use keyfob::model::transport::{Answer, Delivery, OutgoingRequest, Upstream};
use keyfob::settings::RefreshSettings;
use keyfob::testing::TestClock;
use keyfob::{
    Broker, CacheLimits, Error, Principal, ProviderName, Retry, Subject, TokenKey, TokenRequest,
};
use tokio::time::Instant;

use crate::prompt::Prompt;
use crate::stage;

/// How an issuer answers.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// At once.
    Prompt,
    /// After this long.
    Slow(Duration),
    /// With 429 and this `Retry-After`, always.
    Limited(Duration),
}

/// One provider of the broker.
pub struct Offered {
    /// Its name.
    pub name: &'static str,
    /// How its issuer answers.
    pub manner: Manner,
    /// Flows that start in a second.
    pub rate: Option<f64>,
}

/// A broker, its issuers, and what was seen of both.
pub struct World {
    /// Tells simulated time.
    pub clock: Arc<TestClock>,
    /// The broker.
    pub broker: Broker,
    issuers: Arc<Issuers>,
    seen: Arc<Seen>,
}

/// All issuers, by host.
struct Issuers {
    prompt: Prompt,
    manners: HashMap<String, Manner>,
    /// When each was asked. Held for one push.
    asked: Mutex<HashMap<String, Vec<Instant>>>,
}

/// What became of renewals.
struct Seen {
    clock: Arc<TestClock>,
    /// Held for one event.
    renewals: Mutex<Renewals>,
}

#[derive(Default)]
struct Renewals {
    /// The end of the token that each key has.
    ends: HashMap<TokenKey, UnixTime>,
    /// How long before the end of the old token the new one came, by provider; less than nothing is too late.
    left: HashMap<ProviderName, Vec<f64>>,
}

// === impl World ===

impl World {
    /// A broker with these providers, whose tokens live so long; on a runtime of one thread whose time is paused once it
    /// stands.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn new(offered: &[Offered], lifetime: Duration, keys_max: usize) -> Self {
        let clock = Arc::new(TestClock::new());
        let host = |offered: &Offered| format!("{}.example", offered.name);
        let issuers = Arc::new(Issuers {
            prompt: Prompt::new(clock.clone(), lifetime, false),
            manners: offered.iter().map(|it| (host(it), it.manner)).collect(),
            asked: Mutex::default(),
        });
        let seen = Arc::new(Seen {
            clock: clock.clone(),
            renewals: Mutex::default(),
        });
        let providers = offered.iter().map(|offered| {
            let url = format!("https://{}/token", host(offered));
            let settings = stage::settings(&url, "client_credentials");
            let mut provider = stage::provider(&name(offered.name), &url, settings);
            provider.refresh = RefreshSettings {
                rate: offered.rate,
                ..provider.refresh
            };
            provider
        });
        let broker = Broker::builder()
            .clock(clock.clone())
            .upstream(issuers.clone())
            .observer(seen.clone())
            .limits(CacheLimits {
                keys_max,
                keys_per_caller_max: keys_max,
            })
            .settings(stage::broker_settings(providers.collect()))
            .build()
            .await
            .expect("a broker");
        tokio::time::pause();
        Self {
            clock,
            broker,
            issuers,
            seen,
        }
    }

    /// A user's token of a provider.
    ///
    /// # Errors
    ///
    /// As [`Broker::token`].
    pub async fn ask(&self, caller: &Principal, provider: &str, user: usize) -> Result<(), Error> {
        let subject = Subject::parse(&format!("user-{user}")).expect("a name");
        let request = TokenRequest::new(name(provider)).subject(subject);
        self.broker.token(caller, &request).await.map(|_| ())
    }

    /// Asks until there is a token, as often as callers are told to come again.
    ///
    /// # Panics
    ///
    /// When they are told not to.
    pub async fn obtain(&self, caller: &Principal, provider: &str, user: usize) {
        while let Err(error) = self.ask(caller, provider, user).await {
            let Retry::After(pause) = error.retry() else {
                panic!("{error:?}");
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// When an issuer was asked, from the first time on.
    pub fn asked(&self, provider: &str) -> Vec<Instant> {
        let asked = self.issuers.asked.lock();
        let asked = asked.unwrap_or_else(PoisonError::into_inner);
        asked
            .get(&format!("{provider}.example"))
            .cloned()
            .unwrap_or_default()
    }

    /// For each renewal of a provider's tokens, how many seconds before the old one's end the new one came.
    pub fn left(&self, provider: &str) -> Vec<f64> {
        let renewals = self.seen.renewals.lock();
        let renewals = renewals.unwrap_or_else(PoisonError::into_inner);
        renewals
            .left
            .get(&name(provider))
            .cloned()
            .unwrap_or_default()
    }
}

fn name(provider: &str) -> ProviderName {
    ProviderName::parse(provider).expect("a name")
}

// === impl Issuers ===

impl Upstream for Issuers {
    fn send(&self, request: OutgoingRequest, timeout: Duration) -> BoxFuture<'_, Delivery> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let manner = self.manners[&host];
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(host).or_default().push(Instant::now());
        drop(asked);
        Box::pin(async move {
            match manner {
                Manner::Prompt => Delivery::Answered(self.prompt.answer()),
                Manner::Slow(pause) => {
                    tokio::time::sleep(pause.min(timeout)).await;
                    Delivery::Answered(self.prompt.answer())
                }
                Manner::Limited(after) => {
                    let mut headers = HeaderMap::new();
                    headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
                    let answer = self.prompt.answer();
                    Delivery::Answered(Answer {
                        status: StatusCode::TOO_MANY_REQUESTS,
                        headers,
                        body: Default::default(),
                        ..answer
                    })
                }
            }
        })
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuers {:?}", self.manners)
    }
}

// === impl Seen ===

impl Observer for Seen {
    fn observe(&self, event: &Event) {
        let Event::RefreshFinished {
            key,
            outcome: RefreshOutcome::Renewed { expires, .. },
            ..
        } = event
        else {
            return;
        };
        let now = self.clock.now();
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = renewals.ends.insert(key.clone(), *expires) {
            let left = ended.as_millis() as f64 - now.as_millis() as f64;
            let provider = key.credential.provider.clone();
            renewals.left.entry(provider).or_default().push(left / 1e3);
        }
    }
}
