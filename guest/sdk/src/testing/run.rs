//! One flow under test: what the plugin wants next, and what it is answered.

use std::marker::PhantomData;

use serde_json::Value;

use super::seal::Vault;
use super::sent::{Sent, Signs};
use crate::bindings::provider::types::{HttpRequest, HttpResponse, Reason, Reply, SignRequest};
use crate::bindings::provider::{
    Call, Guest, Mistake, Needs, Refusal, Revocation, RevokeStep, Step, TokenSet,
};
use crate::provider::{Exported, Provider, Revoked};

/// Steps the host allows one flow.
const STEPS_MAX: usize = 8;

/// A flow, driven by a test: ask what it [`sends`](Self::sends) or [`signs`](Self::signs), answer, and end with
/// [`done`](Self::done), [`refused`](Self::refused) or [`revoked`](Self::revoked).
#[derive(Debug)]
pub struct Run<P> {
    target: Target,
    vault: Vault,
    needs: Result<Needs, Vec<Mistake>>,
    replies: Vec<Reply>,
    plugin: PhantomData<P>,
}

/// What a flow is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A token.
    Refresh(Call),
    /// A token's end.
    Revoke(Revocation),
}

/// The tokens a flow obtained, opened.
#[derive(Clone, Debug)]
pub struct Done {
    /// The access token.
    pub access_token: String,
    /// The new grant, where one came back.
    pub refresh_token: Option<String>,
    /// The record itself, sealed.
    pub tokens: TokenSet,
}

/// What a call of the plugin led to.
#[derive(Debug, PartialEq)]
enum Next {
    Send(HttpRequest),
    Sign(SignRequest),
    Done(TokenSet),
    Revoked(Revoked),
    Refused(Refusal),
}

// === impl Run ===

impl<P: Provider> Run<P> {
    pub(super) fn new(target: Target, vault: Vault, needs: Result<Needs, Vec<Mistake>>) -> Self {
        Self {
            target,
            vault,
            needs,
            replies: Vec::new(),
            plugin: PhantomData,
        }
    }

    /// The request that is next, held against what the plugin said it needs.
    ///
    /// # Panics
    ///
    /// Where something else is next, or the request goes where or names what `needs` does not say.
    pub fn sends(&self) -> Sent {
        let Next::Send(request) = self.next() else {
            return self.surprised("a request");
        };
        let sent = Sent::new(request, self.vault.clone());
        if let Ok(needs) = &self.needs {
            let url = sent.url();
            let granted = |allowed: &String| {
                url.strip_prefix(allowed.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            assert!(
                needs.destinations.iter().any(granted),
                "{url} is not among the destinations {needs:?}"
            );
            for secret in sent.secrets() {
                assert!(
                    needs.secrets.iter().any(|name| name == secret),
                    "`{secret}` is not among the secrets {needs:?}"
                );
            }
        }
        sent
    }

    /// The signature that is next.
    ///
    /// # Panics
    ///
    /// Where something else is next, or the key is not among the secrets needed.
    pub fn signs(&self) -> Signs {
        let Next::Sign(request) = self.next() else {
            return self.surprised("a signature");
        };
        let signs = Signs { request };
        if let Ok(needs) = &self.needs {
            let key = signs.key();
            assert!(
                needs.secrets.iter().any(|name| name == key),
                "`{key}` is not among the secrets {needs:?}"
            );
        }
        signs
    }

    /// Answers with JSON.
    pub fn answer(&mut self, status: u16, body: Value) -> &mut Self {
        self.answer_with(status, &[], body)
    }

    /// Answers with headers and JSON. Header names are in lower case, as the host hands them over.
    pub fn answer_with(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        mut body: Value,
    ) -> &mut Self {
        let readable = self.needs.as_ref().map_or(&[][..], |needs| &needs.readable);
        self.vault
            .seal_answer(matches!(status, 200..=299), &mut body, readable);
        self.respond(status, headers, body.to_string(), None)
    }

    /// Answers with a body that is no JSON, which the host withholds; `note` is what it says of it: `empty`,
    /// `not_json`.
    pub fn answer_unreadable(&mut self, status: u16, note: &str) -> &mut Self {
        self.respond(status, &[], String::new(), Some(note.into()))
    }

    fn respond(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: String,
        note: Option<String>,
    ) -> &mut Self {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        self.reply(Reply::Response(HttpResponse {
            status,
            headers,
            body: body.into(),
            note,
        }))
    }

    /// Signs; the signature reads `signature` in what is sent.
    pub fn sign(&mut self, signature: &str) -> &mut Self {
        let sealed = self.vault.seal(signature);
        self.reply(Reply::Signed(sealed))
    }

    /// Fails to reach the server before anything was sent.
    pub fn unreachable(&mut self) -> &mut Self {
        self.reply(Reply::Unreached(Reason::new(
            "connect",
            "connection refused",
        )))
    }

    fn reply(&mut self, reply: Reply) -> &mut Self {
        self.replies.push(reply);
        assert!(
            self.replies.len() <= STEPS_MAX,
            "the host stops a flow after {STEPS_MAX} steps"
        );
        self
    }

    /// The tokens obtained.
    ///
    /// # Panics
    ///
    /// Where something else is next, a handle was made up, or an extra member is not among those exposed.
    pub fn done(&self) -> Done {
        let Next::Done(tokens) = self.next() else {
            return self.surprised("tokens");
        };
        if let Ok(needs) = &self.needs {
            for (name, _) in &tokens.extra {
                assert!(
                    needs.exposes.contains(name),
                    "`{name}` is not among the exposed members {needs:?}"
                );
            }
        }
        Done {
            access_token: self.vault.open(&tokens.access_token).to_owned(),
            refresh_token: tokens
                .refresh_token
                .as_ref()
                .map(|token| self.vault.open(token).to_owned()),
            tokens,
        }
    }

    /// How the revocation ended.
    ///
    /// # Panics
    ///
    /// Where something else is next.
    pub fn revoked(&self) -> Revoked {
        match self.next() {
            Next::Revoked(revoked) => revoked,
            _ => self.surprised("the end of the revocation"),
        }
    }

    /// The refusal.
    ///
    /// # Panics
    ///
    /// Where something else is next.
    pub fn refused(&self) -> Refusal {
        match self.next() {
            Next::Refused(refusal) => refusal,
            _ => self.surprised("a refusal"),
        }
    }

    fn surprised<T>(&self, expected: &str) -> T {
        panic!(
            "expected {expected}, but the plugin's next step is {:?}",
            self.next()
        )
    }

    /// Asks twice: a plugin that answers differently is not pure, and the host relies on it.
    fn next(&self) -> Next {
        let (first, second) = (self.ask(), self.ask());
        assert_eq!(
            first, second,
            "the plugin answers the same question differently"
        );
        first
    }

    fn ask(&self) -> Next {
        let replies = self.replies.clone();
        match self.target.clone() {
            Target::Refresh(call) => match Exported::<P>::refresh(call, replies) {
                Ok(Step::Send(request)) => Next::Send(request),
                Ok(Step::Sign(what)) => Next::Sign(what),
                Ok(Step::Done(tokens)) => Next::Done(tokens),
                Err(refusal) => Next::Refused(refusal),
            },
            Target::Revoke(what) => match Exported::<P>::revoke(what, replies) {
                Ok(RevokeStep::Send(request)) => Next::Send(request),
                Ok(RevokeStep::Sign(what)) => Next::Sign(what),
                Ok(RevokeStep::Done) => Next::Revoked(Revoked::Done),
                Ok(RevokeStep::Unsupported) => Next::Revoked(Revoked::Unsupported),
                Err(refusal) => Next::Refused(refusal),
            },
        }
    }
}
