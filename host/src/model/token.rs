//! The access token as callers get it: a value ready as a header, its end as wall time, and its generation.

use std::fmt;
use std::num::NonZeroU64;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::credential::{Fingerprint, Stored, Version};
use super::key::ScopeSet;
use super::secret::Secret;
use super::time::UnixTime;

/// Names one token of one key for ever. Starts at the unix milliseconds of the key's first token and grows; compared
/// by equality only. Below 2^53, so that it survives JSON readers that hold numbers as doubles.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Generation(NonZeroU64);

/// Names one slot of the cache in this process; a token carries the id of the slot it was published to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SlotId(pub(crate) u64);

/// A token for callers. Cheap to share by `Arc`; `Debug` shows no byte of it.
pub struct AccessToken {
    slot: SlotId,
    generation: Generation,
    expires: UnixTime,
    issued: UnixTime,
    /// `Bearer <token>`, marked sensitive. The only copy: [`AccessToken::raw`] is a slice of it.
    header: HeaderValue,
    /// Where the token starts in `header`.
    raw_from: usize,
    /// Whether token and type can stand between the quotes of JSON as they are. Nearly all can, and looking at each byte
    /// again for every answer would cost as much as finding the token.
    plain: bool,
    token_type: Box<str>,
    scopes: ScopeSet,
    extra: Box<[(Box<str>, Secret<String>)]>,
}

/// What a flow obtained, before it has a slot and a generation.
#[derive(Clone)]
pub struct ObtainedToken {
    /// The token itself.
    pub value: Secret<String>,
    /// RFC 6749, section 7.1.
    pub token_type: String,
    /// When it ends.
    pub expires: UnixTime,
    /// Just before the request that obtained it was sent.
    pub issued: UnixTime,
    /// What it may do: as granted, else as requested.
    pub scopes: ScopeSet,
    /// Further members for callers.
    pub extra: Vec<(String, Secret<String>)>,
}

/// A token that outlives the process.
#[derive(Clone, Debug)]
pub struct TokenRecord {
    /// The token.
    pub token: ObtainedToken,
    /// Its name: a caller that has it goes on with it.
    pub generation: Generation,
    /// The settings and secrets that made it: under others it is worth nothing.
    pub fingerprint: Fingerprint,
    /// The version of its credential when it was obtained: what was withdrawn since is not served.
    pub obtained_at: Version,
}

// === impl TokenRecord ===

impl TokenRecord {
    /// Whether it may be served after a restart, as far as its credential goes: it was obtained with what the row has or had,
    /// and nothing was withdrawn since.
    pub fn may_be_kept(&self, row: &Stored) -> bool {
        row.credential.revoked_at().is_none()
            && (row.credential.withdrawn..=row.version).contains(&self.obtained_at)
    }
}

// === impl Generation ===

impl Generation {
    /// The largest: 2^53 − 1.
    pub const MAX: u64 = (1 << 53) - 1;

    /// The first generation of a key whose first token was published at `now`, never below one stored before.
    #[must_use]
    pub fn first(now: UnixTime) -> Self {
        Self::nearest(now.as_millis())
    }

    /// The one after; never below the clock, so that a key that was evicted and came back does not reuse a number.
    #[must_use]
    pub fn next(self, now: UnixTime) -> Self {
        Self::nearest(self.number().saturating_add(1).max(now.as_millis()))
    }

    /// From a number a caller sent.
    pub fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number)
            .filter(|number| number.get() <= Self::MAX)
            .map(Self)
    }

    fn nearest(number: u64) -> Self {
        Self(NonZeroU64::new(number.min(Self::MAX)).unwrap_or(NonZeroU64::MIN))
    }

    /// As a number.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

// === impl ObtainedToken ===

impl fmt::Debug for ObtainedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} token for \"{}\" until {:?}",
            self.token_type, self.scopes, self.expires
        )
    }
}

// === impl AccessToken ===

impl AccessToken {
    /// Makes a token ready for callers. `None` when it cannot be a header value (RFC 9110, section 5.5).
    pub fn new(slot: SlotId, generation: Generation, from: &ObtainedToken) -> Option<Self> {
        let bearer = from.token_type.eq_ignore_ascii_case("bearer");
        let scheme = if bearer { "Bearer" } else { &from.token_type };
        let mut text = Zeroizing::new(Vec::with_capacity(
            scheme.len() + 1 + from.value.expose().len(),
        ));
        text.extend_from_slice(scheme.as_bytes());
        text.push(b' ');
        text.extend_from_slice(from.value.expose().as_bytes());
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        let plain = !header.to_str().ok()?.contains(['"', '\\', '\t']);
        header.set_sensitive(true);
        Some(Self {
            slot,
            generation,
            expires: from.expires,
            issued: from.issued,
            header,
            raw_from: scheme.len() + 1,
            plain,
            token_type: scheme.into(),
            scopes: from.scopes.clone(),
            extra: from
                .extra
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.clone()))
                .collect(),
        })
    }

    /// The whole header value, `Bearer <token>`, marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The token without its scheme. For the wire only.
    pub fn raw(&self) -> &str {
        std::str::from_utf8(self.raw_bytes()).unwrap_or_default()
    }

    /// The same as bytes, which are visible ASCII.
    pub(crate) fn raw_bytes(&self) -> &[u8] {
        &self.header.as_bytes()[self.raw_from..]
    }

    /// Whether the token and its type are the same inside a JSON string as they are here, so that a server may write them as
    /// they are.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// RFC 6749, section 7.1; `Bearer` in canonical case.
    pub fn token_type(&self) -> &str {
        &self.token_type
    }

    /// When it ends.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// When it was asked for.
    pub fn issued(&self) -> UnixTime {
        self.issued
    }

    /// What it may do.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    /// Its name.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Further members that the operator exposes.
    pub fn extra(&self) -> impl Iterator<Item = (&str, &Secret<String>)> {
        self.extra.iter().map(|(name, value)| (&**name, value))
    }

    /// The slot it was published to: a reader checks that it is the reader's own.
    pub(crate) fn slot(&self) -> SlotId {
        self.slot
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.generation.number())
            .field("expires", &self.expires)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obtained(value: &str) -> ObtainedToken {
        ObtainedToken {
            value: value.into(),
            token_type: "bearer".into(),
            expires: UnixTime::from_secs(60),
            issued: UnixTime::from_secs(0),
            scopes: ScopeSet::default(),
            extra: vec![("instance_url".into(), "https://x".into())],
        }
    }

    #[test]
    fn one_allocation_is_header_and_token() {
        let token = AccessToken::new(SlotId(1), Generation::nearest(7), &obtained("abc")).unwrap();
        assert_eq!(token.header(), "Bearer abc");
        assert_eq!(token.raw(), "abc");
        assert!(token.header().is_sensitive());
        assert!(!format!("{token:?}").contains("abc"));
    }

    #[test]
    fn a_token_that_would_split_a_header_is_none() {
        assert!(AccessToken::new(SlotId(1), Generation::nearest(7), &obtained("a\r\nb")).is_none());
        assert!(AccessToken::new(SlotId(1), Generation::nearest(7), &obtained("tök")).is_none());
        assert!(AccessToken::new(SlotId(1), Generation::nearest(7), &obtained("a\0b")).is_none());
    }

    #[test]
    fn what_json_would_escape_is_not_plain() {
        for (value, plain) in [
            ("a.b-c_~", true),
            ("a\"b", false),
            ("a\\b", false),
            ("a\tb", false),
        ] {
            let token = AccessToken::new(SlotId(1), Generation::nearest(7), &obtained(value));
            assert!(
                token.is_none_or(|token| token.is_plain() == plain),
                "{value:?}"
            );
        }
    }

    #[test]
    fn generations_only_grow_and_stay_exact_in_json() {
        let now = UnixTime::from_secs(1_700_000_000);
        let first = Generation::first(now);
        assert!(first.next(now) > first);
        assert!(first.next(UnixTime::from_secs(0)) > first);
        assert_eq!(Generation::from_number(Generation::MAX + 1), None);
    }
}
