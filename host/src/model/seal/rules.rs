//! What an operator granted to one provider's plugin: destinations, secrets with their places, members it may read and
//! members it may hand on. Parsed once from the settings, then trusted.

use super::allow::{AllowList, BadEntry};
use super::json::{TOKEN_MEMBERS, pointer_of};
use super::write::is_host_owned;
use crate::keys::SigningAlg;
use crate::model::contract::Mistake;
use crate::model::key::ProviderName;
use crate::settings::{ProviderSettings, SecretSettings};

/// The longest name of a secret, an exposed member, a kept value; as the contract has it, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// What one provider's plugin may do.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose rules.
    pub provider: ProviderName,
    /// Where requests may go.
    pub allow: AllowList,
    /// Which secrets there are, and where they may go.
    pub secrets: Vec<SecretRule>,
    /// Members of successful answers that the plugin may read: names at the top, or JSON pointers. The caller takes out
    /// what the plugin does not need.
    pub readable: Vec<String>,
    /// Extra members that callers may get.
    pub expose: Vec<String>,
}

/// Where one secret may go.
#[derive(Clone, Debug)]
pub struct SecretRule {
    /// Its name.
    pub name: String,
    /// To which destinations, itself or signed with it.
    pub to: AllowList,
    /// Into which places.
    pub places: Vec<Place>,
    /// For keys: audiences that a JWT may name.
    pub audiences: Vec<String>,
    /// For keys: their algorithm. A key is never written into a request.
    pub alg: Option<SigningAlg>,
    /// For keys: `kid`.
    pub key_id: Option<String>,
}

/// A place in a request that an operator may grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The `Authorization` header.
    Auth,
    /// Any member of a form, or the one of this name.
    Form(Option<String>),
    /// A JSON body.
    Json,
    /// A text body.
    Text,
    /// The header of this name, in lower case.
    Header(String),
}

// === impl Rules ===

impl Rules {
    /// Reads the grants out of a provider's settings.
    ///
    /// # Errors
    ///
    /// Every mistake, each at its JSON pointer within the provider's table.
    pub fn new(settings: &ProviderSettings) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let allow = allow_list(
            &settings.allow,
            settings.insecure_http,
            "/allow",
            &mut mistakes,
        );
        let mut secrets: Vec<SecretRule> = Vec::with_capacity(settings.secrets.len());
        for secret in &settings.secrets {
            let rule = SecretRule::new(secret, &allow, settings.insecure_http, &mut mistakes);
            if secrets.iter().any(|other| other.name == rule.name) {
                let at = format!("/secrets/{}", rule.name);
                mistakes.push(mistake(at, "named twice", "one entry for each secret"));
            }
            secrets.push(rule);
        }
        for (index, entry) in settings.readable.iter().enumerate() {
            let names_token = TOKEN_MEMBERS
                .iter()
                .any(|(name, _)| pointer_of(entry) == pointer_of(name));
            let whole = entry.is_empty() || entry == "/";
            if names_token || whole {
                mistakes.push(mistake(
                    format!("/readable/{index}"),
                    "tokens and whole answers are never readable",
                    "the name of one member, such as \"expires_at\", or a JSON pointer",
                ));
            }
        }
        for (index, name) in settings.expose.iter().enumerate() {
            if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control)
            {
                mistakes.push(mistake(
                    format!("/expose/{index}"),
                    "no name of a member",
                    "1 to 64 bytes without control characters",
                ));
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            provider: settings.name.clone(),
            allow,
            secrets,
            readable: settings.readable.clone(),
            expose: settings.expose.clone(),
        })
    }

    /// The rule of a secret.
    pub fn secret(&self, name: &str) -> Option<&SecretRule> {
        self.secrets.iter().find(|rule| rule.name == name)
    }
}

// === impl SecretRule ===

impl SecretRule {
    fn new(
        settings: &SecretSettings,
        allow: &AllowList,
        insecure_http: bool,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let at = format!("/secrets/{}", settings.name);
        if !is_name(&settings.name) {
            mistakes.push(mistake(
                at.clone(),
                "no name of a secret",
                "1 to 64 bytes of a-z, 0-9 and _",
            ));
        }
        let to = match &settings.to {
            None => allow.clone(),
            Some(entries) => {
                let to = allow_list(entries, insecure_http, &format!("{at}/to"), mistakes);
                if !entries.is_empty() && to.entries().len() == entries.len() && !to.meets(allow) {
                    mistakes.push(mistake(
                        format!("{at}/to"),
                        "no request can go there: it is not in `allow`",
                        "a destination that the provider's `allow` has, too",
                    ));
                }
                to
            }
        };
        let places = match &settings.places {
            None => Place::defaults(),
            Some(written) => places(written, &at, mistakes),
        };
        let alg = settings
            .alg
            .as_deref()
            .and_then(|name| match SigningAlg::parse(name) {
                Ok(alg) => Some(alg),
                Err(error) => {
                    mistakes.push(mistake(
                        format!("{at}/alg"),
                        "no known algorithm",
                        &error.to_string(),
                    ));
                    None
                }
            });
        if settings.alg.is_none() && (settings.key_id.is_some() || settings.audiences.is_some()) {
            let fix = "alg = \"RS256\" (or ES256, EdDSA, HS256), or leave them out";
            mistakes.push(mistake(
                at,
                "`key_id` and `audiences` belong to signing keys",
                fix,
            ));
        }
        Self {
            name: settings.name.clone(),
            to,
            places,
            audiences: settings
                .audiences
                .clone()
                .unwrap_or_else(|| allow.identifiers()),
            alg,
            key_id: settings.key_id.clone(),
        }
    }
}

// === impl Place ===

impl Place {
    /// From its spelling in `in`; none for what is no place.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => match text {
                "auth" => Some(Self::Auth),
                "form" => Some(Self::Form(None)),
                "json" => Some(Self::Json),
                "text" => Some(Self::Text),
                _ => None,
            },
            Some(("form", name)) if !name.is_empty() => Some(Self::Form(Some(name.to_owned()))),
            Some(("header", name)) => {
                let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
                (!is_host_owned(name.as_str())).then(|| Self::Header(name.as_str().to_owned()))
            }
            _ => None,
        }
    }

    /// Auth and body: where a secret may stand when nothing else is said.
    pub fn defaults() -> Vec<Self> {
        vec![Self::Auth, Self::Form(None), Self::Json, Self::Text]
    }
}

fn allow_list(
    entries: &[String],
    insecure_http: bool,
    at: &str,
    mistakes: &mut Vec<Mistake>,
) -> AllowList {
    AllowList::parse(entries, insecure_http).unwrap_or_else(|bad| {
        mistakes.extend(bad.into_iter().map(
            |BadEntry {
                 index,
                 entry,
                 message,
                 fix,
             }| Mistake {
                at: format!("{at}/{index}"),
                message: format!("{entry:?}: {message}"),
                fix,
            },
        ));
        AllowList::default()
    })
}

fn places(written: &[String], at: &str, mistakes: &mut Vec<Mistake>) -> Vec<Place> {
    let mut parsed = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        match Place::parse(text) {
            Some(place) => parsed.push(place),
            None => mistakes.push(mistake(
                format!("{at}/in/{index}"),
                "no place for a secret",
                "auth, form, form:NAME, json, text or header:NAME (no header that the host owns)",
            )),
        }
    }
    parsed
}

/// 1 to 64 bytes of `a-z`, `0-9`, `_`.
pub(super) fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(letter)
}

fn mistake(at: String, message: &str, fix: &str) -> Mistake {
    Mistake {
        at,
        message: message.to_owned(),
        fix: fix.to_owned(),
    }
}
