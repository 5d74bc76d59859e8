//! Where in a request a value stands, and whether it may: the grants of secrets, and what sealed values may do without
//! any.

use url::Url;

use super::Violation;
use super::echo::Class;
use super::rules::{Place, SecretRule};
use super::vault::{Origin, Vault};
use super::violation::shown;
use crate::model::contract::SealedValue;
use crate::model::secret::Secret;

/// Where in a request a value stands.
#[derive(Clone, Copy)]
pub(super) enum Spot<'a> {
    Auth,
    Form(&'a str),
    Json,
    Text,
    Header(&'a str),
    Query(&'a str),
    Signed,
}

// === impl Vault ===

impl Vault {
    /// The value of a secret at a spot.
    pub(super) fn secret_at(
        &self,
        name: &str,
        spot: Spot<'_>,
        url: &Url,
    ) -> Result<&Secret<String>, Violation> {
        let rule = self.rules.secret(name).ok_or_else(|| unknown(name))?;
        if rule.alg.is_some() {
            return Err(Violation::KeyAsValue {
                secret: rule.name.clone(),
            });
        }
        rule.check(spot, Some(url))?;
        self.secret(name).ok_or_else(|| unknown(name))
    }

    /// The value of a handle at a spot; whether it carries a grant.
    pub(super) fn sealed_at(
        &self,
        handle: &SealedValue,
        spot: Spot<'_>,
        url: Option<&Url>,
    ) -> Result<(&Secret<String>, bool), Violation> {
        let sealed = self.open(handle)?;
        if let Origin::Signature(key) = &sealed.origin {
            // A signature goes where its key may go: a JWT without audience is good wherever it is believed.
            let rule = self.rules.secret(key).ok_or_else(|| unknown(key))?;
            rule.check(spot, url)?;
            return Ok((&sealed.value, sealed.of_grant));
        }
        let text = sealed.value.expose();
        let from_answer = matches!(sealed.origin, Origin::Answer(_) | Origin::ErrorAnswer);
        if from_answer && self.echo.holds(&[Class::Secret], text) {
            return Err(Violation::Echo {
                what: "a value of an answer",
            });
        }
        let of_grant = sealed.of_grant || self.echo.holds(&[Class::Grant], text);
        let granted = match spot {
            Spot::Auth | Spot::Form(_) | Spot::Json | Spot::Text | Spot::Signed => true,
            Spot::Header(_) => !of_grant,
            Spot::Query(_) => false,
        };
        if granted {
            Ok((&sealed.value, of_grant))
        } else {
            Err(Violation::SealedPlace {
                place: spot.place(),
            })
        }
    }
}

// === impl SecretRule ===

impl SecretRule {
    /// Whether the secret, or a signature by it, may stand there. A signature over a signature goes nowhere by itself.
    fn check(&self, spot: Spot<'_>, url: Option<&Url>) -> Result<(), Violation> {
        let granted = match spot {
            Spot::Signed => self.alg.is_some(),
            _ => self.places.iter().any(|place| spot.is_in(place)),
        };
        if !granted {
            return Err(Violation::SecretPlace {
                secret: self.name.clone(),
                place: spot.place(),
            });
        }
        match url {
            Some(url) if !self.to.admits(url) => Err(Violation::SecretDestination {
                secret: self.name.clone(),
                url: url.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

// === impl Spot ===

impl Spot<'_> {
    fn is_in(self, place: &Place) -> bool {
        match (self, place) {
            (Self::Auth, Place::Auth)
            | (Self::Form(_), Place::Form(None))
            | (Self::Json, Place::Json)
            | (Self::Text, Place::Text) => true,
            (Self::Form(name), Place::Form(Some(granted))) => name == granted,
            (Self::Header(name), Place::Header(granted)) => name.eq_ignore_ascii_case(granted),
            _ => false,
        }
    }

    /// As `in` spells it.
    pub(super) fn place(self) -> String {
        match self {
            Self::Auth => "auth".to_owned(),
            Self::Form(name) => format!("form:{}", shown(name)),
            Self::Json => "json".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Header(name) => format!("header:{}", shown(&name.to_ascii_lowercase())),
            Self::Query(name) => format!("query:{}", shown(name)),
            Self::Signed => "signed bytes".to_owned(),
        }
    }
}

pub(super) fn unknown(secret: &str) -> Violation {
    Violation::UnknownSecret {
        secret: shown(secret),
    }
}
