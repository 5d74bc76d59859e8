//! Write a Keyfob plugin: one pure function per provider, tested offline with `cargo test`.
//!
//! A plugin answers one question: *given the call and every reply so far, what next?* It imports nothing: no clock, no
//! network, no randomness, no secrets. It writes the shape of a request; the host fills in secrets, sends it, replaces
//! every string of the answer by a handle, and asks again. [`Flow`] makes that read straight down:
//!
//! ```
//! use keyfob_guest::{Call, Flow, Needs, Provider, Request, Result, Table, TokenSet, secret};
//!
//! struct Acme;
//!
//! impl Provider for Acme {
//!     const NAME: &'static str = "acme";
//!     const VERSION: &'static str = "1.0.0";
//!     const SUMMARY: &'static str = "Acme's token endpoint";
//!     type Settings = String;
//!
//!     fn settings(table: &mut Table) -> String {
//!         table.setting("token_url", "Where tokens are asked for").url().required()
//!     }
//!
//!     fn needs(token_url: &String) -> Needs {
//!         Needs::default().secret("client_secret").destination(token_url)
//!     }
//!
//!     fn refresh(flow: &mut Flow, call: &Call, token_url: &String) -> Result<TokenSet> {
//!         let request = Request::post(token_url)
//!             .basic("svc", secret("client_secret"))
//!             .form("grant_type", "client_credentials")
//!             .form("scope", call.scopes.join(" "))
//!             .accept_json();
//!         flow.send(request)?.tokens()
//!     }
//! }
//!
//! keyfob_guest::export_provider!(Acme);
//! ```
//!
//! What lives here: the [`Provider`] and [`Policy`] traits with their export macros, request builders, the reader of
//! token answers, JWT assertions, the settings reader, and [`testing`]. What does not: anything about one provider.

pub mod bindings;
mod challenge;
mod client;
mod flow;
#[cfg(any(test, target_family = "wasm"))]
mod heap;
mod jwt;
#[cfg(any(test, target_family = "wasm"))]
mod panic;
mod policy;
mod provider;
mod refusal;
mod request;
mod response;
mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod time;
mod tokens;

pub use serde_json;

pub use bindings::provider::types::{
    Answer, BytesEncoding, Capture, Holds, HttpRequest as Request, Reason, SealedValue, Segment,
    SignRequest,
};
pub use bindings::provider::{
    Call, Cause, Expiry, ExtraValue, Later, Limited, Mistake, Needs, RateLimit, Refusal, Rejection,
    Revocation, Rotation, TokenSet, Verdict,
};
pub use challenge::classify_bearer;
pub use client::{CLIENT_SECRET, Client, SIGNING_KEY};
pub use flow::{Flow, Leave, Result};
pub use jwt::Assertion;
pub use policy::{ExportedPolicy, Policy, deny};
pub use provider::{Exported, Provider, Revoked};
pub use request::{Value, secret};
pub use response::Response;
pub use settings::{Read, Setting, Table};
