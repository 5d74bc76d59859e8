//! From a plugin's last word to a token: every handle opened, every rule about what may leave the flow checked.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Violation;
use super::echo::Class;
use super::rules::is_name;
use super::vault::{Origin, Sealed, Vault};
use super::violation::shown;
use crate::model::contract::{Expiry, ExtraValue, Holds, SealedValue, TokenSet};
use crate::model::key::ScopeSet;
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::token::ObtainedToken;

/// The longest life a token is believed to have; what is stated beyond is cut. Nothing that is refreshed lives longer.
pub const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The longest token, in bytes: servers stop reading headers at 8 to 16 KiB.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// The longest `token_type`, in bytes.
pub const TOKEN_TYPE_MAX_BYTES: usize = 64;

/// The most extra members, and the longest value of one: URLs and identifiers.
pub const EXTRA_MAX: usize = 16;
/// In bytes.
pub const EXTRA_MAX_BYTES: usize = 4 * 1024;

/// The most sealed values kept for the next flow.
pub const HELD_MAX: usize = 8;

/// The most plain values kept for the next flow.
pub const MEMO_MAX: usize = 16;
/// The longest of them, in bytes.
pub const MEMO_MAX_BYTES: usize = 1024;

/// Why an extra member is refused that the operator could grant.
pub(super) const NOT_EXPOSED: &str = "is not in the provider's `expose`";

/// What a flow leaves behind.
#[derive(Clone)]
pub struct Settled {
    /// The token.
    pub token: ObtainedToken,
    /// The grant that the plugin names for the next flow; none when it names none, or the one the flow began with.
    pub refresh_token: Option<Secret<String>>,
    /// Sealed values to keep, by name.
    pub held: Vec<(String, Secret<String>)>,
    /// Plain values to keep, by name.
    pub memo: Vec<(String, String)>,
}

// === impl Settled ===

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)
    }
}

// === impl Vault ===

impl Vault {
    /// Opens a token set. `asked` are the scopes asked for, `sent_at` is just before the request that obtained the token
    /// was sent.
    ///
    /// # Errors
    ///
    /// A [`Violation`] when the set names what this flow did not obtain or what must not leave it;
    /// [`Violation::DeadOnArrival`] when all is well but the token's life is over.
    pub fn settle(
        &self,
        set: &TokenSet,
        asked: &ScopeSet,
        sent_at: UnixTime,
        default_lifetime: Duration,
    ) -> Result<Settled, Violation> {
        let value = self.access_token(&set.access_token)?;
        let refresh_token = match &set.refresh_token {
            Some(handle) => self.refresh_token(handle)?,
            None => None,
        };
        let scopes = match &set.scopes {
            None => asked.clone(),
            Some(scopes) => ScopeSet::parse(scopes.iter().map(String::as_str))
                .map_err(|_| token_set("scopes", "are not scope tokens (RFC 6749, section 3.3)"))?,
        };
        let token_type = self.token_type(&set.token_type)?;
        let extra = self.extra(&set.extra)?;
        let held = self.held(&set.held)?;
        let memo = self.memo(&set.memo)?;
        // Last, so that only a set without any other fault is called dead.
        let expires = expires(set.expires, &value, sent_at, default_lifetime)?;
        let token = ObtainedToken {
            value,
            token_type,
            expires,
            issued: sent_at,
            scopes,
            extra,
        };
        Ok(Settled {
            token,
            refresh_token,
            held,
            memo,
        })
    }

    fn access_token(&self, handle: &SealedValue) -> Result<Secret<String>, Violation> {
        let bad = |why| token_set("access_token", why);
        let sealed = self.open(handle)?;
        if sealed.holds() != Some(Holds::AccessToken) {
            return Err(bad(
                "was not captured as an access token from a successful answer of this flow",
            ));
        }
        let text = sealed.value.expose();
        if self.echo.holds(&[Class::Secret, Class::Grant], text) {
            return Err(Violation::Echo {
                what: "the access token",
            });
        }
        if text.len() > TOKEN_MAX_BYTES {
            return Err(bad("is longer than 16 KiB"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("holds characters that no header can carry"));
        }
        Ok(sealed.value.clone())
    }

    fn refresh_token(&self, handle: &SealedValue) -> Result<Option<Secret<String>>, Violation> {
        let sealed = self.open(handle)?;
        if sealed.origin != Origin::Grant && sealed.holds() != Some(Holds::RefreshToken) {
            return Err(token_set(
                "refresh_token",
                "is neither the grant of this flow nor captured as a refresh token from a successful answer of it",
            ));
        }
        if self.echo.holds(&[Class::Secret], sealed.value.expose()) {
            return Err(Violation::Echo {
                what: "the refresh token",
            });
        }
        let unchanged = self
            .grant
            .as_ref()
            .is_some_and(|grant| grant.same_as(&sealed.value));
        Ok((!unchanged).then(|| sealed.value.clone()))
    }

    fn token_type(&self, text: &str) -> Result<String, Violation> {
        let clean = self.echo.apply(text);
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=TOKEN_TYPE_MAX_BYTES).contains(&clean.len()) && clean.bytes().all(token) {
            Ok(clean.into_owned())
        } else {
            Err(token_set(
                "token_type",
                "is no token of 1 to 64 bytes (RFC 9110, section 5.6.2)",
            ))
        }
    }

    fn extra(
        &self,
        members: &[(String, ExtraValue)],
    ) -> Result<Vec<(String, Secret<String>)>, Violation> {
        if members.len() > EXTRA_MAX {
            return Err(Violation::TooLarge {
                what: "extra members",
                max: EXTRA_MAX,
            });
        }
        let mut extra: Vec<(String, Secret<String>)> = Vec::with_capacity(members.len());
        for (name, value) in members {
            let bad = |why| Violation::Extra {
                name: shown(name),
                why,
            };
            if !self.rules.expose.contains(name) {
                return Err(bad(NOT_EXPOSED));
            }
            if extra.iter().any(|(other, _)| other == name) {
                return Err(bad("is there twice"));
            }
            let value = match value {
                ExtraValue::Text(text) => Secret::new(text.clone()),
                ExtraValue::Sealed(handle) => {
                    let sealed = self.open(handle)?;
                    if !matches!(sealed.holds(), Some(Holds::Other | Holds::AccessToken)) {
                        return Err(bad(
                            "is a grant, an ID token, a signature or from no answer of this flow",
                        ));
                    }
                    sealed.value.clone()
                }
            };
            if value.expose().len() > EXTRA_MAX_BYTES {
                return Err(bad("is longer than 4 KiB"));
            }
            let hidden = [Class::Secret, Class::Grant, Class::Identity];
            if self.echo.holds(&hidden, value.expose()) {
                return Err(Violation::Echo {
                    what: "an extra member",
                });
            }
            extra.push((name.clone(), value));
        }
        Ok(extra)
    }

    fn held(
        &self,
        members: &[(String, SealedValue)],
    ) -> Result<Vec<(String, Secret<String>)>, Violation> {
        check_names("held", members, HELD_MAX)?;
        let mut held = Vec::with_capacity(members.len());
        for (name, handle) in members {
            let sealed = self.open(handle)?;
            self.check_held(sealed)?;
            held.push((name.clone(), sealed.value.clone()));
        }
        Ok(held)
    }

    /// A grant kept beside the grant would be presented without being marked as spent.
    fn check_held(&self, sealed: &Sealed) -> Result<(), Violation> {
        let kept = matches!(sealed.origin, Origin::Held | Origin::Answer(_));
        if !kept {
            return Err(token_set(
                "held",
                "may hold values of successful answers only",
            ));
        }
        if sealed.value.expose().len() > TOKEN_MAX_BYTES {
            return Err(token_set("held", "has a value longer than 16 KiB"));
        }
        if self
            .echo
            .holds(&[Class::Secret, Class::Grant], sealed.value.expose())
        {
            return Err(Violation::Echo {
                what: "a held value",
            });
        }
        Ok(())
    }

    fn memo(&self, members: &[(String, String)]) -> Result<Vec<(String, String)>, Violation> {
        check_names("memo", members, MEMO_MAX)?;
        let long = |(_, text): &&(String, String)| text.len() > MEMO_MAX_BYTES;
        if members.iter().any(|member| long(&member)) {
            return Err(token_set("memo", "has a value longer than 1 KiB"));
        }
        Ok(members
            .iter()
            .map(|(name, text)| (name.clone(), self.echo.apply(text).into_owned()))
            .collect())
    }
}

fn check_names<T>(
    member: &'static str,
    members: &[(String, T)],
    max: usize,
) -> Result<(), Violation> {
    if members.len() > max {
        return Err(Violation::TooLarge { what: member, max });
    }
    let twice = |(at, (name, _)): (usize, &(String, T))| {
        members[..at].iter().any(|(other, _)| other == name)
    };
    if members.iter().any(|(name, _)| !is_name(name)) || members.iter().enumerate().any(twice) {
        return Err(token_set(
            member,
            "needs names of 1 to 64 bytes of a-z, 0-9 and _, each once",
        ));
    }
    Ok(())
}

/// When a token ends, counted from just before it was asked for.
fn expires(
    stated: Expiry,
    token: &Secret<String>,
    sent_at: UnixTime,
    default_lifetime: Duration,
) -> Result<UnixTime, Violation> {
    let end = match stated {
        Expiry::FromAnswer(secs) => sent_at.plus(Duration::from_secs(secs.into())),
        Expiry::At(secs) => UnixTime::from_secs(secs.into()),
        Expiry::Unknown => jwt_expiry(token.expose()).unwrap_or(sent_at.plus(default_lifetime)),
    };
    if end <= sent_at {
        return Err(Violation::DeadOnArrival);
    }
    Ok(end.min(sent_at.plus(LIFETIME_MAX)))
}

/// `exp` of a token that is shaped like a JWT (RFC 7519, section 4.1.4). Not verified: it comes from whoever issued the
/// token, and says no more than `expires_in` would.
fn jwt_expiry(token: &str) -> Option<UnixTime> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&claims).ok()?;
    let secs = claims.get("exp")?.as_f64().filter(|secs| *secs >= 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative; saturates"
    )]
    let secs = secs as u64;
    Some(UnixTime::from_secs(secs))
}

fn token_set(member: &'static str, why: &'static str) -> Violation {
    Violation::TokenSet { member, why }
}
