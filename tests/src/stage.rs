//! The stage of an integration test: a strict issuer, a broker with the shipped plugins in the real sandbox, and the
//! leak check that every test ends with.
//!
//! A stage that is not [closed](Stage::close) fails its test: what was said is searched there.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use keyfob::broker::{
    Broker, BrokerSettings, Issued, PolicySettings, RejectOutcome, RejectReport, SwapError, Swapped,
};
use keyfob::cache::CacheLimits;
use keyfob::model::error::Error;
use keyfob::model::event::{Event, RefreshOutcome};
use keyfob::model::key::{Tenant, TokenKey};
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::model::time::{Clock, SystemClock};
use keyfob::settings::{
    CallerSettings, PluginSource, ProviderSettings, RefreshSettings, SecretSource, Wasi,
};
use keyfob::store::Store;
use keyfob::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig};
use keyfob::testing::{Canary, Recorder};
use keyfob::wasm::{Catalog, Runtime};
use serde_json::json;

pub use self::words::*;
use crate::logs::{self, Sheet};

mod words;

/// The provider every stage has.
pub const ACME: &str = "acme";
/// The caller that may have everything.
pub const BILLING: &str = "billing";
/// The issuer's client of [`ACME`].
pub const CLIENT: &str = "svc";
/// Its password, with characters that every encoding treats differently.
pub const CLIENT_SECRET: &str = "corr:ect/horse+battery=staple%21";
/// The scopes that clients are registered for.
pub const SCOPES: [&str; 4] = ["read", "write", "orders.read", "orders.write"];
/// How long [`Stage::close`] waits for what is still under way.
const DRAIN: Duration = Duration::from_secs(5);

/// A stage to be.
pub struct Setting {
    /// How the issuer's tokens live.
    pub lifetime: Duration,
    /// The issuer's clients.
    pub clients: Vec<Client>,
    /// Room in the cache.
    pub limits: Option<CacheLimits>,
    /// Where credentials are kept, if not in the broker's own memory.
    pub store: Option<Arc<dyn Store>>,
    /// Tells issuer and broker the time, if the system does not.
    pub clock: Option<Arc<dyn Clock>>,
    providers: Vec<Change>,
    callers: Vec<CallerSettings>,
}

/// A provider's name, and what distinguishes it from the usual one.
type Change = (
    String,
    Box<dyn FnOnce(&mut ProviderSettings, &Issuer) + Send>,
);

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
    clock: Arc<dyn Clock>,
    limits: Option<CacheLimits>,
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

// === impl Setting ===

impl Default for Setting {
    /// One provider, [`ACME`], with client credentials; one caller, [`BILLING`], who may have everything.
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            clients: vec![client()],
            limits: None,
            store: None,
            clock: None,
            providers: Vec::new(),
            callers: vec![caller(BILLING, Tenant::default(), anything())],
        }
    }
}

impl Setting {
    /// As usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens live this long.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// With this clock, in the issuer too.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// With room for this many keys, and this many a caller.
    #[must_use]
    pub fn room(mut self, keys_max: usize, keys_per_caller_max: usize) -> Self {
        self.limits = Some(CacheLimits {
            keys_max,
            keys_per_caller_max,
        });
        self
    }

    /// [`ACME`], but different.
    #[must_use]
    pub fn acme(self, change: impl FnOnce(&mut ProviderSettings) + Send + 'static) -> Self {
        self.provider(ACME, |settings, _| change(settings))
    }

    /// A provider of this name that is different: [`ACME`] itself, or a further one.
    #[must_use]
    pub fn provider(
        mut self,
        name: &str,
        change: impl FnOnce(&mut ProviderSettings, &Issuer) + Send + 'static,
    ) -> Self {
        self.providers.push((name.to_owned(), Box::new(change)));
        self
    }

    /// A further caller, with these rules.
    #[must_use]
    pub fn caller(mut self, name: &str, tenant: &str, rules: serde_json::Value) -> Self {
        let tenant = Tenant::parse(tenant).expect("tests name tenants well");
        self.callers.push(caller(name, tenant, rules));
        self
    }

    /// With [`ACME`] on the refresh-token grant, and this client in the issuer.
    #[must_use]
    pub fn refresh_tokens(mut self, client: Client) -> Self {
        self.clients = vec![client];
        self.acme(|acme| acme.settings["grant"] = "refresh_token".into())
    }

    /// Starts everything.
    pub async fn open(self) -> Stage {
        let log = logs::open();
        let common_from = logs::common_mark();
        let canary = Canary::new();
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let issuer = Issuer::start(IssuerConfig {
            clients: self.clients,
            lifetime: self.lifetime,
            clock: clock.clone(),
            canary: canary.clone(),
            ..IssuerConfig::default()
        })
        .expect("loopback has a free port");
        let mut providers = vec![usual(ACME, &issuer)];
        for (name, change) in self.providers {
            let at = providers.iter().position(|p| p.name.as_str() == name);
            let at = at.unwrap_or_else(|| {
                providers.push(usual(&name, &issuer));
                providers.len() - 1
            });
            change(&mut providers[at], &issuer);
        }
        for secret in providers.iter().flat_map(|p| &p.secrets) {
            if let SecretSource::Value(value) = &secret.source {
                canary.add(value.expose());
            }
        }
        let settings = BrokerSettings {
            providers,
            policy: PolicySettings::default(),
            callers: self.callers,
        };
        let recorder = Arc::new(Recorder::new());
        let given = (&clock, &recorder, self.limits, self.store);
        let broker = broker(&settings, given).await;
        Stage {
            issuer,
            broker,
            recorder,
            canary,
            settings,
            clock,
            limits: self.limits,
            said: Arc::default(),
            log,
            common_from,
            closed: false,
        }
    }
}

/// A clock, a recorder, room in the cache, a store.
type Given<'a> = (
    &'a Arc<dyn Clock>,
    &'a Arc<Recorder>,
    Option<CacheLimits>,
    Option<Arc<dyn Store>>,
);

async fn broker(settings: &BrokerSettings, (clock, recorder, limits, store): Given<'_>) -> Broker {
    let mut builder = Broker::builder()
        .catalog(catalog())
        .clock(clock.clone())
        .observer(recorder.clone())
        .settings(settings.clone());
    if let Some(limits) = limits {
        builder = builder.limits(limits);
    }
    if let Some(store) = store {
        builder = builder.store(store);
    }
    match builder.build().await {
        Ok(broker) => broker,
        Err(error) => panic!("the stage does not stand: {error}"),
    }
}

/// One for the process, as in production: what ships is compiled once for all tests.
fn catalog() -> Arc<Catalog> {
    static CATALOG: OnceLock<Arc<Catalog>> = OnceLock::new();
    let made = CATALOG.get_or_init(|| {
        let runtime = Runtime::new().expect("this machine runs WebAssembly");
        Arc::new(Catalog::new(runtime))
    });
    Arc::clone(made)
}

/// The usual client of the issuer: [`CLIENT`] with [`CLIENT_SECRET`] and all [`SCOPES`].
pub fn client() -> Client {
    Client::new(CLIENT, ClientAuth::Basic(CLIENT_SECRET.to_owned())).scopes(&SCOPES)
}

/// Rules that allow everything at every provider a test has.
pub fn anything() -> serde_json::Value {
    let rules = [ACME, "beta", "gamma"].map(
        |name| json!({ "provider": name, "subjects": ["*"], "scopes": ["*"], "audiences": ["*"] }),
    );
    json!({ "allow": rules })
}

fn caller(name: &str, tenant: Tenant, rules: serde_json::Value) -> CallerSettings {
    CallerSettings {
        name: name.to_owned(),
        tenant,
        rules,
    }
}

fn usual(name: &str, issuer: &Issuer) -> ProviderSettings {
    let token_url = issuer.token_url().to_owned();
    ProviderSettings {
        name: provider_name(name),
        plugin: PluginSource::Builtin("oauth2".to_owned()),
        allow: vec![token_url.clone(), issuer.revoke_url()],
        insecure_http: true,
        allow_addresses: Vec::new(),
        required: false,
        settings: json!({ "token_url": token_url, "client_id": CLIENT }),
        secrets: vec![secret("client_secret", CLIENT_SECRET)],
        refresh: RefreshSettings::default(),
        readable: Vec::new(),
        expose: Vec::new(),
        scopes: scopes(&["read"]),
        tls: None,
        proxy: None,
        wasi: Wasi::None,
    }
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

    /// Ends the broker in good order and starts another one before the same issuer, on the store that `reopen` opens and
    /// with the settings as `change` leaves them. What was said stays on the record.
    ///
    /// # Panics
    ///
    /// When the new broker does not stand.
    pub async fn restart(
        &mut self,
        reopen: impl FnOnce() -> Arc<dyn Store>,
        change: impl FnOnce(&mut BrokerSettings),
    ) {
        change(&mut self.settings);
        self.broker.shutdown(DRAIN).await;
        // A store belongs to one process: the old broker lets go of it before the new one opens it.
        let nobody = Broker::builder().catalog(catalog()).build().await;
        drop(std::mem::replace(
            &mut self.broker,
            nobody.expect("a broker without providers stands"),
        ));
        let given = (&self.clock, &self.recorder, self.limits, Some(reopen()));
        self.broker = broker(&self.settings, given).await;
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
                Event::RefreshStarted { key, .. }
                | Event::TokenAdopted { key, .. }
                | Event::TokenRejected { key, .. } => Some(key),
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

    /// Asks for many tokens in one call.
    pub async fn tokens(&self, requests: &[TokenRequest]) -> Vec<Result<Issued, Error>> {
        let answers = self.broker.tokens(&self.principal, requests).await;
        answers.iter().for_each(|answer| self.note(answer));
        answers
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
