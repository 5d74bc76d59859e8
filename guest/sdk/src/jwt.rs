//! JWT assertions: the claims of RFC 7523, section 3. The host signs; the key never leaves it.

use serde_json::{Map, Value, json};

use crate::bindings::provider::types::{JwtRequest, SecretRef, SignRequest};

/// Long enough for a slow network and some clock skew, short enough that a stolen assertion is worth little.
const LIFETIME_SECONDS: u32 = 5 * 60;

/// Entropy that goes into a `jti`: 128 bits.
const JTI_BYTES: usize = 16;

/// A JWT to be signed; begun with [`Flow::assertion`](crate::Flow::assertion), given to
/// [`Flow::sign`](crate::Flow::sign).
#[derive(Clone, Debug)]
pub struct Assertion {
    key: String,
    now: u32,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Assertion {
    /// `step` keeps two assertions of one flow apart; a replay of the same flow makes the same ones.
    pub(crate) fn new(key: String, now: u32, entropy: &[u8], step: usize) -> Self {
        let mut jti = hex(&entropy[..entropy.len().min(JTI_BYTES)]);
        jti.push('-');
        jti.push_str(&step.to_string());
        let header = Map::from_iter([("typ".into(), "JWT".into())]);
        let claims = Map::from_iter([("iat".into(), now.into()), ("jti".into(), jti.into())]);
        Self {
            key,
            now,
            header,
            claims,
        }
        .lifetime(LIFETIME_SECONDS)
    }

    /// Sets `iss`.
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", issuer)
    }

    /// Sets `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Sets `aud`; the operator grants the key to that audience.
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Sets `exp`, counted from the beginning of the flow. The host allows one hour.
    pub fn lifetime(self, seconds: u32) -> Self {
        let end = self.now.saturating_add(seconds);
        self.claim("exp", end)
    }

    /// Sets `iat` that many seconds early, for servers whose clock runs behind.
    pub fn backdated(self, seconds: u32) -> Self {
        let issued = self.now.saturating_sub(seconds);
        self.claim("iat", issued)
    }

    /// Sets any claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Leaves a claim out.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a header parameter; `alg` and `kid` are the host's.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.into(), value.into());
        self
    }
}

impl From<Assertion> for SignRequest {
    fn from(assertion: Assertion) -> Self {
        Self::Jwt(JwtRequest {
            key: SecretRef {
                name: assertion.key,
            },
            header: json!(assertion.header).to_string(),
            claims: json!(assertion.claims).to_string(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(assertion: Assertion) -> Value {
        let SignRequest::Jwt(jwt) = assertion.into() else {
            panic!("an assertion is a JWT")
        };
        serde_json::from_str(&jwt.claims).expect("claims are JSON")
    }

    #[test]
    fn an_assertion_carries_the_claims_of_rfc_7523() {
        let assertion = Assertion::new("signing_key".into(), 1000, &[0xab; 32], 0)
            .issuer("me")
            .subject("me")
            .audience("them");
        assert_eq!(
            claims(assertion),
            json!({"iss": "me", "sub": "me", "aud": "them", "iat": 1000, "exp": 1300,
                   "jti": "abababababababababababababababab-0"})
        );
    }

    #[test]
    fn a_replay_makes_the_same_jti_and_another_step_another() {
        let jti = |step| claims(Assertion::new("k".into(), 1, &[7; 32], step))["jti"].clone();
        assert_eq!(jti(1), jti(1));
        assert_ne!(jti(1), jti(2));
    }

    #[test]
    fn missing_entropy_and_the_end_of_time_do_not_panic() {
        let made = claims(Assertion::new("k".into(), u32::MAX, &[], 0).backdated(60));
        assert_eq!(
            (made["exp"].as_u64(), made["jti"].as_str()),
            (Some(u32::MAX.into()), Some("-0"))
        );
    }
}
