//! Signatures: made with a key that stays here, and sealed before anybody sees them.

use zeroize::Zeroizing;

use super::echo::Class;
use super::rules::SecretRule;
use super::spot::{Spot, unknown};
use super::vault::{Origin, Vault};
use super::violation::shown;
use super::{REQUEST_MAX_BYTES, SEGMENTS_MAX, Violation};
use crate::keys::{SigningKey, jwt::reads_as_jws};
use crate::model::contract::{BytesEncoding, SealedValue, Segment, SignRequest};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;

// === impl Vault ===

impl Vault {
    /// Signs, and seals the signature. It may go wherever its key may go.
    ///
    /// # Errors
    ///
    /// A [`Violation`] when the key is not this provider's, does not parse, or is not granted what is to be signed.
    pub fn sign(&mut self, request: &SignRequest, now: UnixTime) -> Result<SealedValue, Violation> {
        let (signature, rule, of_grant) = match request {
            SignRequest::Jwt {
                key,
                header,
                claims,
            } => {
                let (rule, key) = self.signing_key(key)?;
                let token = key.sign_jwt(header, claims, &rule.audiences, now);
                let token = token.map_err(|fault| Violation::Jwt {
                    secret: rule.name.clone(),
                    fault,
                })?;
                (token, rule, false)
            }
            SignRequest::Bytes {
                key,
                payload,
                encoding,
            } => {
                let (rule, key) = self.signing_key(key)?;
                let (signature, of_grant) = self.sign_bytes(rule, &key, payload, *encoding)?;
                (signature, rule, of_grant)
            }
        };
        let origin = Origin::Signature(rule.name.clone());
        self.echo.add(Class::Value, signature.expose());
        Ok(self.seal(signature, origin, of_grant))
    }

    fn sign_bytes(
        &self,
        rule: &SecretRule,
        key: &SigningKey,
        segments: &[Segment],
        encoding: BytesEncoding,
    ) -> Result<(Secret<String>, bool), Violation> {
        let (payload, of_grant) = self.payload(segments)?;
        if reads_as_jws(&payload) {
            return Err(Violation::JwtAsBytes {
                secret: rule.name.clone(),
            });
        }
        let signature = key
            .sign_bytes(payload.as_bytes(), encoding)
            .map_err(|error| Violation::Key {
                secret: rule.name.clone(),
                error,
            })?;
        Ok((signature, of_grant))
    }

    /// What is to be signed, and whether a grant is in it. No secret: a MAC over a secret is a place nobody granted.
    fn payload(&self, segments: &[Segment]) -> Result<(Zeroizing<String>, bool), Violation> {
        if segments.len() > SEGMENTS_MAX {
            return Err(Violation::TooLarge {
                what: "segments of one value",
                max: SEGMENTS_MAX,
            });
        }
        let mut pieces: Vec<&str> = Vec::with_capacity(segments.len());
        let mut of_grant = false;
        for segment in segments {
            pieces.push(match segment {
                Segment::Literal(text) => text,
                Segment::Secret(secret) => {
                    let place = "signed bytes".to_owned();
                    return Err(Violation::SecretPlace {
                        secret: shown(secret),
                        place,
                    });
                }
                Segment::Sealed(handle) => {
                    let (value, carries) = self.sealed_at(handle, Spot::Signed, None)?;
                    of_grant |= carries;
                    value.expose()
                }
            });
        }
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() > REQUEST_MAX_BYTES {
            return Err(Violation::TooLarge {
                what: "bytes to sign",
                max: REQUEST_MAX_BYTES,
            });
        }
        Ok((Zeroizing::new(pieces.concat()), of_grant))
    }

    fn signing_key(&self, name: &str) -> Result<(&SecretRule, SigningKey), Violation> {
        let rule = self.rules.secret(name).ok_or_else(|| unknown(name))?;
        let alg = rule.alg.ok_or_else(|| Violation::NotAKey {
            secret: rule.name.clone(),
        })?;
        let value = self.secret(name).ok_or_else(|| unknown(name))?;
        let key = SigningKey::parse(alg, value, rule.key_id.as_deref()).map_err(|error| {
            Violation::Key {
                secret: rule.name.clone(),
                error,
            }
        })?;
        Ok((rule, key))
    }
}
