//! What a service has of OAuth when it looks after its tokens itself: a client that presents a grant at the issuer, over
//! connections that are kept.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use keyfob_benches::load::Line;
use keyfob_benches::load::http::{self, Call};
use keyfob_benches::servers::Address;
use serde::Deserialize;

use crate::scene::{AUTHORIZATION, Scene};

/// Presents grants.
pub struct Refresher {
    issuer: Address,
    /// Connections that nobody uses at the moment. One whose user hung up is not put back.
    idle: RefCell<Vec<Line>>,
}

/// What the issuer answered.
#[derive(Deserialize)]
pub struct Refreshed {
    /// The new token.
    pub access_token: String,
    /// The grant that is to be presented next, if it is another.
    pub refresh_token: Option<String>,
    /// In seconds.
    pub expires_in: u64,
}

// === impl Refresher ===

impl Refresher {
    /// At the scene's issuer.
    pub fn new(scene: &Scene) -> Result<Self> {
        let base = scene.issuer.base_url();
        let address = base.strip_prefix("http://").context("plain HTTP")?;
        Ok(Self {
            issuer: Address::Tcp(address.parse()?),
            idle: RefCell::default(),
        })
    }

    /// One token for a grant.
    pub async fn refresh(&self, grant: &str) -> Result<Refreshed> {
        let idle = self.idle.borrow_mut().pop();
        let mut line = match idle {
            Some(line) => line,
            None => Line::connect(&self.issuer).await?,
        };
        let call = Call {
            method: "POST",
            path: "/token",
            authorization: Some(AUTHORIZATION),
            content_type: "application/x-www-form-urlencoded",
            body: &format!("grant_type=refresh_token&refresh_token={grant}"),
        };
        let (status, body) = http::answer(&mut line, &call).await?;
        self.idle.borrow_mut().push(line);
        let said = String::from_utf8_lossy(&body);
        ensure!(status == 200, "the issuer says {status}: {said}");
        serde_json::from_slice(&body).context("a token")
    }
}
