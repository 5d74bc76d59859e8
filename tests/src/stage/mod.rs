//! The stage of an integration test: a strict issuer, a broker with the shipped plugins in the real sandbox, and the
//! leak check that every test ends with.
//!
//! A stage that is not [closed](Stage::close) fails its test: what was said is searched there.
//!
//! Here is a stage in use. What is on it before it stands is `setting`'s; names and small values are `words`'s.

mod setting;
mod words;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use setting::{Setting, anything, client};
pub use words::{
    ACME, BILLING, CLIENT, CLIENT_SECRET, SCOPES, audience, credential, generation, of,
    provider_name, refused, report, scopes, secret, subject, with_scope,
};

use keyfob::broker::{
    Broker, BrokerSettings, Issued, RejectOutcome, RejectReport, SwapError, Swapped,
};
use keyfob::model::error::Error;
use keyfob::model::event::{Event, RefreshOutcome};
use keyfob::model::key::{Tenant, TokenKey};
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::testing::issuer::Issuer;
use keyfob::testing::{Canary, Recorder};

use crate::logs::{self, Sheet};

/// How long [`Stage::close`] waits for what is still under way.
const DRAIN: Duration = Duration::from_secs(5);

/// A stage in use.
pub struct Stage {
    /// The authorization server.
    pub issuer: Issuer,
    /// What is tested.
    pub broker: Broker,
    /// Every event.
    pub recorder: Arc<Recorder>,
    /// Every secret there is.
    pub canary: Canary,
    /// What the broker runs with.
    pub settings: BrokerSettings,
    said: Arc<Mutex<String>>,
    log: Sheet,
    common_from: usize,
    closed: bool,
}

/// Asks like a caller: cheap to clone into tasks. Whatever it is answered goes on the record of the leak check.
#[derive(Clone)]
pub struct Caller {
    broker: Broker,
    principal: Principal,
    said: Arc<Mutex<String>>,
}

// === impl Stage ===

impl Stage {
    /// The caller who may have everything.
    pub fn billing(&self) -> Caller {
        self.caller(BILLING, Tenant::default())
    }

    /// A caller of this name.
    pub fn caller(&self, name: &str, tenant: Tenant) -> Caller {
        Caller {
            broker: self.broker.clone(),
            principal: Principal::new(name, tenant, Vec::new()),
            said: self.said.clone(),
        }
    }

    /// The usual token of [`ACME`].
    pub async fn token(&self) -> Result<Issued, Error> {
        self.billing().token(&of(ACME)).await
    }

    /// Requests that reached the issuer.
    pub fn calls(&self) -> u64 {
        self.issuer.ledger().count()
    }

    /// Flights that landed with a token.
    pub fn renewals(&self) -> usize {
        self.recorder.count(|event| {
            matches!(
                event,
                Event::RefreshFinished {
                    outcome: RefreshOutcome::Renewed { .. },
                    ..
                }
            )
        })
    }

    /// Swaps a provider's plugin; the answer goes on the record.
    pub async fn swap(&self, provider: &str, component: Arc<[u8]>) -> Result<Swapped, SwapError> {
        let result = self
            .broker
            .swap_provider(provider, component, "deployer")
            .await;
        self.record(&result);
        if let Err(error) = &result {
            self.record(&error.to_string());
        }
        result
    }

    /// Puts what somebody was told on the record.
    pub fn record(&self, what: &impl Debug) {
        note(&self.said, what);
    }

    /// Ends the test: stops the broker and looks for every secret wherever something was said.
    ///
    /// # Panics
    ///
    /// When a secret is found.
    pub async fn close(mut self) {
        self.closed = true;
        let mut explained = String::new();
        for key in self.keys() {
            let explanation = self.broker.explain(&key).await;
            let _ = writeln!(explained, "{explanation:?}");
            let _ = writeln!(
                explained,
                "{}",
                serde_json::to_string(&explanation).expect("an explanation is plain JSON")
            );
        }
        let looks = format!(
            "{:?} {:?} {}",
            self.broker,
            self.broker.providers(),
            serde_json::to_string(&self.broker.providers()).expect("a status is plain JSON")
        );
        self.broker.shutdown(DRAIN).await;
        let said = self
            .said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        assert!(
            !self.canary.is_empty(),
            "nothing to look for proves nothing"
        );
        for (place, text) in [
            ("an explanation", explained.into_bytes()),
            ("a status", looks.into_bytes()),
            ("the metrics", self.broker.metrics().await.into_bytes()),
            ("an event", self.recorder.dump().into_bytes()),
            ("an answer's Debug", said.into_bytes()),
            (
                "the settings' Debug",
                format!("{:?}", self.settings).into_bytes(),
            ),
            ("the log", self.log.text()),
            (
                "the log of other threads",
                logs::common_since(self.common_from),
            ),
        ] {
            self.canary.assert_absent(place, text);
        }
    }

    fn keys(&self) -> BTreeSet<TokenKey> {
        let events = self.recorder.events();
        events
            .into_iter()
            .filter_map(|event| match event {
                Event::RefreshStarted { key, .. } | Event::TokenRejected { key, .. } => Some(key),
                _ => None,
            })
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.closed && !std::thread::panicking() {
            panic!("end the test with `stage.close().await`: it looks for leaked secrets");
        }
    }
}

// === impl Caller ===

impl Caller {
    /// Asks for a token.
    ///
    /// # Errors
    ///
    /// What the broker says.
    pub async fn token(&self, request: &TokenRequest) -> Result<Issued, Error> {
        let answer = self.broker.token(&self.principal, request).await;
        self.note(&answer);
        answer
    }

    /// Says that a resource refused a token.
    ///
    /// # Errors
    ///
    /// What the broker says.
    pub async fn reject(
        &self,
        request: &TokenRequest,
        report: &RejectReport,
    ) -> Result<(Issued, RejectOutcome), Error> {
        let answer = self.broker.reject(&self.principal, request, report).await;
        match &answer {
            Ok((issued, _)) => note(&self.said, &issued.token),
            Err(error) => note(&self.said, error),
        }
        answer
    }

    /// This many at once, each on a task of its own, that ask for the same.
    pub async fn crowd(&self, size: usize, request: &TokenRequest) -> Vec<Result<Issued, Error>> {
        let tasks: Vec<_> = (0..size)
            .map(|_| {
                let (caller, request) = (self.clone(), request.clone());
                tokio::spawn(async move { caller.token(&request).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(size);
        for task in tasks {
            answers.push(task.await.expect("a caller does not panic"));
        }
        answers
    }

    fn note(&self, answer: &Result<Issued, Error>) {
        match answer {
            Ok(issued) => note(&self.said, &issued.token),
            Err(error) => {
                note(&self.said, error);
                note(&self.said, &error.to_string());
            }
        }
    }
}

fn note(said: &Mutex<String>, what: &impl Debug) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(said, "{what:?}");
}
