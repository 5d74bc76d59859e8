//! What a backend is given to keep: every row sealed, its key a keyed hash. No backend is named here, and no I/O is done.
//!
//! ```text
//! operator's sealing key ──seals──▶ root: file id, index key, tally key, host key
//!                        ──seals──▶ one data key per tenant, numbered
//! data key of the tenant ──seals──▶ its credentials         host key ──seals──▶ plugins, ledger
//! index key ──names──▶ rows and tenants                      tally key ──sums──▶ the ledger
//! ```
//!
//! A row is sealed as a whole, together with where it stands: file, kind, row id (which is a keyed hash of tenant, provider
//! and subject), tenant, key number, version and schema. So no member of it can be taken from another row, another
//! version or another file. That a *whole* row is not an older one is what the [`Ledger`] is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::KeptPlugin;
use super::record::{self, Malformed};
use super::sealing::{DataKey, KEY_BYTES, KeyId, NoRandomness, SealingKey, about, random};
use crate::model::credential::{Credential, Stored, Version};
use crate::model::key::{CredentialKey, Tenant};

/// The schema written here. A file of a newer one is refused; an older one is migrated when there is one.
pub(super) const SCHEMA: u32 = 1;
/// Number of a tenant's first data key. Replacing a key counts on from here, so both can be read meanwhile.
pub(super) const FIRST_DATA_KEY: u32 = 1;
/// Stands for the host's own key, which is in the root.
const HOST_KEY: u32 = 0;
/// How many tenants' keys are held open: about a megabyte. Past it all are dropped and opened again when needed.
const OPEN_KEYS_MAX: usize = 10_000;
/// Bytes of a sealed key's header: the id of the key that sealed it.
const KEY_ID_BYTES: usize = 8;
/// Bytes of a row before its seal.
const HEAD_BYTES: usize = 16 + 4 + 8;

/// Where a row stands: a keyed hash of its identity.
pub(super) type RowId = [u8; 32];
/// Names a tenant: a keyed hash of its name.
pub(super) type TenantId = [u8; 16];

/// What is in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A credential.
    Credential,
    /// A plugin that was swapped in.
    Plugin,
}

/// What of a row is in the clear. All of it is authenticated by the seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// Whose key sealed it; zeros for the host's own.
    pub(super) tenant: TenantId,
    /// Which of that tenant's keys; 0 for the host's own.
    pub(super) key_number: u32,
    /// The version of the row.
    pub(super) version: Version,
}

/// A sum over all rows of a store: of keyed hashes, by exclusive or, so that one commit costs one hash for each row it
/// removes or adds. A row that was rolled back, removed or brought in by hand leaves it wrong, and nobody without the tally
/// key can make it right again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ledger {
    sum: [u8; 32],
    /// How many rows there are.
    pub(super) rows: u64,
}

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

/// The keys of one store.
pub(super) struct Vault {
    operator: SealingKey,
    file: [u8; 16],
    index: hmac::Key,
    tally: hmac::Key,
    host: DataKey,
    /// Data keys that were opened, at most [`OPEN_KEYS_MAX`]. Never held across I/O.
    open: Mutex<HashMap<(TenantId, u32), Arc<DataKey>>>,
}

// === impl Kind ===

impl Kind {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Credential => b"credential",
            Self::Plugin => b"plugin",
        }
    }
}

// === impl Head ===

impl Head {
    /// The head of a row that the host's own key seals.
    fn of_host(version: Version) -> Self {
        Self {
            tenant: TenantId::default(),
            key_number: HOST_KEY,
            version,
        }
    }

    /// The head of a row, and what follows it.
    pub(super) fn split(row: &[u8]) -> Result<(Self, &[u8]), Unsealed> {
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

    fn bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..16].copy_from_slice(&self.tenant);
        bytes[16..20].copy_from_slice(&self.key_number.to_le_bytes());
        bytes[20..].copy_from_slice(&self.version.0.to_le_bytes());
        bytes
    }
}

// === impl Ledger ===

impl Ledger {
    /// A row was added.
    pub(super) fn add(&mut self, element: [u8; 32]) {
        self.toggle(element);
        self.rows = self.rows.wrapping_add(1);
    }

    /// A row was removed.
    pub(super) fn remove(&mut self, element: [u8; 32]) {
        self.toggle(element);
        self.rows = self.rows.wrapping_sub(1);
    }

    fn toggle(&mut self, element: [u8; 32]) {
        self.sum
            .iter_mut()
            .zip(element)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
}

// === impl Vault ===

impl Vault {
    /// The keys of a new store, and its sealed root.
    pub(super) fn create(operator: SealingKey) -> Result<(Self, Vec<u8>), NoRandomness> {
        const ROOT_BYTES: usize = 16 + 3 * KEY_BYTES;
        let root = random::<ROOT_BYTES>()?;
        let mut sealed = operator.id.0.to_vec();
        sealed.extend(operator.key.seal(&about_root(), root.as_slice())?);
        let vault = Self::from_root(operator, root.as_slice())
            .expect("the root was made with the length that is read");
        Ok((vault, sealed))
    }

    /// The keys of a store that has this root.
    pub(super) fn open(operator: SealingKey, sealed_root: &[u8]) -> Result<Self, Unsealed> {
        let root = open_key(&operator, &about_root(), sealed_root)?;
        Self::from_root(operator, &root).ok_or(Unsealed::Unknown)
    }

    fn from_root(operator: SealingKey, root: &[u8]) -> Option<Self> {
        let (file, keys) = root.split_first_chunk::<16>()?;
        let (index, keys) = keys.split_at_checked(KEY_BYTES)?;
        let (tally, host) = keys.split_at_checked(KEY_BYTES)?;
        Some(Self {
            operator,
            file: *file,
            index: hmac::Key::new(hmac::HMAC_SHA256, index),
            tally: hmac::Key::new(hmac::HMAC_SHA256, tally),
            host: DataKey::from_bytes(host)?,
            open: Mutex::default(),
        })
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

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        digest(hmac::sign(&self.index, &about(parts)))
    }

    /// A new data key of a tenant, and the same sealed.
    pub(super) fn new_data_key(
        &self,
        tenant: TenantId,
        number: u32,
    ) -> Result<(Arc<DataKey>, Vec<u8>), NoRandomness> {
        let key = Arc::new(DataKey::random()?);
        let mut sealed = self.operator.id.0.to_vec();
        sealed.extend(
            self.operator
                .key
                .seal(&self.about_data_key(tenant, number), key.expose())?,
        );
        Ok((key, sealed))
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
        open.insert((tenant, number), key.clone());
    }

    /// A tenant's data key, if it is held open.
    pub(super) fn held_data_key(&self, tenant: TenantId, number: u32) -> Option<Arc<DataKey>> {
        self.open_keys().get(&(tenant, number)).cloned()
    }

    fn open_keys(&self) -> MutexGuard<'_, HashMap<(TenantId, u32), Arc<DataKey>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A credential as a row.
    pub(super) fn seal_credential(
        &self,
        head: Head,
        key: &DataKey,
        whose: &CredentialKey,
        credential: &Credential,
    ) -> Result<Vec<u8>, NoRandomness> {
        let plain = record::encode_credential(whose, credential);
        self.seal(
            Kind::Credential,
            &self.credential_id(whose),
            head,
            key,
            &plain,
        )
    }

    /// The credential of a row, and whose it is.
    pub(super) fn open_credential(
        &self,
        id: &RowId,
        row: &[u8],
        key: &DataKey,
    ) -> Result<(CredentialKey, Stored), Unsealed> {
        let (version, plain) = self.open_row(Kind::Credential, id, row, key)?;
        let (whose, credential) = record::decode_credential(&plain)?;
        if self.credential_id(&whose) != *id {
            return Err(Unsealed::Broken);
        }
        Ok((
            whose,
            Stored {
                version,
                credential,
            },
        ))
    }

    /// A plugin as a row.
    pub(super) fn seal_plugin(
        &self,
        version: Version,
        place: &str,
        plugin: &KeptPlugin,
    ) -> Result<Vec<u8>, NoRandomness> {
        let plain = record::encode_plugin(place, plugin);
        let head = Head::of_host(version);
        self.seal(
            Kind::Plugin,
            &self.plugin_id(place),
            head,
            &self.host,
            &plain,
        )
    }

    /// The plugin of a row, and its place.
    pub(super) fn open_plugin(
        &self,
        id: &RowId,
        row: &[u8],
    ) -> Result<(String, KeptPlugin), Unsealed> {
        let (_, plain) = self.open_row(Kind::Plugin, id, row, &self.host)?;
        let (place, plugin) = record::decode_plugin(&plain)?;
        if self.plugin_id(&place) != *id {
            return Err(Unsealed::Broken);
        }
        Ok((place, plugin))
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

    /// The ledger as a record.
    pub(super) fn seal_ledger(&self, ledger: &Ledger) -> Result<Vec<u8>, NoRandomness> {
        let mut plain = ledger.sum.to_vec();
        plain.extend(ledger.rows.to_le_bytes());
        self.host.seal(&self.about_ledger(), &plain)
    }

    /// The ledger of a record.
    pub(super) fn open_ledger(&self, sealed: &[u8]) -> Result<Ledger, Unsealed> {
        let plain = self
            .host
            .open(&self.about_ledger(), sealed)
            .ok_or(Unsealed::Broken)?;
        let (sum, rows) = plain.split_first_chunk().ok_or(Unsealed::Unknown)?;
        let rows = rows.try_into().map_err(|_| Unsealed::Unknown)?;
        Ok(Ledger {
            sum: *sum,
            rows: u64::from_le_bytes(rows),
        })
    }

    fn about_row(&self, kind: Kind, id: &RowId, head: &[u8; HEAD_BYTES]) -> Vec<u8> {
        about(&[
            b"row",
            &SCHEMA.to_le_bytes(),
            &self.file,
            kind.label(),
            id,
            head,
        ])
    }

    fn about_data_key(&self, tenant: TenantId, number: u32) -> Vec<u8> {
        about(&[
            b"data key",
            &SCHEMA.to_le_bytes(),
            &self.file,
            &tenant,
            &number.to_le_bytes(),
        ])
    }

    fn about_ledger(&self) -> Vec<u8> {
        about(&[b"ledger", &SCHEMA.to_le_bytes(), &self.file])
    }
}

fn about_root() -> Vec<u8> {
    about(&[b"root", &SCHEMA.to_le_bytes()])
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
mod tests {
    use super::*;
    use crate::model::key::{ProviderName, Subject};

    fn operator(byte: u8) -> SealingKey {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        SealingKey::parse(&text.into()).unwrap()
    }

    fn vault() -> Vault {
        Vault::create(operator(1)).unwrap().0
    }

    fn whose(tenant: &str, subject: Option<&str>) -> CredentialKey {
        CredentialKey {
            tenant: Tenant::parse(tenant).unwrap(),
            provider: ProviderName::parse("acme").unwrap(),
            subject: subject.map(|subject| Subject::parse(subject).unwrap()),
        }
    }

    fn head(vault: &Vault, key: &CredentialKey, version: u64) -> Head {
        Head {
            tenant: vault.tenant_id(&key.tenant),
            key_number: FIRST_DATA_KEY,
            version: Version(version),
        }
    }

    fn credential() -> Credential {
        Credential {
            refresh_token: Some("a-grant".into()),
            ..Credential::default()
        }
    }

    #[test]
    fn a_row_opens_only_where_it_was_sealed() {
        let vault = vault();
        let key = DataKey::random().unwrap();
        let ada = whose("one", Some("ada"));
        let row = vault
            .seal_credential(head(&vault, &ada, 7), &key, &ada, &credential())
            .unwrap();
        let (back, stored) = vault
            .open_credential(&vault.credential_id(&ada), &row, &key)
            .unwrap();
        assert_eq!((back, stored.version), (ada, Version(7)));

        for other in [
            whose("one", Some("bob")),
            whose("two", Some("ada")),
            whose("one", None),
        ] {
            let moved = vault.open_credential(&vault.credential_id(&other), &row, &key);
            assert_eq!(moved.map(|_| ()), Err(Unsealed::Broken));
        }
    }

    #[test]
    fn no_bit_of_a_row_can_change_its_version_and_tenant_included() {
        let vault = vault();
        let key = DataKey::random().unwrap();
        let ada = whose("one", Some("ada"));
        let id = vault.credential_id(&ada);
        let row = vault
            .seal_credential(head(&vault, &ada, 7), &key, &ada, &credential())
            .unwrap();
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                vault.open_credential(&id, &flipped, &key).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_row_of_another_file_is_refused_although_the_operator_is_the_same() {
        let (one, two) = (vault(), vault());
        let plugin = KeptPlugin {
            instead_of: "x".into(),
            component: [1].into(),
        };
        let row = one.seal_plugin(Version(1), "policy", &plugin).unwrap();
        assert!(one.open_plugin(&one.plugin_id("policy"), &row).is_ok());
        assert!(two.open_plugin(&one.plugin_id("policy"), &row).is_err());
        assert!(two.open_plugin(&two.plugin_id("policy"), &row).is_err());
    }

    /// Beside the identity in the row, which is compared too, the seal itself is bound to the place and to the file.
    #[test]
    fn a_seal_holds_for_one_place_of_one_file() {
        let root = |file: u8| [[file; 16].as_slice(), &[7; 3 * KEY_BYTES]].concat();
        let one = Vault::from_root(operator(1), &root(1)).unwrap();
        let two = Vault::from_root(operator(1), &root(2)).unwrap();
        let row = one.seal(
            Kind::Plugin,
            &[5; 32],
            Head::of_host(Version(1)),
            &one.host,
            b"x",
        );
        let row = row.unwrap();
        assert!(
            one.open_row(Kind::Plugin, &[5; 32], &row, &one.host)
                .is_ok()
        );
        assert!(
            one.open_row(Kind::Plugin, &[6; 32], &row, &one.host)
                .is_err()
        );
        assert!(
            one.open_row(Kind::Credential, &[5; 32], &row, &one.host)
                .is_err()
        );
        assert!(
            two.open_row(Kind::Plugin, &[5; 32], &row, &two.host)
                .is_err()
        );
    }

    #[test]
    fn another_sealing_key_is_named_and_a_broken_root_is_told_apart_from_it() {
        let (_, mut root) = Vault::create(operator(1)).unwrap();
        let refusal = Vault::open(operator(2), &root).map(|_| ()).unwrap_err();
        assert_eq!(
            refusal,
            Unsealed::OtherKey {
                sealed_with: operator(1).id
            }
        );
        *root.last_mut().unwrap() ^= 1;
        let refusal = Vault::open(operator(1), &root).map(|_| ()).unwrap_err();
        assert_eq!(refusal, Unsealed::Broken);
    }

    #[test]
    fn a_data_key_of_one_tenant_is_not_anothers() {
        let vault = vault();
        let (one, two) = ([1; 16], [2; 16]);
        let (_, sealed) = vault.new_data_key(one, FIRST_DATA_KEY).unwrap();
        assert!(vault.open_data_key(one, FIRST_DATA_KEY, &sealed).is_ok());
        assert!(vault.open_data_key(two, FIRST_DATA_KEY, &sealed).is_err());
        assert!(
            vault
                .open_data_key(one, FIRST_DATA_KEY + 1, &sealed)
                .is_err()
        );
    }

    #[test]
    fn keys_held_open_have_a_bound() {
        let vault = vault();
        let key = Arc::new(DataKey::random().unwrap());
        for number in 1..=u32::try_from(OPEN_KEYS_MAX).unwrap() + 5 {
            vault.remember_data_key([1; 16], number, &key);
        }
        assert!(vault.open_keys().len() <= OPEN_KEYS_MAX);
    }

    #[test]
    fn a_ledger_tells_a_row_that_was_replaced_removed_or_brought_back() {
        let vault = vault();
        let element = |id: u8, row: &[u8]| vault.element(Kind::Credential, &[id; 32], row);
        let mut ledger = Ledger::default();
        ledger.add(element(1, b"old"));
        ledger.add(element(2, b"other"));
        let before = ledger;
        ledger.remove(element(1, b"old"));
        assert_ne!(ledger, before);
        ledger.add(element(1, b"new"));
        assert_ne!(ledger, before);
        assert_eq!(ledger.rows, 2);

        let sealed = vault.seal_ledger(&ledger).unwrap();
        assert_eq!(vault.open_ledger(&sealed), Ok(ledger));
        assert!(super::tests::vault().open_ledger(&sealed).is_err());
    }
}
