//! The two authorization servers behind one face: what a grant's number is, what was presented, what came with a token.

use std::time::Duration;

use anyhow::Context as _;
use keyfob::testing::Canary;
use keyfob::testing::issuer::{
    Behaviour, Client, ClientAuth, Issuer, IssuerConfig, Moments, Outcome, RefreshRotation,
};
use tokio::sync::watch;

use super::oracle::{Answered, Presentation};
use crate::oidc::{OidcProvider, random_secret};

/// Short, so that grants rotate all the time; the least that a whole number of seconds allows.
const TOKEN_LIFE_SECS: u32 = 1;
/// How long the strict issuer takes a replaced grant of the provider with grace.
const GRACE: Duration = Duration::from_secs(60);
/// What Keyfob is told of it: less, by the longest that a request can be under way.
const GRACE_TOLD: &str = "50s";
/// For one refresh. Far above what one takes here, so that a refresh ends otherwise only by a kill.
const REFRESH_TIMEOUT: &str = "2s";
/// How long an answer is held back in which a kill is to fall.
const HELD_BACK: Duration = Duration::from_millis(60);

/// Which authorization server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kit's, with all three kinds of rotation.
    Strict,
    /// npm's, which knows single-use grants only.
    OidcProvider,
}

/// What a provider's configuration says of its grants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Declared {
    SingleUse,
    Grace,
    Unknown,
}

pub(super) enum Upstream {
    Strict {
        issuer: Box<Issuer>,
        secret: String,
    },
    Certified {
        server: Box<OidcProvider>,
        moments: watch::Receiver<Moments>,
    },
}

// === impl Declared ===

impl Declared {
    /// The provider's name, and its client's.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::SingleUse => "single_use",
            Self::Grace => "grace",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Upstream ===

impl Upstream {
    pub(super) async fn start(kind: Kind) -> anyhow::Result<Self> {
        match kind {
            Kind::Strict => {
                let secret = random_secret()?;
                let client = |declared: Declared, rotation| {
                    let auth = ClientAuth::Basic(secret.clone());
                    Client::new(declared.label(), auth).rotation(rotation)
                };
                let issuer = Issuer::start(IssuerConfig {
                    clients: vec![
                        client(Declared::SingleUse, RefreshRotation::SingleUse),
                        client(Declared::Grace, RefreshRotation::Grace(GRACE)),
                        client(Declared::Unknown, RefreshRotation::SingleUse),
                    ],
                    lifetime: Duration::from_secs(TOKEN_LIFE_SECS.into()),
                    ..IssuerConfig::default()
                })?;
                Ok(Self::Strict {
                    issuer: Box::new(issuer),
                    secret,
                })
            }
            Kind::OidcProvider => {
                let server = OidcProvider::start(TOKEN_LIFE_SECS).await?;
                let moments = server.moments().await?;
                Ok(Self::Certified {
                    server: Box::new(server),
                    moments,
                })
            }
        }
    }

    /// Which kinds of providers it can play.
    pub(super) fn plays(&self) -> &'static [Declared] {
        match self {
            Self::Strict { .. } => &[Declared::SingleUse, Declared::Grace, Declared::Unknown],
            Self::Certified { .. } => &[Declared::SingleUse, Declared::Unknown],
        }
    }

    /// The provider of this kind in the configuration.
    pub(super) fn config(&self, declared: Declared) -> String {
        let name = declared.label();
        let (token_url, client, scopes, more) = match self {
            Self::Strict { issuer, .. } => (
                issuer.token_url().to_owned(),
                name,
                "read",
                "insecure_http = true".to_owned(),
            ),
            Self::Certified { server, .. } => {
                let ca = server.pki().ca.display();
                let more = format!(
                    "tls = {{ ca = \"{ca}\" }}\nallow_addresses = [\"127.0.0.1\", \"::1\"]"
                );
                (server.token_url(), "web", "api:read", more)
            }
        };
        let grace = match declared {
            Declared::Grace => format!(", grace = {GRACE_TOLD:?}"),
            Declared::SingleUse | Declared::Unknown => String::new(),
        };
        format!(
            r#"
            [providers.{name}]
            plugin = "builtin:oauth2"
            allow = ["{token_url}"]
            settings = {{ token_url = "{token_url}", client_id = "{client}", grant = "refresh_token" }}
            secrets = {{ client_secret = {{ env = "CLIENT_SECRET" }} }}
            scopes = ["{scopes}"]
            refresh = {{ rotation = "{name}", timeout = "{REFRESH_TIMEOUT}"{grace} }}
            {more}
            "#
        )
    }

    pub(super) fn client_secret(&self) -> &str {
        match self {
            Self::Strict { secret, .. } => secret,
            Self::Certified { server, .. } => &server.web_secret,
        }
    }

    pub(super) fn canary(&self) -> &Canary {
        match self {
            Self::Strict { issuer, .. } => issuer.canary(),
            Self::Certified { server, .. } => server.canary(),
        }
    }

    /// A new grant and its number.
    pub(super) async fn mint(
        &self,
        declared: Declared,
        subject: &str,
    ) -> anyhow::Result<(String, String)> {
        match self {
            Self::Strict { issuer, .. } => {
                let grant = issuer.issue_refresh_token(declared.label(), subject);
                let grant = grant.context("the issuer knows its clients")?;
                let number = issuer.number_of(&grant).context("just issued")?;
                Ok((grant, number.to_string()))
            }
            Self::Certified { server, .. } => server.mint_numbered(subject).await,
        }
    }

    /// What was presented, oldest first, without so many that are known already.
    pub(super) async fn news(&self, known: usize) -> anyhow::Result<Vec<Presentation>> {
        match self {
            Self::Strict { issuer, .. } => {
                let entries = issuer.ledger().entries_from(known as u64);
                let text = |number: Option<u64>| number.map(|number| number.to_string());
                let presentation = |entry: keyfob::testing::issuer::Entry| Presentation {
                    presented: text(entry.presented),
                    brought: text(entry.brought),
                    answered: match entry.outcome {
                        Outcome::Granted => Answered::Granted,
                        Outcome::Replayed => Answered::Replayed,
                        Outcome::Refused(code) => Answered::Refused(code),
                        Outcome::Unprocessed => Answered::Refused("unprocessed".to_owned()),
                    },
                    read_at: entry.left.map(|at| at.as_millis()),
                };
                Ok(entries.into_iter().map(presentation).collect())
            }
            Self::Certified { server, .. } => {
                let requests = server.requests().await?.into_iter().skip(known);
                let presentation = |request: crate::oidc::TokenRequest| Presentation {
                    presented: request.presented,
                    brought: request.brought,
                    answered: match request.error {
                        None => Answered::Granted,
                        Some(_) if request.replayed => Answered::Replayed,
                        Some(code) => Answered::Refused(code),
                    },
                    read_at: request.left,
                };
                Ok(requests.map(presentation).collect())
            }
        }
    }

    /// How many presentations there were.
    pub(super) async fn seen(&self) -> anyhow::Result<usize> {
        match self {
            Self::Strict { issuer, .. } => Ok(usize::try_from(issuer.ledger().count())?),
            Self::Certified { server, .. } => Ok(server.requests().await?.len()),
        }
    }

    /// The numbers of the grants that were issued beside these access tokens.
    pub(super) async fn beside(&self, tokens: &[String]) -> anyhow::Result<Vec<Option<String>>> {
        match self {
            Self::Strict { issuer, .. } => {
                let number = |token: &String| issuer.number_of(token).map(|it| it.to_string());
                Ok(tokens.iter().map(number).collect())
            }
            Self::Certified { server, .. } => server.beside(tokens).await,
        }
    }

    /// How far requests came, as it goes on.
    pub(super) fn moments(&self) -> watch::Receiver<Moments> {
        match self {
            Self::Strict { issuer, .. } => issuer.ledger().moments(),
            Self::Certified { moments, .. } => moments.clone(),
        }
    }

    /// Holds one answer back, after so many others. The certified server is as fast as it is.
    pub(super) fn hold_back(&self, after: u64) {
        if let Self::Strict { issuer, .. } = self {
            issuer.behave_next(usize::try_from(after).unwrap_or(0), Behaviour::Normal);
            issuer.behave_next(1, Behaviour::Latency(HELD_BACK));
        }
    }

    /// Holds nothing back any more.
    pub(super) fn behave(&self) {
        if let Self::Strict { issuer, .. } = self {
            issuer.behave(Behaviour::Normal);
        }
    }

    /// Every grant and whether it would be taken. The certified server does not tell.
    pub(super) fn grants(&self) -> Vec<(String, bool)> {
        match self {
            Self::Strict { issuer, .. } => issuer.refresh_tokens(),
            Self::Certified { .. } => Vec::new(),
        }
    }

    /// Learns every secret there is to search for.
    pub(super) async fn note_issued(&self) -> anyhow::Result<()> {
        match self {
            Self::Strict { .. } => Ok(()),
            Self::Certified { server, .. } => server.note_issued().await,
        }
    }
}
