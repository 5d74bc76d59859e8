//! What a provider plugin implements, and the adapter that makes the contract's five functions of it.

use std::marker::PhantomData;

use crate::bindings::provider::types::{Reason, Reply};
use crate::bindings::provider::{
    Call, Description, Guest, Mistake, Needs, Refusal, Rejection, Revocation, RevokeStep, Rotation,
    Step, TokenSet, Verdict,
};
use crate::challenge::classify_bearer;
use crate::flow::{Exit, Flow, Leave, Result};
use crate::settings::{self, Table};

/// How one kind of authorization server is asked for tokens. Exported with
/// [`export_provider!`](crate::export_provider).
///
/// Every function is pure: the same arguments give the same result, and nothing is remembered between calls.
pub trait Provider {
    /// 1 to 64 bytes of `a-z`, `0-9`, `-`.
    const NAME: &'static str;
    /// Semantic version; `env!("CARGO_PKG_VERSION")` in most cases.
    const VERSION: &'static str;
    /// One line.
    const SUMMARY: &'static str;

    /// The settings, read and found right.
    type Settings;

    /// Reads the settings. Ask for every one, whatever the others say: the JSON Schema is made of this walk too, over
    /// an empty table. The result is thrown away where anything was a mistake.
    fn settings(table: &mut Table) -> Self::Settings;

    /// What must be granted under these settings.
    fn needs(settings: &Self::Settings) -> Needs;

    /// Obtains a token, step by step.
    ///
    /// # Errors
    ///
    /// The next step, or a refusal; `?` makes both.
    fn refresh(flow: &mut Flow, call: &Call, settings: &Self::Settings) -> Result<TokenSet>;

    /// Revokes a token upstream (RFC 7009), step by step.
    ///
    /// # Errors
    ///
    /// The next step, or a refusal.
    fn revoke(_flow: &mut Flow, _what: &Revocation, _settings: &Self::Settings) -> Result<Revoked> {
        Ok(Revoked::Unsupported)
    }

    /// Whether a refusal by a resource means that the token is dead.
    fn classify(rejection: &Rejection, _settings: &Self::Settings) -> Verdict {
        classify_bearer(rejection)
    }
}

/// How a revocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The server says the token is dead, or never knew it.
    Done,
    /// The server revokes nothing, or nothing of this kind.
    Unsupported,
}

/// Exports a [`Provider`] as the component `keyfob:provider/plugin`; does nothing in a native build.
#[macro_export]
macro_rules! export_provider {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Plugin = $crate::Exported<$plugin>;
    $crate::bindings::provider::export!(Plugin with_types_in $crate::bindings::provider);
        };
    };
}

/// The contract's functions, made of a [`Provider`].
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

// === impl Exported ===

impl<P: Provider> Guest for Exported<P> {
    fn describe() -> Description {
        enter();
        Description {
            name: P::NAME.into(),
            version: P::VERSION.into(),
            summary: P::SUMMARY.into(),
            settings_schema: settings::schema(P::settings),
        }
    }

    fn configure(settings: String) -> std::result::Result<Needs, Vec<Mistake>> {
        enter();
        settings::read(&settings, P::settings).map(|settings| P::needs(&settings))
    }

    fn refresh(call: Call, replies: Vec<Reply>) -> std::result::Result<Step, Refusal> {
        enter();
        let settings = configured::<P>(&call.settings)?;
        match P::refresh(&mut Flow::new(&call, replies), &call, &settings).map_err(Leave::into_exit)
        {
            Ok(tokens) => Ok(Step::Done(tokens)),
            Err(Exit::Send(request)) => Ok(Step::Send(request)),
            Err(Exit::Sign(what)) => Ok(Step::Sign(what)),
            Err(Exit::Refused(refusal)) => Err(refusal),
        }
    }

    fn revoke(what: Revocation, replies: Vec<Reply>) -> std::result::Result<RevokeStep, Refusal> {
        enter();
        let settings = configured::<P>(&what.call.settings)?;
        match P::revoke(&mut Flow::new(&what.call, replies), &what, &settings)
            .map_err(Leave::into_exit)
        {
            Ok(Revoked::Done) => Ok(RevokeStep::Done),
            Ok(Revoked::Unsupported) => Ok(RevokeStep::Unsupported),
            Err(Exit::Send(request)) => Ok(RevokeStep::Send(request)),
            Err(Exit::Sign(what)) => Ok(RevokeStep::Sign(what)),
            Err(Exit::Refused(refusal)) => Err(refusal),
        }
    }

    fn classify(rejection: Rejection) -> Verdict {
        enter();
        match settings::read(&rejection.settings, P::settings) {
            Ok(settings) => P::classify(&rejection, &settings),
            Err(_) => classify_bearer(&rejection),
        }
    }
}

/// The settings as `configure` found them right; the host calls it first, so a mistake here is an old one.
fn configured<P: Provider>(settings: &str) -> std::result::Result<P::Settings, Refusal> {
    settings::read(settings, P::settings).map_err(|mistakes| {
        let all: Vec<String> = mistakes
            .into_iter()
            .map(|mistake| format!("{}: {}; {}", mistake.at, mistake.message, mistake.fix))
            .collect();
        Refusal::Misconfigured(Reason::new("settings", all.join("; ")))
    })
}

/// Where every exported function begins.
pub(crate) fn enter() {
    #[cfg(target_family = "wasm")]
    crate::panic::install();
}

// === impl Needs ===

impl Default for Needs {
    /// Nothing needed, nothing known of rotation.
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            destinations: Vec::new(),
            readable: Vec::new(),
            exposes: Vec::new(),
            rotation: Rotation::Unknown,
            grace_seconds: None,
        }
    }
}

impl Needs {
    /// A secret of the provider's `secrets` table.
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.secrets.contains(&name) {
            self.secrets.push(name);
        }
        self
    }

    /// An origin with a path, as `allow` writes it.
    pub fn destination(mut self, url: impl Into<String>) -> Self {
        let url = url.into();
        if !self.destinations.contains(&url) {
            self.destinations.push(url);
        }
        self
    }

    /// A member of answers that must be read in the clear.
    pub fn readable(mut self, member: impl Into<String>) -> Self {
        self.readable.push(member.into());
        self
    }

    /// An extra member for callers.
    pub fn exposes(mut self, name: impl Into<String>) -> Self {
        self.exposes.push(name.into());
        self
    }

    /// What is known of refresh tokens at this server.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }
}
