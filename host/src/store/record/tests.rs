//! What was written is read back, whole; what was cut or changed is refused.

use super::*;
use crate::model::credential::{
    Credential, CredentialState, EndCause, Fingerprint, Intent, Seen, Version,
};
use crate::model::key::{Audience, ScopeSet, TokenKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::token::{Generation, ObtainedToken, TokenRecord};
use crate::store::KeptPlugin;

fn key(subject: Option<&str>) -> CredentialKey {
    CredentialKey {
        tenant: Tenant::default(),
        provider: ProviderName::parse("acme").unwrap(),
        subject: subject.map(|subject| Subject::parse(subject).unwrap()),
    }
}

fn full(state: CredentialState) -> Credential {
    let time = UnixTime::from_millis;
    Credential {
        refresh_token: Some(Secret::from("grant".repeat(1000).as_str())),
        held: vec![
            ("session".into(), "held value".into()),
            (String::new(), "".into()),
        ],
        memo: vec![("cursor".into(), "17".into())],
        state,
        intent: Some(Intent {
            owner: [9; 16],
            at: time(1),
            over_at: time(u64::MAX),
        }),
        seen: Seen {
            stayed: false,
            rotated: true,
        },
        spent: vec![[1; 32], [2; 32]],
        grant_since: time(1_700_000_000_123),
        withdrawn: Version(41),
    }
}

/// The states that there are, each once.
fn states() -> Vec<CredentialState> {
    let time = UnixTime::from_millis(1_700_000_000_456);
    vec![
        CredentialState::Live,
        CredentialState::Suspended { until: time },
        CredentialState::Uncertain { since: time },
        CredentialState::ReauthorizationRequired {
            since: time,
            cause: EndCause::Refused,
        },
        CredentialState::ReauthorizationRequired {
            since: time,
            cause: EndCause::LostAnswer,
        },
        CredentialState::Revoked { at: time },
    ]
}

#[test]
fn every_member_of_a_credential_comes_back() {
    for state in states() {
        let key = key(Some("ada@example"));
        let bytes = encode_credential(&key, &full(state));
        let (whose, back) = decode_credential(&bytes).unwrap();
        assert_eq!(whose, key);
        assert_eq!(back.state, state);
        assert_eq!(
            back.refresh_token.as_ref().unwrap().expose(),
            &"grant".repeat(1000)
        );
        assert_eq!(back.held[0].1.expose(), "held value");
        assert_eq!(back.memo, [("cursor".into(), "17".into())]);
        assert_eq!(back.intent, full(state).intent);
        assert_eq!(
            (back.seen, back.grant_since, back.withdrawn),
            (full(state).seen, full(state).grant_since, Version(41))
        );
        assert_eq!(back.spent, [[1; 32], [2; 32]]);
        // And whatever was not compared above is in the bytes.
        assert_eq!(encode_credential(&key, &back), bytes);
    }
}

#[test]
fn no_subject_is_not_an_empty_one() {
    let bytes = encode_credential(&key(None), &Credential::default());
    assert_eq!(decode_credential(&bytes).unwrap().0, key(None));
}

#[test]
fn a_plugin_comes_back() {
    let plugin = KeptPlugin {
        instead_of: "builtin:oauth2".into(),
        component: [0, 1, 255].into(),
    };
    let (place, back) = decode_plugin(&encode_plugin("provider:acme", &plugin)).unwrap();
    assert_eq!(place, "provider:acme");
    assert_eq!(
        (back.instead_of, back.component),
        (plugin.instead_of, plugin.component)
    );
}

#[test]
fn bytes_that_were_cut_or_changed_are_refused_and_never_a_panic() {
    let bytes = encode_credential(&key(Some("ada")), &full(CredentialState::Live));
    for length in 0..bytes.len() {
        assert!(
            decode_credential(&bytes[..length]).is_err(),
            "{length} bytes"
        );
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] = 0xff;
        // May be a text of other letters; must not panic or take memory for a count that is not there.
        let _ = decode_credential(&changed);
        let _ = decode_plugin(&changed);
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(decode_credential(&longer).is_err());
}

#[test]
fn a_record_of_no_known_layout_is_refused() {
    let mut bytes = encode_credential(&key(None), &Credential::default()).to_vec();
    for layout in [0, 3, 255] {
        bytes[0] = layout;
        assert_eq!(decode_credential(&bytes).map(|_| ()), Err(Malformed));
    }
}

#[test]
fn a_credential_of_the_first_layout_is_read_as_what_it_was() {
    let key = key(Some("ada"));
    let mut bytes = encode_credential(&key, &full(CredentialState::Live)).to_vec();
    // What the first layout had is what the second begins with.
    bytes[0] = 1;
    bytes.truncate(bytes.len() - 8);
    let (whose, back) = decode_credential(&bytes).unwrap();
    assert_eq!(whose, key);
    assert_eq!(
        back,
        Credential {
            withdrawn: Version(0),
            ..full(CredentialState::Live)
        }
    );
}

#[test]
fn every_member_of_a_token_comes_back() {
    let time = UnixTime::from_millis;
    for (audience, scopes) in [(None, &[][..]), (Some("https://api"), &["a", "b"])] {
        let whose = TokenKey {
            credential: key(Some("ada")),
            audience: audience.map(|audience| Audience::parse(audience).unwrap()),
            scopes: ScopeSet::parse(scopes.iter().copied()).unwrap(),
        };
        let record = TokenRecord {
            token: ObtainedToken {
                value: "token".into(),
                token_type: "Bearer".into(),
                expires: time(2),
                issued: time(1),
                scopes: ScopeSet::parse(["granted"]).unwrap(),
                extra: vec![("instance_url".into(), "https://x".into())],
            },
            generation: Generation::from_number(7).unwrap(),
            fingerprint: Fingerprint([3; 32]),
            obtained_at: Version(5),
        };
        let bytes = encode_token(&whose, &record);
        let (back_whose, back) = decode_token(&bytes).unwrap();
        assert_eq!(back_whose, whose);
        assert_eq!(back.token.value.expose(), "token");
        assert_eq!(back.token.expires, time(2));
        assert_eq!(back.generation, record.generation);
        assert_eq!(back.obtained_at, Version(5));
        // And whatever was not compared above is in the bytes.
        assert_eq!(encode_token(&back_whose, &back), bytes);
        for length in 0..bytes.len() {
            assert!(decode_token(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}

#[test]
fn a_revocation_comes_back() {
    let at = UnixTime::from_millis(9);
    let bytes = encode_revocation(&key(None), at);
    assert_eq!(decode_revocation(&bytes), Ok((key(None), at)));
    assert!(decode_revocation(&bytes[1..]).is_err());
}
