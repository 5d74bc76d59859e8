//! Keys, and sealing with them: XChaCha20-Poly1305 under random nonces. What is sealed, under which key and about what,
//! is `vault`'s; how its bytes are laid out is `record`'s.
//!
//! The nonce is 24 random bytes: two of one key meet after about 2^96 seals, so no counter has to survive a crash.

use std::fmt;

use aws_lc_rs::{hkdf, rand};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::model::secret::Secret;

/// Bytes of every key here: ChaCha20 has no other size.
pub(super) const KEY_BYTES: usize = 32;
/// Bytes of an XChaCha20 nonce.
const NONCE_BYTES: usize = 24;
/// Bytes of a Poly1305 tag.
const TAG_BYTES: usize = 16;
/// Separates our keys from whatever else an operator derives from the same 32 bytes.
const DERIVATION_SALT: &[u8] = b"keyfob store 1";

/// Padding is optional: secret managers and shells tend to lose it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The operator's key. It seals other keys only, so replacing it rewrites no row.
pub(super) struct SealingKey {
    /// What seals. Derived, so that the operator's bytes themselves are not kept.
    pub(super) key: DataKey,
    /// Names the key without telling it.
    pub(super) id: KeyId,
    /// Keyed the fingerprints that records of the first schema hold; since then a store has a key of its own for them.
    pub(super) fingerprints: Secret<[u8; KEY_BYTES]>,
}

/// Names a sealing key, so that a wrong one is told from a damaged file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub(super) [u8; 8]);

/// The text is not a sealing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSealingKey;

/// The system has no random bytes to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRandomness;

/// A key that seals; zeroed when dropped.
pub(super) struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// What a seal is about, as associated data: each part with its length, so that no two lists make the same bytes.
pub(super) fn about(parts: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        joined.extend_from_slice(&(part.len() as u64).to_le_bytes());
        joined.extend_from_slice(part);
    }
    joined
}

// === impl SealingKey ===

impl SealingKey {
    /// Reads 32 bytes of base64; white space around them does not matter.
    pub(super) fn parse(text: &Secret<String>) -> Result<Self, BadSealingKey> {
        // Longer than a key, so that a longer text is seen to be longer.
        let mut bytes = Zeroizing::new([0; 2 * KEY_BYTES]);
        let length = BASE64
            .decode_slice(text.expose().trim_ascii(), bytes.as_mut_slice())
            .map_err(|_| BadSealingKey)?;
        if length != KEY_BYTES {
            return Err(BadSealingKey);
        }
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVATION_SALT).extract(&bytes[..KEY_BYTES]);
        let derive = |purpose: &[u8]| {
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            root.expand(&[purpose], hkdf::HKDF_SHA256)
                .and_then(|derived| derived.fill(key.as_mut_slice()))
                .map(|()| key)
                .map_err(|_| BadSealingKey)
        };
        let mut id = [0; 8];
        id.copy_from_slice(&derive(b"key id")?[..8]);
        Ok(Self {
            key: DataKey(derive(b"wrap keys")?),
            id: KeyId(id),
            fingerprints: Secret::new(*derive(b"fingerprints")?),
        })
    }

    /// Another key, sealed with this one: the id of this one, then the seal.
    pub(super) fn wrap(&self, about: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let mut wrapped = self.id.0.to_vec();
        wrapped.extend(self.key.seal(about, plain)?);
        Ok(wrapped)
    }
}

// === impl DataKey ===

impl DataKey {
    /// A new key.
    pub(super) fn random() -> Result<Self, NoRandomness> {
        random().map(Self)
    }

    /// A key that was kept; `None` when it has another length.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        (bytes.len() == KEY_BYTES).then(|| {
            key.copy_from_slice(bytes);
            Self(key)
        })
    }

    /// The key itself: to be sealed by another, or to key a hash.
    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Nonce, ciphertext and tag of `plain`, bound to `about`.
    pub(super) fn seal(&self, about: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let nonce = random::<NONCE_BYTES>()?;
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(nonce.as_slice());
        sealed.extend_from_slice(plain);
        let tag = self
            .cipher()
            .encrypt_inout_detached(
                <&XNonce>::from(&*nonce),
                about,
                (&mut sealed[NONCE_BYTES..]).into(),
            )
            .expect("a row is shorter than the 256 GiB that one nonce covers");
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// What was sealed about just this; `None` when a bit of either differs.
    pub(super) fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut plain = Zeroizing::new(body.to_vec());
        self.cipher()
            .decrypt_inout_detached(
                <&XNonce>::from(nonce),
                about,
                plain.as_mut_slice().into(),
                <&Tag>::from(tag),
            )
            .ok()?;
        Some(plain)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.expose().into())
    }
}

// === impl KeyId ===

impl KeyId {
    /// The key that sealed another one, by what [`SealingKey::wrap`] wrote.
    pub(super) fn of_sealed(wrapped: &[u8]) -> Option<Self> {
        wrapped.first_chunk().copied().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

// === impl BadSealingKey ===

impl fmt::Display for BadSealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the sealing key is not 32 bytes of base64; make one with: head -c 32 /dev/urandom | base64",
        )
    }
}

impl std::error::Error for BadSealingKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealing_key_is_32_bytes_of_base64_and_nothing_else() {
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let id = SealingKey::parse(&good.into()).map(|key| key.id).ok();
        assert!(id.is_some());
        for same in [format!(" {good}\n"), good.trim_end_matches('=').to_owned()] {
            assert_eq!(SealingKey::parse(&same.into()).map(|key| key.id).ok(), id);
        }
        let longer = BASE64.encode([7; 33]);
        let much_longer = BASE64.encode([7; 300]);
        for bad in [
            "",
            "secret",
            "AAEC",
            &longer,
            &much_longer,
            "!AECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ] {
            assert!(SealingKey::parse(&bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_bit_of_a_seal_or_of_what_it_is_about_can_change() {
        let key = DataKey::random().unwrap();
        let sealed = key.seal(b"about", b"plain").unwrap();
        assert_eq!(key.open(b"about", &sealed).unwrap().as_slice(), b"plain");
        assert!(key.open(b"abouT", &sealed).is_none());
        assert!(DataKey::random().unwrap().open(b"about", &sealed).is_none());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(b"about", &flipped).is_none(), "bit {bit}");
        }
        for short in 0..sealed.len() {
            assert!(
                key.open(b"about", &sealed[..short]).is_none(),
                "{short} bytes"
            );
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_to_the_same_bytes() {
        let key = DataKey::random().unwrap();
        assert_ne!(
            key.seal(b"", b"plain").unwrap(),
            key.seal(b"", b"plain").unwrap()
        );
    }

    #[test]
    fn parts_of_what_a_seal_is_about_do_not_run_together() {
        assert_ne!(about(&[b"ab", b"c"]), about(&[b"a", b"bc"]));
        assert_ne!(about(&[b"ab"]), about(&[b"ab", b""]));
    }
}
