//! Settling: which token may leave a flow, and with what.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::model::seal::settle::LIFETIME_MAX;

const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// A flow after one answer.
struct Flow {
    vault: Vault,
    grant: SealedValue,
    held: SealedValue,
    opened: Opened,
}

fn flow_with(body: &serde_json::Value, captures: &[(&str, Holds)]) -> Flow {
    let mut vault = vault();
    let grant = vault.seal_grant(&GRANT.into());
    let held = vault.seal_held(&"held-from-before".into());
    let request = HttpRequest {
        captures: capturing(captures).captures,
        ..form(&[
            ("refresh_token", sealed(&grant)),
            ("s", sec("client_secret")),
        ])
    };
    vault.write(&request).unwrap();
    let opened = vault
        .read(&request, &answer(200, &body.to_string()))
        .unwrap();
    Flow {
        vault,
        grant,
        held,
        opened,
    }
}

fn flow() -> Flow {
    flow_with(
        &serde_json::json!({
            "access_token": "token-a1", "refresh_token": "grant-r2-new", "id_token": "id-token-value", "other": "https://eu.acme.example",
            "same_id": "id-token-value", "echo": format!("<{CLIENT_SECRET}>"), "grant_echo": GRANT, "session": "session-1", "data": { "refresh_token": "grant-n1-nested" },
        }),
        &[],
    )
}

impl Flow {
    fn at(&self, pointer: &str) -> SealedValue {
        handle_at(&self.opened, pointer)
    }

    fn set(&self) -> TokenSet {
        TokenSet {
            access_token: self.at("/access_token"),
            token_type: "Bearer".to_owned(),
            expires: Expiry::FromAnswer(3600),
            scopes: None,
            refresh_token: None,
            extra: Vec::new(),
            held: Vec::new(),
            memo: Vec::new(),
        }
    }

    fn settle(&self, set: &TokenSet) -> Result<Settled, Violation> {
        let asked = ScopeSet::parse(["read"]).unwrap();
        self.vault.settle(set, &asked, NOW, DEFAULT_LIFETIME)
    }

    fn refused(&self, set: &TokenSet) -> Violation {
        self.settle(set).unwrap_err()
    }
}

#[test]
fn a_token_set_becomes_a_token() {
    let flow = flow();
    let set = TokenSet {
        scopes: Some(strings(&["b", "a"])),
        refresh_token: Some(flow.at("/refresh_token")),
        extra: vec![
            ("instance_url".into(), ExtraValue::Sealed(flow.at("/other"))),
            ("text".into(), ExtraValue::Text("eu".into())),
        ],
        held: vec![
            ("session".into(), flow.at("/session")),
            ("older".into(), flow.held.clone()),
        ],
        memo: vec![("shard".into(), format!("eu of {CLIENT_SECRET}"))],
        ..flow.set()
    };
    let settled = flow.settle(&set).unwrap();
    assert_eq!(settled.token.value.expose(), "token-a1");
    assert_eq!(
        settled.token.expires,
        UnixTime::from_secs(NOW.as_secs() + 3600)
    );
    assert_eq!(settled.token.issued, NOW);
    assert_eq!(settled.token.scopes.to_string(), "a b");
    assert_eq!(settled.refresh_token.unwrap().expose(), "grant-r2-new");
    assert_eq!(settled.token.extra[0].1.expose(), "https://eu.acme.example");
    assert_eq!(settled.held[0].1.expose(), "session-1");
    assert_eq!(settled.held[1].1.expose(), "held-from-before");
    assert_eq!(
        settled.memo,
        [("shard".to_owned(), "eu of [redacted]".to_owned())]
    );
}

#[test]
fn the_grant_of_this_flow_or_none_means_unchanged() {
    let flow = flow();
    let settled = flow
        .settle(&TokenSet {
            refresh_token: Some(flow.grant.clone()),
            ..flow.set()
        })
        .unwrap();
    assert!(settled.refresh_token.is_none());
    assert_eq!(
        flow.settle(&flow.set()).unwrap().token.scopes.to_string(),
        "read",
        "as asked"
    );
}

#[test]
fn an_access_token_comes_from_a_successful_answer_of_this_flow() {
    let flow = flow();
    let mut other = vault_with(9, &[]);
    let foreign = other.seal_held(&"token-a1".into());
    assert_eq!(
        flow.refused(&TokenSet {
            access_token: foreign,
            ..flow.set()
        }),
        Violation::UnknownHandle
    );
    for handle in [
        flow.grant.clone(),
        flow.held.clone(),
        flow.at("/refresh_token"),
        flow.at("/id_token"),
        flow.at("/other"),
    ] {
        let violation = flow.refused(&TokenSet {
            access_token: handle,
            ..flow.set()
        });
        assert!(
            matches!(
                violation,
                Violation::TokenSet {
                    member: "access_token",
                    ..
                }
            ),
            "{violation}"
        );
    }
    let mut flow = flow;
    let error = flow
        .vault
        .read(
            &post(Body::None),
            &answer(400, r#"{"access_token":"token-e1"}"#),
        )
        .unwrap();
    let violation = flow.refused(&TokenSet {
        access_token: handle_at(&error, "/access_token"),
        ..flow.set()
    });
    assert!(matches!(
        violation,
        Violation::TokenSet {
            member: "access_token",
            ..
        }
    ));
}

#[test]
fn no_secret_and_no_grant_is_handed_out_as_a_token() {
    for value in [
        CLIENT_SECRET.to_owned(),
        GRANT.to_owned(),
        format!("x{CLIENT_SECRET}y"),
        URL_SAFE_NO_PAD.encode(format!("id:{CLIENT_SECRET}")),
    ] {
        let flow = flow_with(&serde_json::json!({ "access_token": value }), &[]);
        assert_eq!(
            flow.refused(&flow.set()),
            Violation::Echo {
                what: "the access token"
            },
            "{value}"
        );
    }
    for value in [
        "tok en".to_owned(),
        "tok\r\nX: y".to_owned(),
        "tök".to_owned(),
        "x".repeat(17 * 1024),
    ] {
        let flow = flow_with(&serde_json::json!({ "access_token": value }), &[]);
        assert!(matches!(
            flow.refused(&flow.set()),
            Violation::TokenSet {
                member: "access_token",
                ..
            }
        ));
    }
}

#[test]
fn an_id_token_is_a_token_where_it_is_captured_as_one() {
    let flow = flow_with(
        &serde_json::json!({ "id_token": "id-token-value" }),
        &[("/id_token", Holds::AccessToken)],
    );
    let set = TokenSet {
        access_token: flow.at("/id_token"),
        ..flow_set(&flow)
    };
    assert_eq!(
        flow.settle(&set).unwrap().token.value.expose(),
        "id-token-value"
    );
}

fn flow_set(flow: &Flow) -> TokenSet {
    TokenSet {
        access_token: flow.held.clone(),
        token_type: "Bearer".to_owned(),
        expires: Expiry::FromAnswer(3600),
        scopes: None,
        refresh_token: None,
        extra: Vec::new(),
        held: Vec::new(),
        memo: Vec::new(),
    }
}

#[test]
fn extra_smuggles_nothing() {
    let flow = flow();
    let with = |value: ExtraValue| TokenSet {
        extra: vec![("text".into(), value)],
        ..flow.set()
    };
    for handle in [
        "/refresh_token",
        "/id_token",
        "/same_id",
        "/echo",
        "/grant_echo",
        "/data/refresh_token",
    ] {
        let violation = flow.refused(&with(ExtraValue::Sealed(flow.at(handle))));
        assert!(
            matches!(violation, Violation::Extra { .. } | Violation::Echo { .. }),
            "{handle}: {violation}"
        );
    }
    for handle in [flow.grant.clone(), flow.held.clone()] {
        assert!(matches!(
            flow.refused(&with(ExtraValue::Sealed(handle))),
            Violation::Extra { .. }
        ));
    }
    for text in [
        CLIENT_SECRET.to_owned(),
        format!("a{GRANT}b"),
        URL_SAFE_NO_PAD.encode(format!("..{NARROW}")),
        "id-token-value".into(),
    ] {
        assert_eq!(
            flow.refused(&with(ExtraValue::Text(text))),
            Violation::Echo {
                what: "an extra member"
            }
        );
    }
    let long = with(ExtraValue::Text("x".repeat(4097)));
    assert!(matches!(flow.refused(&long), Violation::Extra { .. }));
    let twice = TokenSet {
        extra: vec![("text".into(), ExtraValue::Text("1".into())); 2],
        ..flow.set()
    };
    assert!(matches!(flow.refused(&twice), Violation::Extra { .. }));
    let unexposed = TokenSet {
        extra: vec![("user_id".into(), ExtraValue::Text("1".into()))],
        ..flow.set()
    };
    let fix = flow
        .refused(&unexposed)
        .fix(&ProviderName::parse("acme").unwrap());
    assert_eq!(fix.unwrap(), r#"[providers.acme] expose += ["user_id"]"#);
}

#[test]
fn a_refresh_token_is_one_that_was_captured_or_held_as_such() {
    let flow = flow();
    for handle in [
        flow.at("/access_token"),
        flow.at("/other"),
        flow.held.clone(),
    ] {
        let violation = flow.refused(&TokenSet {
            refresh_token: Some(handle),
            ..flow.set()
        });
        assert!(matches!(
            violation,
            Violation::TokenSet {
                member: "refresh_token",
                ..
            }
        ));
    }
}

#[test]
fn nothing_kept_for_later_is_a_grant_or_a_secret() {
    let mut flow = flow();
    let signature = SignRequest::Bytes {
        key: "signing_key".into(),
        payload: vec![lit("x")],
        encoding: BytesEncoding::Hex,
    };
    let signature = flow.vault.sign(&signature, NOW).unwrap();
    for handle in [
        flow.grant.clone(),
        flow.at("/refresh_token"),
        flow.at("/grant_echo"),
        flow.at("/echo"),
        signature,
    ] {
        let violation = flow.refused(&TokenSet {
            held: vec![("kept".into(), handle)],
            ..flow.set()
        });
        assert!(
            matches!(
                violation,
                Violation::TokenSet { .. } | Violation::Echo { .. }
            ),
            "{violation}"
        );
    }
    let named = |name: &str| (name.to_owned(), flow.held.clone());
    for held in [
        vec![named("Bad Name")],
        vec![named("a"), named("a")],
        (0..9).map(|n| named(&format!("h{n}"))).collect(),
    ] {
        assert!(flow.settle(&TokenSet { held, ..flow.set() }).is_err());
    }
    for memo in [
        vec![("a".to_owned(), "x".repeat(1025))],
        (0..17).map(|n| (format!("m{n}"), String::new())).collect(),
    ] {
        assert!(flow.settle(&TokenSet { memo, ..flow.set() }).is_err());
    }
}

#[test]
fn a_token_type_is_a_token_of_the_rfc() {
    let flow = flow();
    for bad in [
        "",
        "Bearer x",
        "Bea\r\nrer",
        "\"mac\"",
        "ü",
        CLIENT_SECRET,
        &"x".repeat(65),
    ] {
        let violation = flow.refused(&TokenSet {
            token_type: bad.to_owned(),
            ..flow.set()
        });
        assert!(
            matches!(
                violation,
                Violation::TokenSet {
                    member: "token_type",
                    ..
                }
            ),
            "{bad}"
        );
    }
    for good in ["bearer", "DPoP", "N_A", "mac"] {
        assert!(
            flow.settle(&TokenSet {
                token_type: good.to_owned(),
                ..flow.set()
            })
            .is_ok()
        );
    }
    let bad_scope = TokenSet {
        scopes: Some(strings(&["a b"])),
        ..flow.set()
    };
    assert!(matches!(
        flow.refused(&bad_scope),
        Violation::TokenSet {
            member: "scopes",
            ..
        }
    ));
}

#[test]
fn a_token_without_life_is_dead_and_an_absurd_life_is_cut() {
    let flow = flow();
    let ends = |expires| {
        flow.settle(&TokenSet {
            expires,
            ..flow.set()
        })
        .map(|settled| settled.token.expires)
    };
    let now = u32::try_from(NOW.as_secs()).unwrap();
    for dead in [Expiry::FromAnswer(0), Expiry::At(now), Expiry::At(1)] {
        assert_eq!(ends(dead), Err(Violation::DeadOnArrival));
    }
    assert_eq!(
        ends(Expiry::FromAnswer(1)),
        Ok(NOW.plus(Duration::from_secs(1)))
    );
    assert_eq!(
        ends(Expiry::At(now + 7)),
        Ok(NOW.plus(Duration::from_secs(7)))
    );
    assert_eq!(
        ends(Expiry::FromAnswer(u32::MAX)),
        Ok(NOW.plus(LIFETIME_MAX))
    );
    assert_eq!(ends(Expiry::At(u32::MAX)), Ok(NOW.plus(LIFETIME_MAX)));
    assert_eq!(ends(Expiry::Unknown), Ok(NOW.plus(DEFAULT_LIFETIME)));
}

#[test]
fn an_unstated_expiry_is_read_from_a_token_that_is_shaped_like_a_jwt() {
    let jwt = |claims: &str| {
        format!(
            "eyJhbGciOiJub25lIn0.{}.c2ln",
            URL_SAFE_NO_PAD.encode(claims)
        )
    };
    let now = NOW.as_secs();
    for (token, expected) in [
        (
            jwt(&format!(r#"{{"exp":{}}}"#, now + 900)),
            Ok(NOW.plus(Duration::from_secs(900))),
        ),
        (
            jwt(&format!(r#"{{"exp":{}.5}}"#, now + 900)),
            Ok(NOW.plus(Duration::from_secs(900))),
        ),
        (jwt(r#"{"exp":1e300}"#), Ok(NOW.plus(LIFETIME_MAX))),
        (
            jwt(&format!(r#"{{"exp":{}}}"#, now - 1)),
            Err(Violation::DeadOnArrival),
        ),
        (jwt(r#"{"exp":-5}"#), Ok(NOW.plus(DEFAULT_LIFETIME))),
        (jwt(r#"{"exp":"soon"}"#), Ok(NOW.plus(DEFAULT_LIFETIME))),
        (jwt("[]"), Ok(NOW.plus(DEFAULT_LIFETIME))),
        ("a.b.c".into(), Ok(NOW.plus(DEFAULT_LIFETIME))),
        ("a.b.c.d.e".into(), Ok(NOW.plus(DEFAULT_LIFETIME))),
    ] {
        let flow = flow_with(&serde_json::json!({ "access_token": token }), &[]);
        let set = TokenSet {
            expires: Expiry::Unknown,
            ..flow.set()
        };
        assert_eq!(
            flow.settle(&set).map(|settled| settled.token.expires),
            expected,
            "{token}"
        );
    }
}
