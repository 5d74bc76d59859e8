//! What opens, and what does not.

use super::*;
use crate::model::credential::Credential;
use crate::model::key::{Audience, ProviderName, ScopeSet, Subject};
use crate::store::KeptPlugin;

/// The number of a data key.
const NUMBER: u32 = 7;

fn operator(byte: u8) -> SealingKey {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    SealingKey::parse(&text.into()).unwrap()
}

fn vault() -> Vault {
    Vault::create(operator(1)).unwrap()
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
        key_number: NUMBER,
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
    let root = |file: u8| Zeroizing::new([[file; 16].as_slice(), &[7; 4 * KEY_BYTES]].concat());
    let one = Vault::from_root(operator(1), root(1)).unwrap();
    let two = Vault::from_root(operator(1), root(2)).unwrap();
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
    let mut root = Vault::create(operator(1)).unwrap().seal_root().unwrap();
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
    let (number, _, sealed) = vault.first_data_key(one).unwrap();
    assert!(vault.open_data_key(one, number, &sealed).is_ok());
    assert!(vault.open_data_key(two, number, &sealed).is_err());
    assert!(vault.open_data_key(one, number + 1, &sealed).is_err());
}

#[test]
fn keys_held_open_have_a_bound() {
    let vault = vault();
    let key = Arc::new(DataKey::random().unwrap());
    for number in 0..OPEN_KEYS_MAX as u64 + 5 {
        let mut tenant = TenantId::default();
        tenant[..8].copy_from_slice(&number.to_le_bytes());
        vault.remember_data_key(tenant, NUMBER, &key);
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
    assert!(self::vault().open_ledger(&sealed).is_err());
}

#[test]
fn a_first_root_keeps_the_fingerprints_of_the_key_it_was_made_with() {
    let first = Zeroizing::new([9; 16 + FIRST_ROOT_KEYS * KEY_BYTES].to_vec());
    let sealed = operator(1).wrap(&about_root(), &first).unwrap();
    let old = Vault::open(operator(1), &sealed).unwrap();
    assert_eq!(
        old.fingerprints().expose(),
        operator(1).fingerprints.expose()
    );
    // And through another operator's key, and a new sealing of the root.
    let moved = old.under(operator(2));
    let again = Vault::open(operator(2), &moved.seal_root().unwrap()).unwrap();
    assert_eq!(again.fingerprints().expose(), old.fingerprints().expose());
    assert_eq!(
        again.credential_id(&whose("one", None)),
        old.credential_id(&whose("one", None))
    );
}

#[test]
fn a_data_key_wrapped_anew_opens_the_rows_of_before() {
    let old = vault();
    let ada = whose("one", Some("ada"));
    let tenant = old.tenant_id(&ada.tenant);
    let key = DataKey::random().unwrap();
    let row = old
        .seal_credential(head(&old, &ada, 7), &key, &ada, &credential())
        .unwrap();
    let new = old.under(operator(2));
    let wrapped = new.seal_data_key(tenant, NUMBER, &key).unwrap();
    let key = new.open_data_key(tenant, NUMBER, &wrapped).unwrap();
    assert!(
        new.open_credential(&new.credential_id(&ada), &row, &key)
            .is_ok()
    );
    assert!(old.open_data_key(tenant, NUMBER, &wrapped).is_err());
}

#[test]
fn tokens_that_differ_in_anything_stand_in_different_places() {
    let vault = vault();
    let token = |subject, audience: Option<&str>, scopes: &[&str]| TokenKey {
        credential: whose("one", subject),
        audience: audience.map(|it| Audience::parse(it).unwrap()),
        scopes: ScopeSet::parse(scopes.iter().copied()).unwrap(),
    };
    let all = [
        token(None, None, &[]),
        token(Some("ada"), None, &[]),
        token(None, Some("a"), &[]),
        token(None, None, &["a"]),
        token(None, Some("a"), &["b"]),
        token(None, None, &["a", "b"]),
        token(None, None, &["for", "a"]),
    ];
    let mut ids: Vec<_> = all.iter().map(|key| vault.token_id(key)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len());
}
