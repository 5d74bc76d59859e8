//! Signing keys: read from a secret's value, and used. The key's algorithm is fixed when it is read; nothing a plugin
//! writes chooses it.
//!
//! Pure computation on `aws-lc-rs`. Which key may sign what, and where the signature may go, is `model::seal`'s.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{error::Unspecified, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::{Zeroize, Zeroizing};

use crate::model::contract::BytesEncoding;
use crate::model::secret::Secret;

pub(crate) mod jwt;

pub use jwt::{JWT_CLAIMS_MAX_BYTES, JWT_HEADER_MAX_BYTES, JWT_LIFETIME_MAX, JwtFault};

/// How an HS256 key says that it is base64 and not the bytes themselves: guessing would misread a passphrase that happens
/// to be valid base64.
const BASE64_PREFIX: &str = "base64:";

/// The shortest HS256 key that may make a JWT: as long as the hash (RFC 7518, section 3.2).
const HS256_JWT_KEY_MIN_BYTES: usize = 32;

/// The algorithms a key may have (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SigningAlg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256.
    Hs256,
}

/// A key ready to sign. `Debug` shows its algorithm and nothing else.
pub struct SigningKey {
    material: Material,
    key_id: Option<String>,
}

enum Material {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Hmac {
        key: Box<hmac::Key>,
        key_bytes: usize,
    },
}

/// Why a value is no key: what was found and what is expected, never a byte of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The algorithm is none of the four.
    Algorithm,
    /// There is no private key in PEM form.
    NotPem {
        /// For which algorithm.
        alg: SigningAlg,
        /// What was found instead.
        found: &'static str,
    },
    /// It is another kind of key than its algorithm needs.
    WrongKind {
        /// The algorithm.
        alg: SigningAlg,
        /// What was found instead.
        found: &'static str,
    },
    /// It is of the right kind and too short.
    TooShort {
        /// The algorithm.
        alg: SigningAlg,
    },
    /// The value says `base64:` and is not.
    NotBase64,
    /// The cryptography library refused to sign.
    Refused,
}

// === impl SigningAlg ===

impl SigningAlg {
    /// From its name in a JWS header: `RS256`, `ES256`, `EdDSA`, `HS256`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Algorithm`] for any other name.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        [Self::Rs256, Self::Es256, Self::EdDsa, Self::Hs256]
            .into_iter()
            .find(|alg| alg.name() == name)
            .ok_or(KeyError::Algorithm)
    }

    /// Its name in a JWS header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Rs256 => "an RSA private key of 2048 bits or more, PEM (PKCS#8 or PKCS#1)",
            Self::Es256 => "a P-256 private key, PEM (PKCS#8 or SEC1)",
            Self::EdDsa => "an Ed25519 private key, PEM (PKCS#8)",
            Self::Hs256 => "32 bytes or more, as they are or as base64 after \"base64:\"",
        }
    }
}

// === impl SigningKey ===

impl SigningKey {
    /// Reads a key. PEM may have its line breaks written as `\n`, as environment variables often do.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the value is not a key of this algorithm.
    pub fn parse(
        alg: SigningAlg,
        value: &Secret<String>,
        key_id: Option<&str>,
    ) -> Result<Self, KeyError> {
        let material = match alg {
            SigningAlg::Hs256 => hmac_key(value.expose())?,
            _ => pem_key(alg, value.expose())?,
        };
        Ok(Self {
            material,
            key_id: key_id.map(str::to_owned),
        })
    }

    /// Its algorithm.
    pub fn alg(&self) -> SigningAlg {
        match self.material {
            Material::Rsa(_) => SigningAlg::Rs256,
            Material::Ec(_) => SigningAlg::Es256,
            Material::Ed(_) => SigningAlg::EdDsa,
            Material::Hmac { .. } => SigningAlg::Hs256,
        }
    }

    /// Signs bytes and writes the signature as text.
    ///
    /// # Errors
    ///
    /// [`KeyError::Refused`] when the cryptography library does.
    pub fn sign_bytes(
        &self,
        payload: &[u8],
        encoding: BytesEncoding,
    ) -> Result<Secret<String>, KeyError> {
        let signature = self.sign(payload)?;
        Ok(Secret::new(match encoding {
            BytesEncoding::Hex => hex(&signature),
            BytesEncoding::Base64 => STANDARD.encode(&*signature),
            BytesEncoding::Base64Url => URL_SAFE_NO_PAD.encode(&*signature),
        }))
    }

    fn sign(&self, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let refused = |_: Unspecified| KeyError::Refused;
        let random = SystemRandom::new();
        let signature = match &self.material {
            Material::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, payload, &mut signature)
                    .map_err(refused)?;
                signature
            }
            Material::Ec(key) => key
                .sign(&random, payload)
                .map_err(refused)?
                .as_ref()
                .to_vec(),
            Material::Ed(key) => key.try_sign(payload).map_err(refused)?.as_ref().to_vec(),
            Material::Hmac { key, .. } => hmac::sign(key, payload).as_ref().to_vec(),
        };
        Ok(Zeroizing::new(signature))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key", self.alg().name())
    }
}

fn hmac_key(value: &str) -> Result<Material, KeyError> {
    let bytes = match value.strip_prefix(BASE64_PREFIX) {
        Some(text) => STANDARD
            .decode(text.trim())
            .map_err(|_| KeyError::NotBase64)?,
        None => value.as_bytes().to_vec(),
    };
    let bytes = Zeroizing::new(bytes);
    if value.starts_with("-----BEGIN ") {
        return Err(KeyError::WrongKind {
            alg: SigningAlg::Hs256,
            found: "a PEM file",
        });
    }
    if bytes.is_empty() {
        return Err(KeyError::TooShort {
            alg: SigningAlg::Hs256,
        });
    }
    let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
    Ok(Material::Hmac {
        key,
        key_bytes: bytes.len(),
    })
}

fn pem_key(alg: SigningAlg, value: &str) -> Result<Material, KeyError> {
    let unfolded;
    let pem = if value.contains('\n') {
        value
    } else {
        unfolded = Zeroizing::new(value.replace("\\n", "\n"));
        unfolded.as_str()
    };
    let mut der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NotPem {
        alg,
        found: what_else(pem),
    })?;
    let material = read_der(alg, &der);
    der.zeroize();
    // The library itself refuses RSA keys below 2048 bits (RFC 7518, section 3.3).
    material.ok_or_else(|| KeyError::WrongKind {
        alg,
        found: kind(pem),
    })
}

fn read_der(alg: SigningAlg, der: &PrivateKeyDer<'_>) -> Option<Material> {
    match (alg, der) {
        (SigningAlg::Rs256, PrivateKeyDer::Pkcs1(key)) => {
            RsaKeyPair::from_der(key.secret_pkcs1_der())
                .ok()
                .map(Material::Rsa)
        }
        (SigningAlg::Rs256, PrivateKeyDer::Pkcs8(key)) => {
            RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
                .ok()
                .map(Material::Rsa)
        }
        (SigningAlg::Es256, PrivateKeyDer::Pkcs8(_) | PrivateKeyDer::Sec1(_)) => {
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
                .ok()
                .map(Material::Ec)
        }
        (SigningAlg::EdDsa, PrivateKeyDer::Pkcs8(key)) => {
            Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der())
                .ok()
                .map(Material::Ed)
        }
        _ => None,
    }
}

/// What a value without a private key is, judged by its armour.
fn what_else(value: &str) -> &'static str {
    [
        (
            "ENCRYPTED PRIVATE KEY",
            "an encrypted private key: decrypt it first",
        ),
        (
            "Proc-Type: 4,ENCRYPTED",
            "an encrypted private key: decrypt it first",
        ),
        (
            "OPENSSH PRIVATE KEY",
            "an OpenSSH key: convert it with `ssh-keygen -p -m PKCS8`",
        ),
        ("PUBLIC KEY", "a public key"),
        ("CERTIFICATE", "a certificate"),
        ("-----BEGIN ", "PEM that does not decode"),
    ]
    .into_iter()
    .find(|(armour, _)| value.contains(armour))
    .map_or("no PEM armour (\"-----BEGIN …\")", |(_, found)| found)
}

/// Which kind of key PEM holds that its algorithm did not accept.
fn kind(pem: &str) -> &'static str {
    let Ok(mut der) = PrivateKeyDer::from_pem_slice(pem.as_bytes()) else {
        return "PEM that does not decode";
    };
    let found = [
        (SigningAlg::Rs256, "an RSA key"),
        (SigningAlg::Es256, "a P-256 key"),
        (SigningAlg::EdDsa, "an Ed25519 key"),
    ]
    .into_iter()
    .find(|(alg, _)| read_der(*alg, &der).is_some())
    .map_or("a key of another kind, curve or size", |(_, found)| found);
    der.zeroize();
    found
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| {
            [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]
        })
        .map(char::from)
        .collect()
}

// === impl KeyError ===

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm => f.write_str("`alg` must be RS256, ES256, EdDSA or HS256"),
            Self::NotPem { alg, found } | Self::WrongKind { alg, found } => {
                write!(f, "{} needs {}; found {found}", alg.name(), alg.expected())
            }
            Self::TooShort { alg } => {
                write!(
                    f,
                    "the key is too short: {} needs {}",
                    alg.name(),
                    alg.expected()
                )
            }
            Self::NotBase64 => {
                f.write_str("what follows \"base64:\" is not base64 (RFC 4648, section 4)")
            }
            Self::Refused => f.write_str(
                "the key was read, and the cryptography library refused to sign with it",
            ),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests;
