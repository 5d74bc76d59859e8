//! Keyfob, three ways: embedded by handle, embedded by key, and the daemon over a Unix socket.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use keyfob::model::contract::Rotation;
use keyfob::model::token::AccessToken;
use keyfob::{Broker, Principal, RejectReport, TokenHandle, TokenRequest};
use keyfob_benches::broker;
use keyfob_benches::cached::subject;
use keyfob_benches::load::Line;
use keyfob_benches::load::http::{self, Call};
use keyfob_benches::servers::Address;
use keyfob_benches::servers::keyfob::{CALLER_KEY, Keyfob, Setup};
use serde::Deserialize;
use serde_json::json;

use crate::scene::{CLIENT, CLIENT_SECRET, Counts, Design, Scene, Worker};

/// In this process; `H` says how workers ask.
pub struct Embedded {
    broker: Broker,
    caller: Principal,
    requests: Arc<[TokenRequest]>,
    by_handle: bool,
    counts: Counts,
}

/// Asks by handle where it has handles, or else by key.
pub struct Inside {
    broker: Broker,
    caller: Principal,
    requests: Arc<[TokenRequest]>,
    handles: Vec<TokenHandle>,
}

/// What it got.
pub struct Got(Arc<AccessToken>);

/// In a process of its own.
pub struct Daemon {
    daemon: Keyfob,
    counts: Counts,
}

/// Asks over a connection of its own, which is kept.
pub struct Outside {
    address: Address,
    /// Away while a request is under way, so that one whose caller hung up is closed and not used again.
    line: Option<Line>,
}

/// What the daemon answered.
#[derive(Deserialize)]
pub struct Told {
    access_token: String,
    generation: u64,
}

// === impl Embedded ===

impl Embedded {
    /// A broker with the scene's grants, at work on the servers' core.
    pub async fn new(scene: &Scene, by_handle: bool) -> Result<Self> {
        let rotation = match scene.is_single_use {
            true => Rotation::SingleUse,
            false => Rotation::Never,
        };
        let token_url = scene.issuer.token_url().to_owned();
        let grants = scene.grants.clone();
        let building = scene.back.spawn(async move {
            let settings = broker::settings(&token_url, (CLIENT, CLIENT_SECRET), rotation);
            let broker = Broker::builder().settings(settings).build().await?;
            broker::import(&broker, grants).await?;
            anyhow::Ok(broker)
        });
        Ok(Self {
            broker: building.await??,
            caller: broker::caller(),
            requests: (0..scene.grants.len()).map(broker::request).collect(),
            by_handle,
            counts: Counts::default(),
        })
    }
}

impl Design for Embedded {
    type Worker = Inside;

    async fn worker(&self) -> Result<Inside> {
        let mut handles = Vec::new();
        if self.by_handle {
            for request in self.requests.iter() {
                handles.push(self.broker.handle(&self.caller, request).await?);
            }
        }
        Ok(Inside {
            broker: self.broker.clone(),
            caller: self.caller.clone(),
            requests: Arc::clone(&self.requests),
            handles,
        })
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

// === impl Inside ===

impl Worker for Inside {
    type Token = Got;

    async fn token(&mut self, user: usize) -> Result<Got> {
        if let Some(handle) = self.handles.get_mut(user) {
            return Ok(Got(handle.token().await?));
        }
        let issued = self.broker.token(&self.caller, &self.requests[user]);
        Ok(Got(issued.await?.token))
    }

    async fn instead_of(&mut self, user: usize, refused: Got) -> Result<Got> {
        let report = RejectReport {
            generation: refused.0.generation().number(),
            status: Some(401),
            www_authenticate: None,
        };
        let request = &self.requests[user];
        let rejected = self.broker.reject(&self.caller, request, &report).await?;
        Ok(Got(rejected.0.token))
    }
}

// === impl Got ===

impl AsRef<str> for Got {
    fn as_ref(&self) -> &str {
        self.0.raw()
    }
}

// === impl Daemon ===

impl Daemon {
    /// A daemon with the scene's grants.
    pub async fn new(scene: &Scene) -> Result<Self> {
        let daemon = Keyfob::start(&Setup {
            unix: true,
            token_url: scene.issuer.token_url(),
            client: (CLIENT, CLIENT_SECRET),
            rotation: match scene.is_single_use {
                true => "single_use",
                false => "never",
            },
        })?;
        let grants = scene.grants.iter().cloned().enumerate();
        daemon
            .import(grants.map(|(user, grant)| (subject(user), grant)))
            .await?;
        Ok(Self {
            daemon,
            counts: Counts::default(),
        })
    }
}

impl Design for Daemon {
    type Worker = Outside;

    async fn worker(&self) -> Result<Outside> {
        Ok(Outside {
            line: Some(Line::connect(&self.daemon.address).await?),
            address: self.daemon.address.clone(),
        })
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

// === impl Outside ===

impl Worker for Outside {
    type Token = Told;

    async fn token(&mut self, user: usize) -> Result<Told> {
        let body = json!({ "provider": "acme", "subject": subject(user) });
        self.call("/v1/token", &body.to_string()).await
    }

    async fn instead_of(&mut self, user: usize, refused: Told) -> Result<Told> {
        let body = json!({
            "provider": "acme", "subject": subject(user),
            "generation": refused.generation, "status": 401,
        });
        self.call("/v1/token/reject", &body.to_string()).await
    }
}

impl Outside {
    async fn call(&mut self, path: &str, body: &str) -> Result<Told> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => Line::connect(&self.address).await?,
        };
        let call = Call {
            method: "POST",
            path,
            authorization: Some(&format!("Bearer {CALLER_KEY}")),
            content_type: "application/json",
            body,
        };
        let (status, body) = http::answer(&mut line, &call).await?;
        self.line = Some(line);
        let said = String::from_utf8_lossy(&body);
        ensure!(status == 200, "the daemon says {status}: {said}");
        serde_json::from_slice(&body).context("a token")
    }
}

// === impl Told ===

impl AsRef<str> for Told {
    fn as_ref(&self) -> &str {
        &self.access_token
    }
}
