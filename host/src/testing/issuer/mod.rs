//! A strict little OAuth issuer in this process: on loopback, with a port of its own, and misbehaving on request.
//!
//! It serves `/token`, `/revoke` and a protected `/resource`. Nothing is shared between two issuers; dropping one closes
//! its sockets. It runs on the runtime it was started on, in real time: see [`crate::testing::TestClock`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use keyfob::testing::issuer::{Behaviour, Client, ClientAuth, Issuer, IssuerConfig};
//!
//! let issuer = Issuer::start(IssuerConfig {
//!     clients: vec![Client::new("svc", ClientAuth::Basic("correct-horse".into()))],
//!     ..IssuerConfig::default()
//! })?;
//! issuer.behave_next(1, Behaviour::Status(503));
//! assert!(issuer.token_url().ends_with("/token"));
//! assert_eq!(issuer.ledger().count(), 0);
//! # Ok(()) }
//! ```

mod behaviour;
mod book;
mod client;
mod endpoints;
mod ledger;
mod serve;
mod tls;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use behaviour::Behaviour;
pub use client::{Client, ClientAuth, GrantType, RefreshRotation, VerifyingKey};
pub use ledger::{Entry, Ledger, Moments, Outcome};
pub use tls::IssuerTls;

use super::canary::Canary;
use crate::model::time::{Clock, SystemClock};
use behaviour::Script;
use book::Book;
use serve::{Door, Refusing};

/// How an issuer is set up.
pub struct IssuerConfig {
    /// Who may ask.
    pub clients: Vec<Client>,
    /// How long access tokens live; the answer states whole seconds, rounded down.
    pub lifetime: Duration,
    /// By which clock.
    pub clock: Arc<dyn Clock>,
    /// Serve https instead of http.
    pub tls: Option<IssuerTls>,
    /// Where every secret is noted.
    pub canary: Canary,
}

/// A running issuer.
pub struct Issuer {
    shared: Arc<Shared>,
    refusing: mpsc::Sender<Refusing>,
    _stop: DropGuard,
}

/// What the connections share.
struct Shared {
    clients: Vec<Client>,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    base_url: String,
    token_url: String,
    script: Script,
    ledger: Ledger,
    book: Mutex<Book>,
    canary: Canary,
    tracker: TaskTracker,
}

// === impl IssuerConfig ===

impl Default for IssuerConfig {
    /// No clients, tokens of five minutes, the system's clock, http.
    fn default() -> Self {
        Self {
            clients: Vec::new(),
            lifetime: Duration::from_secs(300),
            clock: Arc::new(SystemClock),
            tls: None,
            canary: Canary::new(),
        }
    }
}

// === impl Issuer ===

impl Issuer {
    /// Starts on 127.0.0.1, on a port the system chooses.
    ///
    /// # Errors
    ///
    /// When no socket can be had, or `tls` does not parse.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(config: IssuerConfig) -> io::Result<Self> {
        let tls = config.tls.as_ref().map(IssuerTls::acceptor).transpose()?;
        let door = Door::open()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base_url = format!("{scheme}://{}", door.address);
        for secret in config.clients.iter().filter_map(Client::secret) {
            config.canary.add(secret);
        }
        let shared = Arc::new(Shared {
            clients: config.clients,
            lifetime: config.lifetime,
            clock: config.clock,
            token_url: format!("{base_url}/token"),
            base_url,
            script: Script::default(),
            ledger: Ledger::new(),
            book: Mutex::new(Book::new(config.canary.clone())),
            canary: config.canary,
            tracker: TaskTracker::new(),
        });
        let stop = CancellationToken::new();
        // One command at a time: whoever sends waits for its effect.
        let (refusing, commands) = mpsc::channel(1);
        shared.tracker.spawn(serve::accept(
            door,
            shared.clone(),
            tls,
            commands,
            stop.clone(),
        ));
        Ok(Self {
            shared,
            refusing,
            _stop: stop.drop_guard(),
        })
    }

    /// `http://127.0.0.1:PORT`; also an accepted audience of assertions.
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The token endpoint.
    pub fn token_url(&self) -> &str {
        &self.shared.token_url
    }

    /// The revocation endpoint.
    pub fn revoke_url(&self) -> String {
        format!("{}/revoke", self.shared.base_url)
    }

    /// The protected resource: 200 with a good token, else 401.
    pub fn resource_url(&self) -> String {
        format!("{}/resource", self.shared.base_url)
    }

    /// What was asked.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Every secret this issuer knows.
    pub fn canary(&self) -> &Canary {
        &self.shared.canary
    }

    /// How every request is answered from now on; plans for the next ones are dropped.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.script.stand(behaviour);
    }

    /// How the next requests are answered, after those planned already.
    pub fn behave_next(&self, requests: usize, behaviour: Behaviour) {
        self.shared.script.plan(requests, behaviour);
    }

    /// Closes every connection and refuses new ones, or takes them again. Returns when it is so; the port stays ours.
    ///
    /// # Cancel safety
    ///
    /// Dropped halfway, it may or may not take effect.
    pub async fn refuse_connections(&self, refuse: bool) {
        let (done, is_done) = oneshot::channel();
        // The acceptor ends with the runtime only; then there is nobody to refuse.
        if self.refusing.send((refuse, done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Whether an access token is good now, or a refresh token would be taken.
    pub fn is_active(&self, token: &str) -> bool {
        let book = self.shared.book();
        book.active(token, self.shared.clock.now()).is_some() || book.refresh_token_active(token)
    }

    /// How the ledger names a refresh token, or the one that was issued beside an access token. Ended ones are known too.
    pub fn number_of(&self, token: &str) -> Option<u64> {
        let book = self.shared.book();
        book.refresh_token_id(token).or_else(|| book.beside(token))
    }

    /// Every refresh token it ever issued, with whether it would be taken: for a search in places where none may be.
    pub fn refresh_tokens(&self) -> Vec<(String, bool)> {
        let book = self.shared.book();
        let tokens = book.refresh_tokens().map(str::to_owned);
        tokens
            .map(|token| {
                let active = book.refresh_token_active(&token);
                (token, active)
            })
            .collect()
    }

    /// Ends an access token, or a refresh token with its family.
    pub fn revoke(&self, token: &str) {
        self.shared.book().revoke(token, None);
    }

    /// A refresh token as an authorization code flow would have left it; `None` for an unknown client.
    pub fn issue_refresh_token(&self, client: &str, subject: &str) -> Option<String> {
        let client = self
            .shared
            .clients
            .iter()
            .find(|known| known.id == client)?;
        Some(self.shared.book().issue_refresh_token(client, subject))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer at {}", self.shared.base_url)
    }
}
