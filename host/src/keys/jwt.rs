//! JSON Web Signatures in compact form (RFC 7515) over claims a plugin wrote: what is checked here is what is signed.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::{HS256_JWT_KEY_MIN_BYTES, KeyError, Material, SigningAlg, SigningKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;

/// The largest header, in bytes: a certificate chain in `x5c` fits.
pub const JWT_HEADER_MAX_BYTES: usize = 4 * 1024;

/// The largest claims, in bytes: far above any assertion, far below what a server reads.
pub const JWT_CLAIMS_MAX_BYTES: usize = 16 * 1024;

/// How far ahead `exp` may lie: the longest that authorization servers accept for assertions.
pub const JWT_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);

/// How much of an audience that is not granted is shown.
const AUDIENCE_SHOWN_MAX_CHARS: usize = 256;

/// Header parameters that let a signature be read with another key or in another way (RFC 7515, section 4.1; RFC 7797).
const REFUSED_PARAMETERS: [&str; 5] = ["crit", "jwk", "jku", "x5u", "b64"];

/// Reads base64url whose last digit holds stray bits, as lenient verifiers do.
const LENIENT_BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Why a JWT was not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtFault {
    /// The header or the claims are too large or no JSON object.
    NotAnObject(&'static str),
    /// A header parameter is not the plugin's to set.
    Parameter(String),
    /// `exp` is missing, no number, past, or too far ahead.
    Expiry(&'static str),
    /// An audience is not granted to the key.
    Audience(String),
    /// `aud` is neither a string nor an array of strings.
    AudienceShape,
    /// The key cannot do it.
    Key(KeyError),
}

// === impl SigningKey ===

impl SigningKey {
    /// Signs `claims` under `header`, both JSON objects; `audiences` are those granted to the key.
    ///
    /// `alg` and `kid` are the key's; `typ` is `JWT` unless the header says otherwise. Both objects are written anew
    /// from what was checked, so that no duplicate member means one thing here and another at the verifier.
    ///
    /// # Errors
    ///
    /// [`JwtFault`] when header or claims ask for what is not granted.
    pub fn sign_jwt(
        &self,
        header: &str,
        claims: &str,
        audiences: &[String],
        now: UnixTime,
    ) -> Result<Secret<String>, JwtFault> {
        if matches!(self.material, Material::Hmac { key_bytes, .. } if key_bytes < HS256_JWT_KEY_MIN_BYTES)
        {
            return Err(JwtFault::Key(KeyError::TooShort {
                alg: SigningAlg::Hs256,
            }));
        }
        let header = self.header(object(header, "header", JWT_HEADER_MAX_BYTES)?)?;
        let claims = object(claims, "claims", JWT_CLAIMS_MAX_BYTES)?;
        check_expiry(&claims, now)?;
        check_audience(&claims, audiences)?;

        let mut token = URL_SAFE_NO_PAD.encode(Value::Object(header).to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string()));
        let signature = self.sign(token.as_bytes()).map_err(JwtFault::Key)?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(&*signature));
        Ok(Secret::new(token))
    }

    fn header(&self, mut header: Map<String, Value>) -> Result<Map<String, Value>, JwtFault> {
        if let Some(refused) = REFUSED_PARAMETERS
            .iter()
            .find(|name| header.contains_key(**name))
        {
            return Err(JwtFault::Parameter((*refused).to_owned()));
        }
        let own = [
            ("alg", Some(self.alg().name())),
            ("kid", self.key_id.as_deref()),
        ];
        for (name, value) in own {
            let value = value.map(Value::from);
            if header
                .get(name)
                .is_some_and(|written| Some(written) != value.as_ref())
            {
                return Err(JwtFault::Parameter(name.to_owned()));
            }
            header.extend(value.map(|value| (name.to_owned(), value)));
        }
        header.entry("typ").or_insert_with(|| "JWT".into());
        Ok(header)
    }
}

/// Whether bytes to be signed would make a JWT of the plugin's own: their first part reads as a JWS header.
///
/// Judged as the most lenient verifier would read it: spaces, padding and the other alphabet do not hide a header.
/// Without this check a signature over plain bytes is a JWT with any audience and any lifetime.
pub(crate) fn reads_as_jws(payload: &str) -> bool {
    let Some((header, _)) = payload.split_once('.') else {
        return false;
    };
    let digits: String = header
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '=')
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            c => c,
        })
        .collect();
    LENIENT_BASE64URL
        .decode(digits)
        .is_ok_and(|json| json.trim_ascii_start().starts_with(b"{"))
}

fn object(text: &str, what: &'static str, max: usize) -> Result<Map<String, Value>, JwtFault> {
    if text.len() > max {
        return Err(JwtFault::NotAnObject(what));
    }
    serde_json::from_str(text).map_err(|_| JwtFault::NotAnObject(what))
}

fn check_expiry(claims: &Map<String, Value>, now: UnixTime) -> Result<(), JwtFault> {
    let expires = claims
        .get("exp")
        .and_then(Value::as_u64)
        .map(UnixTime::from_secs)
        .ok_or(JwtFault::Expiry("is required, in whole seconds since 1970"))?;
    if expires <= now {
        return Err(JwtFault::Expiry("is past"));
    }
    if expires > now.plus(JWT_LIFETIME_MAX) {
        return Err(JwtFault::Expiry("is more than an hour ahead"));
    }
    Ok(())
}

fn check_audience(claims: &Map<String, Value>, granted: &[String]) -> Result<(), JwtFault> {
    let named: Vec<&str> = match claims.get("aud") {
        None => return Ok(()),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many
            .iter()
            .map(|one| one.as_str().ok_or(JwtFault::AudienceShape))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(JwtFault::AudienceShape),
    };
    let bare = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
    match named
        .into_iter()
        .find(|aud| !granted.iter().any(|one| bare(one) == bare(aud)))
    {
        Some(aud) => Err(JwtFault::Audience(
            aud.chars().take(AUDIENCE_SHOWN_MAX_CHARS).collect(),
        )),
        None => Ok(()),
    }
}

// === impl JwtFault ===

impl fmt::Display for JwtFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject(what) => {
                write!(f, "the {what} must be one JSON object within its limit")
            }
            Self::Parameter(name) => write!(
                f,
                "the header parameter `{name}` is not the plugin's to set"
            ),
            Self::Expiry(why) => write!(f, "`exp` {why}"),
            Self::Audience(aud) => write!(f, "the audience {aud:?} is not granted to the key"),
            Self::AudienceShape => f.write_str("`aud` must be a string or an array of strings"),
            Self::Key(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JwtFault {}
