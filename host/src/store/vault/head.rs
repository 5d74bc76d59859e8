//! What of a row is in the clear: what it is, whose key sealed it, its version.

use super::{TenantId, Unsealed};
use crate::model::credential::Version;

/// Stands for the host's own key, which is in the root.
const HOST_KEY: u32 = 0;
/// Bytes of a row before its seal.
pub(super) const HEAD_BYTES: usize = 16 + 4 + 8;

/// What is in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Kind {
    /// A credential.
    Credential,
    /// A plugin that was swapped in.
    Plugin,
    /// An access token. It is in no ledger: whoever brings an older one back brings back one that was as good.
    Token,
    /// An entry of the revocation log.
    Revocation,
    /// A commit to be made.
    Noted,
}

/// What of a row is in the clear. All of it is authenticated by the seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Head {
    /// Whose key sealed it; zeros for the host's own.
    pub(in crate::store) tenant: TenantId,
    /// Which of that tenant's keys; 0 for the host's own.
    pub(in crate::store) key_number: u32,
    /// The version of the row. Of a token: when it ends, in unix milliseconds; of a revocation: its number; of a
    /// commit to be made: the one it replaces.
    pub(in crate::store) version: Version,
}

// === impl Kind ===

impl Kind {
    pub(super) fn label(self) -> &'static [u8] {
        match self {
            Self::Credential => b"credential",
            Self::Plugin => b"plugin",
            Self::Token => b"token",
            Self::Revocation => b"revocation",
            Self::Noted => b"noted",
        }
    }
}

// === impl Head ===

impl Head {
    /// The head of a row that the host's own key seals.
    pub(super) fn of_host(version: Version) -> Self {
        Self {
            tenant: TenantId::default(),
            key_number: HOST_KEY,
            version,
        }
    }

    /// The head of a row, and what follows it.
    pub(in crate::store) fn split(row: &[u8]) -> Result<(Self, &[u8]), Unsealed> {
        let split = || {
            let (tenant, rest) = row.split_first_chunk::<16>()?;
            let (key_number, rest) = rest.split_first_chunk::<4>()?;
            let (version, sealed) = rest.split_first_chunk::<8>()?;
            let head = Self {
                tenant: *tenant,
                key_number: u32::from_le_bytes(*key_number),
                version: Version(u64::from_le_bytes(*version)),
            };
            Some((head, sealed))
        };
        split().ok_or(Unsealed::Broken)
    }

    pub(super) fn bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..16].copy_from_slice(&self.tenant);
        bytes[16..20].copy_from_slice(&self.key_number.to_le_bytes());
        bytes[20..].copy_from_slice(&self.version.0.to_le_bytes());
        bytes
    }
}
