//! What a plugin did that is not granted or not in the contract, in words for an operator and with the line to write.

use std::fmt;

use super::rules::Place;
use crate::keys::{JwtFault, KeyError};
use crate::model::key::ProviderName;

/// How much of a name that a plugin wrote is shown.
const SHOWN_MAX_CHARS: usize = 64;

/// A broken rule. Holds no value that was ever sealed; names a plugin wrote are cut and made printable, and the flow
/// passes the words through [`Vault::filter`](super::Vault::filter) like everything else a plugin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A URL is not in normal form.
    BadUrl {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URL is not in the provider's `allow`.
    Destination {
        /// Which one.
        url: String,
    },
    /// A method is none of the five.
    Method,
    /// A query parameter, header, form member or credential cannot be written.
    Field {
        /// `query`, `header`, `form` or `auth`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something is larger than its bound.
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A secret that this provider does not have.
    UnknownSecret {
        /// Its name.
        secret: String,
    },
    /// A signing key was to be written into a request.
    KeyAsValue {
        /// Its name.
        secret: String,
    },
    /// A secret without `alg` was to sign.
    NotAKey {
        /// Its name.
        secret: String,
    },
    /// A secret, or a signature by it, stands where it was not granted.
    SecretPlace {
        /// Its name.
        secret: String,
        /// Where.
        place: String,
    },
    /// A secret, or a signature by it, goes where it was not granted.
    SecretDestination {
        /// Its name.
        secret: String,
        /// Where to.
        url: String,
    },
    /// A handle of another flow, or of none.
    UnknownHandle,
    /// A sealed value stands where none may.
    SealedPlace {
        /// Where.
        place: String,
    },
    /// A value holds a secret or a grant that an answer or the plugin repeated.
    Echo {
        /// What holds it.
        what: &'static str,
    },
    /// A JSON body is not one document, or a value stands inside a quoted string.
    JsonBody {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A capture is no JSON pointer or name.
    Capture {
        /// Which.
        at: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An answer names a member twice beside a token, so that two readers could read two tokens.
    DuplicateMember {
        /// Which.
        member: String,
    },
    /// A secret with `alg` does not hold a key of that kind.
    Key {
        /// Its name.
        secret: String,
        /// Why not.
        error: KeyError,
    },
    /// A JWT asks for what its key does not grant.
    Jwt {
        /// The key's name.
        secret: String,
        /// What.
        fault: JwtFault,
    },
    /// Bytes to be signed read as a JWT.
    JwtAsBytes {
        /// The key's name.
        secret: String,
    },
    /// A member of the token set is not what it must be.
    TokenSet {
        /// Which: `access_token`, `token_type`, `scopes`, `refresh_token`, `held`, `memo`.
        member: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// An extra member is not exposed, or may not be.
    Extra {
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// The token had ended when it arrived.
    DeadOnArrival,
}

// === impl Violation ===

impl Violation {
    /// A closed label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "bad_url",
            Self::Destination { .. } => "destination_not_granted",
            Self::Method => "bad_method",
            Self::Field { .. } => "bad_field",
            Self::TooLarge { .. } => "too_large",
            Self::UnknownSecret { .. } => "unknown_secret",
            Self::KeyAsValue { .. } => "key_as_value",
            Self::NotAKey { .. } => "not_a_key",
            Self::SecretPlace { .. } => "secret_place_not_granted",
            Self::SecretDestination { .. } => "secret_destination_not_granted",
            Self::UnknownHandle => "unknown_handle",
            Self::SealedPlace { .. } => "sealed_place",
            Self::Echo { .. } => "echo",
            Self::JsonBody { .. } => "bad_json_body",
            Self::Capture { .. } => "bad_capture",
            Self::DuplicateMember { .. } => "duplicate_member",
            Self::Key { .. } => "bad_key",
            Self::Jwt { .. } => "bad_jwt",
            Self::JwtAsBytes { .. } => "jwt_as_bytes",
            Self::TokenSet { .. } => "bad_token_set",
            Self::Extra { .. } => "bad_extra",
            Self::DeadOnArrival => "dead_on_arrival",
        }
    }

    /// The line an operator would write to grant it, where granting is the remedy.
    pub fn fix(&self, provider: &ProviderName) -> Option<String> {
        let secret_line =
            |secret: &str, line: String| format!("[providers.{provider}] secrets.{secret}: {line}");
        match self {
            Self::Destination { url } => Some(format!("[providers.{provider}] allow += [{url:?}]")),
            Self::UnknownSecret { secret } => {
                Some(secret_line(secret, "{ env = \"…\" }".to_owned()))
            }
            Self::NotAKey { secret } => Some(secret_line(secret, "alg = \"RS256\"".to_owned())),
            Self::SecretPlace { secret, place } if Place::parse(place).is_some() => {
                Some(secret_line(secret, format!("in += [{place:?}]")))
            }
            Self::SecretDestination { secret, url } => {
                Some(secret_line(secret, format!("to += [{url:?}]")))
            }
            Self::Jwt {
                secret,
                fault: JwtFault::Audience(aud),
            } => Some(secret_line(secret, format!("audiences += [{aud:?}]"))),
            Self::Extra {
                name,
                why: super::settle::NOT_EXPOSED,
            } => Some(format!("[providers.{provider}] expose += [{name:?}]")),
            _ => None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl { why } => write!(f, "the plugin's URL was refused: {why}"),
            Self::Destination { url } => write!(f, "{url} is not in the provider's `allow`"),
            Self::Method => f.write_str("the method must be GET, POST, PUT, PATCH or DELETE"),
            Self::Field { what, name, why } => write!(f, "{what} {name:?} {why}"),
            Self::TooLarge { what, max } => write!(f, "{what} beyond the bound of {max}"),
            Self::UnknownSecret { secret } => {
                write!(f, "there is no secret {secret:?} in this provider")
            }
            Self::KeyAsValue { secret } => {
                write!(
                    f,
                    "{secret:?} is a signing key and is never written into a request"
                )
            }
            Self::NotAKey { secret } => write!(f, "{secret:?} has no `alg` and cannot sign"),
            Self::SecretPlace { secret, place } => {
                write!(f, "{secret:?} is not granted in {place:?}")
            }
            Self::SecretDestination { secret, url } => {
                write!(f, "{secret:?} is not granted to {url}")
            }
            Self::UnknownHandle => f.write_str("a handle does not belong to this flow"),
            Self::SealedPlace { place } => write!(f, "a sealed value may not stand in {place:?}"),
            Self::Echo { what } => write!(
                f,
                "{what} holds a secret or a grant (if that is a coincidence, the secret is too short)"
            ),
            Self::JsonBody { why } => write!(f, "the JSON body {why}"),
            Self::Capture { at, why } => write!(f, "the capture {at:?} {why}"),
            Self::DuplicateMember { member } => {
                write!(
                    f,
                    "the answer has the member {member:?} twice beside a token"
                )
            }
            Self::Key { secret, error } => write!(f, "the secret {secret:?} is no key: {error}"),
            Self::Jwt { secret, fault } => write!(f, "no JWT was signed with {secret:?}: {fault}"),
            Self::JwtAsBytes { secret } => {
                write!(
                    f,
                    "bytes for {secret:?} read as a JWT: ask for a JWT instead, so that its claims are checked"
                )
            }
            Self::TokenSet { member, why } => write!(f, "`{member}` {why}"),
            Self::Extra { name, why } => write!(f, "the extra member {name:?} {why}"),
            Self::DeadOnArrival => f.write_str("the token had no life left when it arrived"),
        }
    }
}

impl std::error::Error for Violation {}

/// A name that a plugin wrote, fit to be shown.
pub(super) fn shown(name: &str) -> String {
    name.chars()
        .take(SHOWN_MAX_CHARS)
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect()
}
