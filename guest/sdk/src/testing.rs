//! Drives a provider natively, with scripted answers in plain JSON: no wasm, no server, no host.
//!
//! [`Harness`] stands where the host stands. It seals what the host would seal, so that a plugin which reads what it
//! must not gets a handle here too; it runs every step twice and insists on the same outcome; and it holds each step
//! against what the plugin said it [needs](Provider::needs). Every disagreement panics with words, as tests do.
//!
//! ```
//! # use keyfob_guest::{Call, Flow, Needs, Provider, Request, Result, Table, TokenSet, secret};
//! # struct Acme;
//! # impl Provider for Acme {
//! #     const NAME: &'static str = "acme";
//! #     const VERSION: &'static str = "1.0.0";
//! #     const SUMMARY: &'static str = "Acme";
//! #     type Settings = String;
//! #     fn settings(table: &mut Table) -> String { table.setting("token_url", "Where").url().required() }
//! #     fn needs(url: &String) -> Needs { Needs::default().secret("client_secret").destination(url) }
//! #     fn refresh(flow: &mut Flow, _: &Call, url: &String) -> Result<TokenSet> {
//! #         flow.send(Request::post(url).basic("svc", secret("client_secret")))?.tokens()
//! #     }
//! # }
//! use keyfob_guest::serde_json::json;
//! use keyfob_guest::testing::Harness;
//!
//! let acme = Harness::<Acme>::new(json!({ "token_url": "https://acme.example/token" }));
//! let mut flow = acme.refresh();
//! let sent = flow.sends();
//! assert_eq!(sent.basic(), Some(("svc".into(), "secret:client_secret".into())));
//! flow.answer(200, json!({ "access_token": "t-1", "expires_in": 60 }));
//! assert_eq!(flow.done().access_token, "t-1");
//! ```

mod run;
mod seal;
mod sent;

use std::fmt::Display;
use std::marker::PhantomData;

use crate::bindings::provider::types::Holds;
use crate::bindings::provider::{
    Call, Cause, Description, Guest, Mistake, Needs, Rejection, Revocation, Verdict,
};
use crate::provider::{Exported, Provider};

pub use run::{Done, Run, Target};
use seal::Vault;
pub use sent::{Sent, Signs};

/// The beginning of every flow, unless a test says otherwise: 2023-11-14T22:13:20Z.
pub const NOW: u32 = 1_700_000_000;

/// A provider under settings, and the call that its flows begin with.
#[derive(Debug)]
pub struct Harness<P> {
    call: Call,
    vault: Vault,
    plugin: PhantomData<P>,
}

impl<P: Provider> Harness<P> {
    /// A provider with these settings, as JSON text or a `serde_json::Value`, asked for its own account's first token.
    pub fn new(settings: impl Display) -> Self {
        let call = Call {
            now: NOW,
            entropy: (0..32).collect(),
            settings: settings.to_string(),
            tenant: "default".into(),
            subject: None,
            scopes: Vec::new(),
            audience: None,
            refresh_token: None,
            held: Vec::new(),
            memo: Vec::new(),
            cause: Cause::First,
        };
        Self {
            call,
            vault: Vault::default(),
            plugin: PhantomData,
        }
    }

    /// Changes the call.
    pub fn call(mut self, change: impl FnOnce(&mut Call)) -> Self {
        change(&mut self.call);
        self
    }

    /// Hands over a grant.
    pub fn grant(mut self, refresh_token: &str) -> Self {
        self.call.refresh_token = Some(self.vault.seal(refresh_token));
        self
    }

    /// Keeps a sealed value from an earlier flow.
    pub fn held(mut self, name: &str, value: &str) -> Self {
        let sealed = self.vault.seal(value);
        self.call.held.push((name.into(), sealed));
        self
    }

    /// What the plugin says of itself.
    pub fn describe(&self) -> Description {
        Exported::<P>::describe()
    }

    /// Has the plugin read the settings.
    ///
    /// # Errors
    ///
    /// What it found wrong with them.
    pub fn configure(&self) -> Result<Needs, Vec<Mistake>> {
        Exported::<P>::configure(self.call.settings.clone())
    }

    /// Begins to obtain a token.
    pub fn refresh(&self) -> Run<P> {
        Run::new(
            Target::Refresh(self.call.clone()),
            self.vault.clone(),
            self.configure(),
        )
    }

    /// Begins to revoke a token.
    pub fn revoke(&self, token: &str, holds: Holds) -> Run<P> {
        let mut vault = self.vault.clone();
        let token = vault.seal(token);
        let revocation = Revocation {
            call: self.call.clone(),
            token,
            holds,
        };
        Run::new(Target::Revoke(revocation), vault, self.configure())
    }

    /// What the plugin makes of a resource's refusal.
    pub fn classify(&self, status: u16, www_authenticate: Option<&str>) -> Verdict {
        let www_authenticate = www_authenticate.map(str::to_owned);
        Exported::<P>::classify(Rejection {
            status,
            www_authenticate,
            settings: self.call.settings.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
