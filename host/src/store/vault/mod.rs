//! What a backend is given to keep: every row sealed, its key a keyed hash. No backend is named here, and no I/O is done.
//!
//! ```text
//! operator's sealing key ──seals──▶ root: file id, index key, tally key, host key, fingerprint key
//!                        ──seals──▶ one data key per tenant, numbered
//! data key of the tenant ──seals──▶ its credentials, tokens, revocations     host key ──seals──▶ plugins, ledger
//! index key ──names──▶ rows and tenants                      tally key ──sums──▶ the ledger
//! ```
//!
//! A row is sealed as a whole, together with where it stands: file, kind, row id (which is a keyed hash of tenant, provider
//! and subject), tenant, key number and version. So no member of it can be taken from another row, another version or
//! another file. That a *whole* row is not an older one is what the [`Ledger`] is for.

mod head;
mod ledger;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use self::head::HEAD_BYTES;
pub(super) use self::head::{Head, Kind};
pub(super) use self::ledger::Ledger;
use super::record::Malformed;
use super::sealing::{DataKey, KEY_BYTES, KeyId, NoRandomness, SealingKey, about, random};
use crate::model::credential::Version;
use crate::model::key::{CredentialKey, Tenant, TokenKey};
use crate::model::secret::Secret;

/// The schema written here. A file of a newer one is refused, one of an older one migrated.
pub(super) const SCHEMA: u32 = 2;
/// The way of sealing, in what every seal is about. It is not the schema: tables come and go, and rows stay sealed.
const SEAL: u32 = 1;
/// What a root of schema 1 had after the file's id: index, tally and host key. What keyed its fingerprints was the operator's.
const FIRST_ROOT_KEYS: usize = 3;
/// The numbers that a tenant's first data key may have; replacing a key counts on from there, so that both can be read
/// meanwhile. Drawn, so that no key of a tenant that was shredded and came back is taken for the one it had before.
const FIRST_DATA_KEYS: std::ops::Range<u32> = 1..1 << 31;
/// How many tenants' keys are held open: about a megabyte. Past it all are dropped and opened again when needed.
const OPEN_KEYS_MAX: usize = 10_000;
/// Bytes of a sealed key's header: the id of the key that sealed it.
const KEY_ID_BYTES: usize = 8;

/// Where a row stands: a keyed hash of its identity.
pub(super) type RowId = [u8; 32];
/// Names a tenant: a keyed hash of its name.
pub(super) type TenantId = [u8; 16];

/// Why something sealed was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unsealed {
    /// It was sealed with another operator's key.
    OtherKey {
        /// The key that sealed it.
        sealed_with: KeyId,
    },
    /// It was changed, moved, or belongs to another place.
    Broken,
    /// It is whole, and of a layout not known here.
    Unknown,
}

/// Data keys that are held open, by tenant and number.
type OpenKeys = HashMap<TenantId, BTreeMap<u32, Arc<DataKey>>>;

/// The keys of one store.
pub(super) struct Vault {
    operator: SealingKey,
    /// Everything below, as it is sealed.
    root: Zeroizing<Vec<u8>>,
    file: [u8; 16],
    index: hmac::Key,
    tally: hmac::Key,
    host: DataKey,
    /// Keys the fingerprints that records hold. The file's own, so that they outlive the operator's key.
    fingerprints: Secret<[u8; KEY_BYTES]>,
    /// Data keys that were opened, of at most [`OPEN_KEYS_MAX`] tenants. Never held across I/O.
    open: Arc<Mutex<OpenKeys>>,
}

// === impl Vault ===

impl Vault {
    /// The keys of a new store.
    pub(super) fn create(operator: SealingKey) -> Result<Self, NoRandomness> {
        const ROOT_BYTES: usize = 16 + (FIRST_ROOT_KEYS + 1) * KEY_BYTES;
        let root = random::<ROOT_BYTES>()?;
        let vault = Self::from_root(operator, Zeroizing::new(root.to_vec()))
            .expect("the root was made with the length that is read");
        Ok(vault)
    }

    /// The keys of a store that has this root.
    pub(super) fn open(operator: SealingKey, sealed_root: &[u8]) -> Result<Self, Unsealed> {
        let root = open_key(&operator, &about_root(), sealed_root)?;
        Self::from_root(operator, root).ok_or(Unsealed::Unknown)
    }

    /// The same keys under another operator's.
    pub(super) fn under(&self, operator: SealingKey) -> Self {
        Self {
            // What is held open fits whatever seals it.
            open: self.open.clone(),
            ..Self::from_root(operator, self.root.clone()).expect("the root was read before")
        }
    }

    fn from_root(operator: SealingKey, mut root: Zeroizing<Vec<u8>>) -> Option<Self> {
        if root.len() == 16 + FIRST_ROOT_KEYS * KEY_BYTES {
            // Grown in a new buffer: `Vec` would leave the old one behind in freed memory.
            root = Zeroizing::new([root.as_slice(), operator.fingerprints.expose()].concat());
        }
        let (file, keys) = root.split_first_chunk::<16>()?;
        let (index, keys) = keys.split_at_checked(KEY_BYTES)?;
        let (tally, keys) = keys.split_at_checked(KEY_BYTES)?;
        let (host, fingerprints) = keys.split_at_checked(KEY_BYTES)?;
        Some(Self {
            operator,
            file: *file,
            index: hmac::Key::new(hmac::HMAC_SHA256, index),
            tally: hmac::Key::new(hmac::HMAC_SHA256, tally),
            host: DataKey::from_bytes(host)?,
            fingerprints: Secret::new(fingerprints.try_into().ok()?),
            open: Arc::default(),
            root,
        })
    }

    /// The root as it is kept.
    pub(super) fn seal_root(&self) -> Result<Vec<u8>, NoRandomness> {
        self.operator.wrap(&about_root(), &self.root)
    }

    /// Names the operator's key that seals the others.
    pub(super) fn sealed_with(&self) -> KeyId {
        self.operator.id
    }

    /// What keys the fingerprints that records hold.
    pub(super) fn fingerprints(&self) -> &Secret<[u8; KEY_BYTES]> {
        &self.fingerprints
    }

    /// Names a tenant.
    pub(super) fn tenant_id(&self, tenant: &Tenant) -> TenantId {
        let mut id = TenantId::default();
        id.copy_from_slice(&self.hash(&[b"tenant", tenant.as_str().as_bytes()])[..16]);
        id
    }

    /// Where a credential stands.
    pub(super) fn credential_id(&self, key: &CredentialKey) -> RowId {
        let CredentialKey {
            tenant,
            provider,
            subject,
        } = key;
        let subject = subject.as_ref().map(|subject| subject.as_str().as_bytes());
        // No subject and any subject differ in the number of parts.
        let mut parts = vec![
            Kind::Credential.label(),
            tenant.as_str().as_bytes(),
            provider.as_str().as_bytes(),
        ];
        parts.extend(subject);
        self.hash(&parts)
    }

    /// Where a plugin stands.
    pub(super) fn plugin_id(&self, place: &str) -> RowId {
        self.hash(&[Kind::Plugin.label(), place.as_bytes()])
    }

    /// Where a token stands.
    pub(super) fn token_id(&self, key: &TokenKey) -> RowId {
        let credential = self.credential_id(&key.credential);
        let audience = key.audience.as_ref().map(|audience| audience.as_str());
        let mut parts = vec![Kind::Token.label(), &credential];
        // No audience is not an empty one, and none is taken for a scope.
        parts.push(if audience.is_some() { b"for" } else { b"" });
        parts.push(audience.unwrap_or_default().as_bytes());
        parts.extend(key.scopes.iter().map(str::as_bytes));
        self.hash(&parts)
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        digest(hmac::sign(&self.index, &about(parts)))
    }

    /// A tenant's first data key, its number, and the key as it is kept.
    pub(super) fn first_data_key(
        &self,
        tenant: TenantId,
    ) -> Result<(u32, Arc<DataKey>, Vec<u8>), NoRandomness> {
        let drawn = u32::from_le_bytes(*random::<4>()?);
        let number = FIRST_DATA_KEYS.start + drawn % (FIRST_DATA_KEYS.end - FIRST_DATA_KEYS.start);
        let key = Arc::new(DataKey::random()?);
        let sealed = self.seal_data_key(tenant, number, &key)?;
        Ok((number, key, sealed))
    }

    /// A data key as it is kept.
    pub(super) fn seal_data_key(
        &self,
        tenant: TenantId,
        number: u32,
        key: &DataKey,
    ) -> Result<Vec<u8>, NoRandomness> {
        self.operator
            .wrap(&self.about_data_key(tenant, number), key.expose())
    }

    /// A data key that a backend kept.
    pub(super) fn open_data_key(
        &self,
        tenant: TenantId,
        number: u32,
        sealed: &[u8],
    ) -> Result<Arc<DataKey>, Unsealed> {
        let bytes = open_key(&self.operator, &self.about_data_key(tenant, number), sealed)?;
        let key = Arc::new(DataKey::from_bytes(&bytes).ok_or(Unsealed::Unknown)?);
        self.remember_data_key(tenant, number, &key);
        Ok(key)
    }

    /// Holds a key open; only one that the backend has durably.
    pub(super) fn remember_data_key(&self, tenant: TenantId, number: u32, key: &Arc<DataKey>) {
        let mut open = self.open_keys();
        if open.len() >= OPEN_KEYS_MAX {
            open.clear();
        }
        open.entry(tenant).or_default().insert(number, key.clone());
    }

    /// A tenant's data key, if it is held open.
    pub(super) fn held_data_key(&self, tenant: TenantId, number: u32) -> Option<Arc<DataKey>> {
        self.open_keys().get(&tenant)?.get(&number).cloned()
    }

    /// The tenant's newest key, and its number, among those that are held open.
    fn newest_held_data_key(&self, tenant: TenantId) -> Option<(u32, Arc<DataKey>)> {
        let open = self.open_keys();
        let (number, key) = open.get(&tenant)?.last_key_value()?;
        Some((*number, key.clone()))
    }

    /// Lets go of every key held open: a tenant's are gone.
    pub(super) fn forget_data_keys(&self) {
        self.open_keys().clear();
    }

    fn open_keys(&self) -> MutexGuard<'_, OpenKeys> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seal(
        &self,
        kind: Kind,
        id: &RowId,
        head: Head,
        key: &DataKey,
        plain: &[u8],
    ) -> Result<Vec<u8>, NoRandomness> {
        let head = head.bytes();
        let mut row = head.to_vec();
        row.extend(key.seal(&self.about_row(kind, id, &head), plain)?);
        Ok(row)
    }

    fn open_row(
        &self,
        kind: Kind,
        id: &RowId,
        row: &[u8],
        key: &DataKey,
    ) -> Result<(Version, Zeroizing<Vec<u8>>), Unsealed> {
        let (head, sealed) = Head::split(row)?;
        let plain = key
            .open(&self.about_row(kind, id, &head.bytes()), sealed)
            .ok_or(Unsealed::Broken)?;
        Ok((head.version, plain))
    }

    /// What a row adds to the ledger.
    pub(super) fn element(&self, kind: Kind, id: &RowId, row: &[u8]) -> [u8; 32] {
        let mut hash = hmac::Context::with_key(&self.tally);
        hash.update(&about(&[kind.label(), id]));
        hash.update(row);
        digest(hash.sign())
    }

    fn about_row(&self, kind: Kind, id: &RowId, head: &[u8; HEAD_BYTES]) -> Vec<u8> {
        about(&[
            b"row",
            &SEAL.to_le_bytes(),
            &self.file,
            kind.label(),
            id,
            head,
        ])
    }

    fn about_data_key(&self, tenant: TenantId, number: u32) -> Vec<u8> {
        about(&[
            b"data key",
            &SEAL.to_le_bytes(),
            &self.file,
            &tenant,
            &number.to_le_bytes(),
        ])
    }
}

fn about_root() -> Vec<u8> {
    about(&[b"root", &SEAL.to_le_bytes()])
}

/// Opens a key that was sealed with the operator's.
fn open_key(
    operator: &SealingKey,
    about: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unsealed> {
    let (id, sealed) = sealed
        .split_first_chunk::<KEY_ID_BYTES>()
        .ok_or(Unsealed::Broken)?;
    let sealed_with = KeyId(*id);
    if sealed_with != operator.id {
        return Err(Unsealed::OtherKey { sealed_with });
    }
    operator.key.open(about, sealed).ok_or(Unsealed::Broken)
}

fn digest(tag: hmac::Tag) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(tag.as_ref());
    digest
}

// === impl Unsealed ===

impl From<Malformed> for Unsealed {
    fn from(_: Malformed) -> Self {
        Self::Unknown
    }
}

impl std::fmt::Display for Unsealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherKey { sealed_with } => write!(f, "sealed with another key, {sealed_with}"),
            Self::Broken => f.write_str("its seal is broken: it was changed or moved"),
            Self::Unknown => f.write_str("its layout is not known: a newer Keyfob wrote it"),
        }
    }
}

#[cfg(test)]
mod tests;
