//! What was issued and what is still good: access tokens, refresh tokens and their families.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::client::{Client, RefreshRotation};
use crate::model::time::UnixTime;
use crate::testing::canary::Canary;

/// Access tokens remembered before the expired ones are forgotten.
const TOKENS_MAX: usize = 50_000;
/// Random bytes of a token; as hexadecimal twice as many characters, which no text holds by chance.
const TOKEN_BYTES: usize = 24;

/// Everything the issuer issued.
pub(super) struct Book {
    tokens: HashMap<String, Issued>,
    refresh_tokens: HashMap<String, RefreshToken>,
    dead_families: HashSet<u64>,
    last_id: u64,
    /// `jti`s of assertions.
    pub(super) spent_assertions: HashSet<String>,
    canary: Canary,
}

/// An access token.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) client: String,
    pub(super) subject: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) expires: UnixTime,
    /// The family of the grant it was issued for, and the refresh token that came with it.
    family: Option<u64>,
    beside: Option<u64>,
}

struct RefreshToken {
    id: u64,
    client: String,
    subject: String,
    scopes: Vec<String>,
    family: u64,
    spent: Option<UnixTime>,
}

/// What a refresh led to.
pub(super) struct Refreshed {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) scopes: Vec<String>,
}

/// Why a refresh was refused.
pub(super) enum RefreshRefusal {
    Error(&'static str),
    Replayed,
}

// === impl Book ===

impl Book {
    pub(super) fn new(canary: Canary) -> Self {
        Self {
            tokens: HashMap::new(),
            refresh_tokens: HashMap::new(),
            dead_families: HashSet::new(),
            last_id: 0,
            spent_assertions: HashSet::new(),
            canary,
        }
    }

    pub(super) fn issue(
        &mut self,
        client: &Client,
        subject: Option<String>,
        scopes: &[String],
        life: Duration,
        now: UnixTime,
    ) -> String {
        let token = Issued {
            client: client.id.clone(),
            subject,
            scopes: scopes.to_vec(),
            expires: now.plus(life),
            family: None,
            beside: None,
        };
        self.add_token(token, now)
    }

    fn add_token(&mut self, issued: Issued, now: UnixTime) -> String {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, token| token.expires > now);
        }
        let token = self.random("at");
        self.tokens.insert(token.clone(), issued);
        token
    }

    /// Hands out a refresh token as an authorization code flow would have: the first of a new family.
    pub(super) fn issue_refresh_token(&mut self, client: &Client, subject: &str) -> String {
        let family = self.next_id();
        self.add_refresh_token(client, subject.to_owned(), client.scopes.clone(), family)
    }

    fn add_refresh_token(
        &mut self,
        client: &Client,
        subject: String,
        scopes: Vec<String>,
        family: u64,
    ) -> String {
        let token = self.random("rt");
        let id = self.next_id();
        let client = client.id.clone();
        self.refresh_tokens.insert(
            token.clone(),
            RefreshToken {
                id,
                client,
                subject,
                scopes,
                family,
                spent: None,
            },
        );
        token
    }

    /// Which one it is, for the ledger.
    pub(super) fn refresh_token_id(&self, token: &str) -> Option<u64> {
        self.refresh_tokens.get(token).map(|token| token.id)
    }

    /// All of them, in no order.
    pub(super) fn refresh_tokens(&self) -> impl Iterator<Item = &str> {
        self.refresh_tokens.keys().map(String::as_str)
    }

    /// Which refresh token was issued beside an access token, however long ago that ended.
    pub(super) fn beside(&self, access_token: &str) -> Option<u64> {
        self.tokens.get(access_token)?.beside
    }

    pub(super) fn refresh(
        &mut self,
        client: &Client,
        token: &str,
        asked: Option<Vec<String>>,
        life: Duration,
        now: UnixTime,
    ) -> Result<Refreshed, RefreshRefusal> {
        let gone = RefreshRefusal::Error("invalid_grant");
        let Some(held) = self.refresh_tokens.get_mut(token) else {
            return Err(gone);
        };
        if held.client != client.id || self.dead_families.contains(&held.family) {
            return Err(gone);
        }
        let scopes = asked.unwrap_or_else(|| held.scopes.clone());
        if scopes.iter().any(|scope| !held.scopes.contains(scope)) {
            return Err(RefreshRefusal::Error("invalid_scope"));
        }
        let (family, subject, granted) = (held.family, held.subject.clone(), held.scopes.clone());
        let replaced = match (client.rotation, held.spent) {
            (RefreshRotation::Never, _) => false,
            (_, None) => {
                held.spent = Some(now);
                true
            }
            (RefreshRotation::Grace(span), Some(spent)) if now.since(spent) <= span => true,
            (_, Some(_)) => {
                self.dead_families.insert(family);
                return Err(RefreshRefusal::Replayed);
            }
        };
        let refresh_token =
            replaced.then(|| self.add_refresh_token(client, subject.clone(), granted, family));
        let beside = refresh_token
            .as_deref()
            .and_then(|token| self.refresh_token_id(token));
        let token = Issued {
            client: client.id.clone(),
            subject: Some(subject),
            scopes: scopes.clone(),
            expires: now.plus(life),
            family: Some(family),
            beside,
        };
        let access_token = self.add_token(token, now);
        Ok(Refreshed {
            access_token,
            refresh_token,
            scopes,
        })
    }

    /// The token, if it is good now.
    pub(super) fn active(&self, token: &str, now: UnixTime) -> Option<&Issued> {
        let dead = |token: &Issued| {
            token
                .family
                .is_some_and(|f| self.dead_families.contains(&f))
        };
        self.tokens
            .get(token)
            .filter(|token| token.expires > now && !dead(token))
    }

    /// Whether a refresh token would be taken once more.
    pub(super) fn refresh_token_active(&self, token: &str) -> bool {
        self.refresh_tokens
            .get(token)
            .is_some_and(|held| held.spent.is_none() && !self.dead_families.contains(&held.family))
    }

    /// Ends an access token, or a refresh token with everything that came of it (RFC 7009, section 2.1).
    pub(super) fn revoke(&mut self, token: &str, client: Option<&str>) {
        let ours = |owner: &str| client.is_none_or(|client| client == owner);
        if self
            .tokens
            .get(token)
            .is_some_and(|held| ours(&held.client))
        {
            self.tokens.remove(token);
        }
        if let Some(held) = self
            .refresh_tokens
            .get(token)
            .filter(|held| ours(&held.client))
        {
            self.dead_families.insert(held.family);
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn random(&self, kind: &str) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
        let token = bytes.iter().fold(format!("{kind}-"), |text, byte| {
            text + &format!("{byte:02x}")
        });
        self.canary.add(&token);
        token
    }
}
