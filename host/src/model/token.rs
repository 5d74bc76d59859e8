//! The access token as callers get it: a value ready as a header, its end as wall time, and its generation.

use std::fmt;
use std::num::NonZeroU64;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::credential::{Fingerprint, Stored, Version};
use super::freshness::Life;
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
///
/// What a reader compares comes first, together with the counts of the `Arc` before it: on one line of memory.
#[repr(C)]
pub struct AccessToken {
    slot: SlotId,
    serve_until: UnixTime,
    expires: UnixTime,
    generation: Generation,
    issued: UnixTime,
    /// `Bearer <token>`, marked sensitive. The only copy: [`AccessToken::raw`] and [`AccessToken::token_type`] are slices of it.
    header: HeaderValue,
    scopes: ScopeSet,
    /// Few tokens have any: one word where there are none.
    extra: Option<Box<Extra>>,
    /// Where the token starts in `header`.
    raw_from: u32,
    /// Whether token and type can stand between the quotes of JSON as they are. Nearly all can, and looking at each byte
    /// again for every answer would cost as much as finding the token.
    plain: bool,
}

/// Further members of a token, by name.
type Extra = Box<[(Box<str>, Secret<String>)]>;

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
    /// Makes a token ready for callers. Where it may do what was `wanted`, no more and no less, the set is kept once for both.
    /// `None` when it cannot be a header value (RFC 9110, section 5.5).
    pub fn new(
        slot: SlotId,
        generation: Generation,
        from: &ObtainedToken,
        wanted: &ScopeSet,
    ) -> Option<Self> {
        let bearer = from.token_type.eq_ignore_ascii_case("bearer");
        let scheme = if bearer { "Bearer" } else { &from.token_type };
        let value = from.value.expose();
        let mut text = Zeroizing::new(vec![0; scheme.len() + 1 + value.len()].into_boxed_slice());
        text[..scheme.len()].copy_from_slice(scheme.as_bytes());
        text[scheme.len()] = b' ';
        text[scheme.len() + 1..].copy_from_slice(value.as_bytes());
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        // Visible ASCII, and nothing that a JSON string writes otherwise. All bytes are looked at, many at a time.
        let bytes = header.to_str().ok()?.bytes();
        let plain = bytes.fold(true, |all, byte| {
            all & !matches!(byte, b'"' | b'\\' | b'\t')
        });
        header.set_sensitive(true);
        let life = Life {
            issued: from.issued,
            expires: from.expires,
        };
        let same = from.scopes == *wanted;
        let scopes = if same { wanted } else { &from.scopes };
        let extra = from.extra.iter();
        let extra: Extra = extra
            .map(|(name, value)| (name.as_str().into(), value.clone()))
            .collect();
        Some(Self {
            slot,
            serve_until: life.serve_until(),
            expires: from.expires,
            generation,
            issued: from.issued,
            header,
            scopes: scopes.clone(),
            extra: (!extra.is_empty()).then(|| Box::new(extra)),
            raw_from: u32::try_from(scheme.len() + 1).ok()?,
            plain,
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
        &self.header.as_bytes()[self.raw_from as usize..]
    }

    /// Whether the token and its type are the same inside a JSON string as they are here, so that a server may write them as
    /// they are.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// RFC 6749, section 7.1; `Bearer` in canonical case.
    pub fn token_type(&self) -> &str {
        let scheme = &self.header.as_bytes()[..self.raw_from as usize - 1];
        std::str::from_utf8(scheme).unwrap_or_default()
    }

    /// When it ends.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// Until when it is handed out: a margin before its end.
    #[inline]
    pub(crate) fn serve_until(&self) -> UnixTime {
        self.serve_until
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
        let extra = self.extra.as_deref().into_iter().flatten();
        extra.map(|(name, value)| (&**name, value))
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

    fn made(from: &ObtainedToken, wanted: &ScopeSet) -> Option<AccessToken> {
        AccessToken::new(SlotId(1), Generation::nearest(7), from, wanted)
    }

    #[test]
    fn one_allocation_is_header_type_and_token() {
        let token = made(&obtained("abc"), &ScopeSet::default()).unwrap();
        assert_eq!(token.header(), "Bearer abc");
        assert_eq!((token.token_type(), token.raw()), ("Bearer", "abc"));
        let mut from = obtained("abc");
        from.token_type = "DPoP".into();
        let bound = made(&from, &ScopeSet::default()).unwrap();
        assert_eq!((bound.token_type(), bound.raw()), ("DPoP", "abc"));
        assert!(token.header().is_sensitive());
        assert!(!format!("{token:?}").contains("abc"));
        let extra: Vec<_> = token.extra().map(|(name, _)| name).collect();
        assert_eq!(extra, ["instance_url"]);
    }

    #[test]
    fn scopes_granted_as_wanted_are_kept_once_and_others_as_granted() {
        let scopes = |text: &str| ScopeSet::parse(text.split(' ')).unwrap();
        let mut from = obtained("abc");
        from.scopes = scopes("read write");
        for wanted in [scopes("read write"), scopes("admin")] {
            let token = made(&from, &wanted).unwrap();
            assert_eq!(*token.scopes(), from.scopes);
            let scope = |scopes: &ScopeSet| scopes.iter().next().map(str::as_ptr);
            let shared = scope(token.scopes()) == scope(&wanted);
            assert_eq!(shared, wanted == from.scopes);
        }
    }

    #[test]
    fn a_token_and_its_counts_are_two_lines_of_memory() {
        assert!(size_of::<AccessToken>() + 2 * size_of::<usize>() <= 128);
    }

    #[test]
    fn a_token_that_would_split_a_header_is_none() {
        assert!(made(&obtained("a\r\nb"), &ScopeSet::default()).is_none());
        assert!(made(&obtained("tök"), &ScopeSet::default()).is_none());
        assert!(made(&obtained("a\0b"), &ScopeSet::default()).is_none());
    }

    #[test]
    fn what_json_would_escape_is_not_plain() {
        for (value, plain) in [
            ("a.b-c_~", true),
            ("a\"b", false),
            ("a\\b", false),
            ("a\tb", false),
        ] {
            let token = made(&obtained(value), &ScopeSet::default());
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
