//! The durable record of a credential: its grant, its state, and what happened to it last.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;

use super::contract::Rotation;
use super::secret::Secret;
use super::time::UnixTime;

/// Number a commit must match. Grows by one with every commit of a credential and never restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// One grant of one subject at one provider.
#[derive(Clone, Default, PartialEq)]
pub struct Credential {
    /// The refresh token, where this credential has one.
    pub refresh_token: Option<Secret<String>>,
    /// Sealed values kept for the plugin.
    pub held: Vec<(String, Secret<String>)>,
    /// Plain values kept for the plugin.
    pub memo: Vec<(String, String)>,
    /// Whether it can be used.
    pub state: CredentialState,
    /// Set while a grant that may be single-use is being presented.
    pub intent: Option<Intent>,
    /// What was learned of the grant's rotation.
    pub seen: Seen,
    /// Keyed fingerprints of grants that were spent here: importing one again is refused.
    pub spent: Vec<[u8; 32]>,
    /// When the grant was handed over or last rotated.
    pub grant_since: UnixTime,
    /// Access tokens obtained at an older version are no longer good: an operator revoked or replaced the grant.
    pub withdrawn: Version,
}

/// Whether a credential can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CredentialState {
    /// It can.
    #[default]
    Live,
    /// Not before `until`: an operator or the issuer's rate limit asked for it.
    Suspended {
        /// When it is live again.
        until: UnixTime,
    },
    /// The last presentation of its grant got no answer: it may be spent.
    Uncertain {
        /// Since when.
        since: UnixTime,
    },
    /// Only a human or a new grant helps.
    ReauthorizationRequired {
        /// Since when.
        since: UnixTime,
        /// Why: `refused` or `lost_answer`.
        cause: EndCause,
    },
    /// An operator ended it.
    Revoked {
        /// When.
        at: UnixTime,
    },
}

/// Why a credential needs a human.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EndCause {
    /// The issuer refused the grant.
    Refused,
    /// A single-use grant was presented and no answer came.
    LostAnswer,
}

/// A note, made before a single-use grant leaves, that it is being spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Intent {
    /// Who is spending it.
    pub owner: [u8; 16],
    /// When it was made.
    pub at: UnixTime,
    /// When the attempt is provably over.
    pub over_at: UnixTime,
}

/// What was learned of a grant's rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// A refresh succeeded and brought no new grant, or the same one.
    pub stayed: bool,
    /// A refresh brought a new grant.
    pub rotated: bool,
}

/// A credential as the store holds it. A key never seen has version 0 and a blank credential.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// What a commit must name.
    pub version: Version,
    /// The record.
    pub credential: Credential,
}

/// Why a load failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable(pub String);

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// The row has moved on: load again and decide again.
    Conflict,
    /// The store did not answer, or has no room.
    Unreachable(String),
}

/// What to do with a grant whose last answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterLostAnswer {
    /// Present it once more when nothing is left to lose.
    Probe,
    /// Never present it again.
    Stop,
}

/// Keyed hash of everything of a provider that reaches the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// A keyed hash of a secret (HMAC-SHA-256): tells equal values apart from others without keeping them.
#[must_use]
pub fn fingerprint(key: &Secret<[u8; 32]>, value: &Secret<String>) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let tag = hmac::sign(&key, value.expose().as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// A keyed hash of several values in their order. Each goes in with its length, so that no value can pass for two; none of
/// them is copied.
#[must_use]
pub fn fingerprint_all<'a>(
    key: &Secret<[u8; 32]>,
    values: impl IntoIterator<Item = &'a str>,
) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mut hash = hmac::Context::with_key(&key);
    for value in values {
        hash.update(&(value.len() as u64).to_le_bytes());
        hash.update(value.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.sign().as_ref());
    bytes
}

/// The longest a credential stays suspended by an issuer's word: a wrong `Retry-After` must not end it for a day.
pub const SUSPENSION_MAX: Duration = Duration::from_secs(3600);

// === impl Stored ===

impl Stored {
    /// Whether it is what a commit on this version would have made of it: one that was not answered may have happened.
    pub fn is_made_of(&self, expected: Version, credential: &Credential) -> bool {
        self.version == Version(expected.0 + 1) && self.credential == *credential
    }
}

// === impl Unreachable ===

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

// === impl CommitFault ===

impl fmt::Display for CommitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("the row has moved on"),
            Self::Unreachable(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for CommitFault {}

// === impl EndCause ===

impl EndCause {
    /// As the admin interface writes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::LostAnswer => "lost_answer",
        }
    }
}

// === impl Seen ===

impl Seen {
    /// What is known of a grant: what was declared, except that what was seen is believed over "unknown".
    #[must_use]
    pub fn rotation(self, declared: Rotation) -> Rotation {
        match declared {
            Rotation::Unknown if self.rotated => Rotation::SingleUse,
            Rotation::Unknown if self.stayed => Rotation::Never,
            declared => declared,
        }
    }
}

// === impl CredentialState ===

impl CredentialState {
    /// Every label.
    pub const LABELS: [&'static str; 5] = [
        "live",
        "suspended",
        "uncertain",
        "reauthorization_required",
        "revoked",
    ];

    /// Whether its grant may still bring a token without a human.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::Live | Self::Suspended { .. } | Self::Uncertain { .. } => true,
            Self::ReauthorizationRequired { .. } | Self::Revoked { .. } => false,
        }
    }

    /// As the admin interface writes it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspended { .. } => "suspended",
            Self::Uncertain { .. } => "uncertain",
            Self::ReauthorizationRequired { .. } => "reauthorization_required",
            Self::Revoked { .. } => "revoked",
        }
    }
}

// === impl Credential ===

impl Credential {
    /// True when nothing would be lost by forgetting it: no grant, nothing kept, never ended.
    pub fn is_blank(&self) -> bool {
        self.refresh_token.is_none()
            && self.held.is_empty()
            && self.memo.is_empty()
            && self.spent.is_empty()
            && self.state == CredentialState::Live
    }

    /// When it was revoked, if it is.
    pub fn revoked_at(&self) -> Option<UnixTime> {
        match self.state {
            CredentialState::Revoked { at } => Some(at),
            _ => None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("state", &self.state)
            .field("has_grant", &self.refresh_token.is_some())
            .field("intent", &self.intent)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

// === impl Fingerprint ===

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}
