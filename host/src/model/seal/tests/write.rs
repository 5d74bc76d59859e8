//! Writing requests: every value in its place, and nowhere else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn refused(request: &HttpRequest) -> Violation {
    vault().write(request).unwrap_err()
}

#[test]
fn secrets_stand_where_they_are_granted() {
    let basic = |encoding| Auth::Basic {
        user: vec![lit("my:client")],
        password: vec![sec("client_secret")],
        encoding,
    };
    let request = HttpRequest {
        auth: Some(basic(BasicEncoding::Form)),
        headers: vec![
            field("X-Api-Key", [sec("api_key")]),
            field("Accept", [lit("text/x")]),
        ],
        query: vec![field("a b", [lit("c&d")])],
        ..form(&[
            ("client_secret", sec("client_secret")),
            ("api_key", sec("api_key")),
        ])
    };
    let written = vault().write(&request).unwrap();
    let expected = format!(
        "Basic {}",
        STANDARD.encode(format!("my%3Aclient:{CLIENT_SECRET}"))
    );
    assert_eq!(written.headers["authorization"], expected);
    assert!(written.headers["authorization"].is_sensitive());
    assert_eq!(written.headers["x-api-key"], API_KEY);
    assert!(written.headers["x-api-key"].is_sensitive());
    assert_eq!(written.headers["accept"], "text/x");
    assert_eq!(
        written.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        body_of(&written),
        format!("client_secret={CLIENT_SECRET}&api_key=api%2Bkey%2Ffor%3Dheaders")
    );
    assert_eq!(written.url.as_str(), format!("{TOKEN_URL}?a+b=c%26d"));
    assert!(!written.carries_grant);
    assert_eq!(format!("{written:?}"), format!("POST {TOKEN_URL}"));
}

#[test]
fn secrets_stand_nowhere_else() {
    let place = |secret: &str, place: &str| Violation::SecretPlace {
        secret: secret.into(),
        place: place.into(),
    };
    let with_header = |name: &str, value| HttpRequest {
        headers: vec![field(name, [value])],
        ..post(Body::None)
    };
    let cases = [
        (
            HttpRequest {
                query: vec![field("q", [sec("client_secret")])],
                ..post(Body::None)
            },
            place("client_secret", "query:q"),
        ),
        (
            with_header("X-Other", sec("client_secret")),
            place("client_secret", "header:x-other"),
        ),
        (
            with_header("X-Other", sec("api_key")),
            place("api_key", "header:x-other"),
        ),
        (
            form(&[("client_secret", sec("api_key"))]),
            place("api_key", "form:client_secret"),
        ),
        (
            post(Body::Text(vec![sec("api_key")])),
            place("api_key", "text"),
        ),
        (
            post(Body::Json(vec![sec("api_key")])),
            place("api_key", "json"),
        ),
        (
            HttpRequest {
                auth: Some(Auth::Bearer(vec![sec("api_key")])),
                ..post(Body::None)
            },
            place("api_key", "auth"),
        ),
        (
            form(&[("x", sec("billing_secret"))]),
            Violation::UnknownSecret {
                secret: "billing_secret".into(),
            },
        ),
        (
            form(&[("x", sec("signing_key"))]),
            Violation::KeyAsValue {
                secret: "signing_key".into(),
            },
        ),
        (
            form(&[("x", sec("narrow"))]),
            Violation::SecretDestination {
                secret: "narrow".into(),
                url: TOKEN_URL.into(),
            },
        ),
    ];
    for (request, violation) in cases {
        assert_eq!(refused(&request), violation);
    }
    let narrow = HttpRequest {
        url: NARROW_URL.to_owned(),
        ..form(&[("x", sec("narrow"))])
    };
    assert_eq!(
        body_of(&vault().write(&narrow).unwrap()),
        format!("x={NARROW}")
    );
}

#[test]
fn a_denial_names_the_line_to_write() {
    let fix = |violation: Violation| {
        violation
            .fix(&ProviderName::parse("acme").unwrap())
            .unwrap()
    };
    let elsewhere = HttpRequest {
        url: "https://api.acme.example/x".to_owned(),
        ..post(Body::None)
    };
    assert_eq!(
        fix(refused(&elsewhere)),
        r#"[providers.acme] allow += ["https://api.acme.example/x"]"#
    );
    let header = HttpRequest {
        headers: vec![field("X-Other", [sec("api_key")])],
        ..post(Body::None)
    };
    assert_eq!(
        fix(refused(&header)),
        r#"[providers.acme] secrets.api_key: in += ["header:x-other"]"#
    );
    let narrow = form(&[("x", sec("narrow"))]);
    assert_eq!(
        fix(refused(&narrow)),
        format!("[providers.acme] secrets.narrow: to += [{TOKEN_URL:?}]")
    );
    let query = HttpRequest {
        query: vec![field("q", [sec("api_key")])],
        ..post(Body::None)
    };
    assert_eq!(
        refused(&query).fix(&ProviderName::parse("acme").unwrap()),
        None,
        "no line can grant this"
    );
}

#[test]
fn nothing_splits_a_header() {
    for text in ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\u{7f}", "ü"] {
        let header = HttpRequest {
            headers: vec![field("X-A", [lit(text)])],
            ..post(Body::None)
        };
        assert!(
            matches!(refused(&header), Violation::Field { what: "header", .. }),
            "{text:?}"
        );
        let bearer = HttpRequest {
            auth: Some(Auth::Bearer(vec![lit(text)])),
            ..post(Body::None)
        };
        assert!(
            matches!(refused(&bearer), Violation::Field { what: "auth", .. }),
            "{text:?}"
        );
    }
    for name in ["X-A\r\nX-Evil", "X A", ":path", "", "X-Ü", "X:"] {
        let header = HttpRequest {
            headers: vec![field(name, [lit("a")])],
            ..post(Body::None)
        };
        assert!(
            matches!(refused(&header), Violation::Field { what: "header", .. }),
            "{name:?}"
        );
    }
    let mut vault = vault_with(1, &[("split", "line\r\nbreak: 1")]);
    let raw = |user: Segment, password| Auth::Basic {
        user: vec![user],
        password: vec![password],
        encoding: BasicEncoding::Raw,
    };
    for auth in [
        raw(lit("u"), sec("split")),
        raw(lit("u:v"), lit("p")),
        Auth::Bearer(vec![sec("split")]),
    ] {
        let request = HttpRequest {
            auth: Some(auth),
            ..post(Body::None)
        };
        assert!(matches!(
            vault.write(&request).unwrap_err(),
            Violation::Field { what: "auth", .. }
        ));
    }
}

#[test]
fn headers_of_the_host_stay_its_own() {
    for name in [
        "Host",
        "content-length",
        "Connection",
        "Transfer-Encoding",
        "authorization",
        "TE",
        "Upgrade",
        "Proxy-Authorization",
        "proxy-connection",
        "Expect",
        "Accept-Encoding",
    ] {
        let header = HttpRequest {
            headers: vec![field(name, [lit("x")])],
            ..post(Body::None)
        };
        assert!(
            matches!(
                refused(&header),
                Violation::Field {
                    why: "belongs to the host",
                    ..
                }
            ),
            "{name}"
        );
    }
    let twice = HttpRequest {
        headers: vec![field("X-A", [lit("1")]), field("x-a", [lit("2")])],
        ..post(Body::None)
    };
    assert!(matches!(
        refused(&twice),
        Violation::Field {
            why: "is there twice",
            ..
        }
    ));
}

#[test]
fn only_five_methods_leave() {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(
            vault()
                .write(&HttpRequest {
                    method: method.to_owned(),
                    ..post(Body::None)
                })
                .is_ok()
        );
    }
    for method in [
        "get",
        "CONNECT",
        "TRACE",
        "OPTIONS",
        "",
        "POST /x HTTP/1.1\r\nHost: evil",
        CLIENT_SECRET,
    ] {
        assert_eq!(
            refused(&HttpRequest {
                method: method.to_owned(),
                ..post(Body::None)
            }),
            Violation::Method
        );
    }
}

#[test]
fn values_enter_json_as_strings_and_only_between_literals() {
    let json = |segments: Vec<Segment>| {
        vault_with(1, &[("odd", "a\"b\\c\n{}")]).write(&post(Body::Json(segments)))
    };
    let written = json(vec![lit(r#"{"s":"#), sec("odd"), lit(r#","n":1}"#)]).unwrap();
    assert_eq!(body_of(&written), r#"{"s":"a\"b\\c\n{}","n":1}"#);
    assert_eq!(written.headers["content-type"], "application/json");
    for segments in [
        vec![lit(r#"{"s":"x"#), sec("odd"), lit(r#"y"}"#)],
        vec![lit(r#"{"s":"\"#), sec("odd"), lit("}")],
        vec![lit(r#"{"s":"#), sec("odd")],
        vec![sec("odd"), sec("odd")],
        vec![lit(r#"{"s":"#), sec("odd"), lit("} {}")],
        vec![],
    ] {
        assert!(
            matches!(
                json(segments.clone()).unwrap_err(),
                Violation::JsonBody { .. }
            ),
            "{segments:?}"
        );
    }
}

#[test]
fn the_grant_goes_into_auth_and_body_and_marks_its_request() {
    let mut vault = vault();
    let grant = vault.seal_grant(&GRANT.into());
    let bearer = HttpRequest {
        auth: Some(Auth::Bearer(vec![sealed(&grant)])),
        ..post(Body::None)
    };
    for request in [
        form(&[("refresh_token", sealed(&grant))]),
        post(Body::Json(vec![sealed(&grant)])),
        post(Body::Text(vec![lit("t="), sealed(&grant)])),
        bearer,
    ] {
        assert!(vault.write(&request).unwrap().carries_grant);
    }
    for request in [
        HttpRequest {
            headers: vec![field("X-T", [sealed(&grant)])],
            ..post(Body::None)
        },
        HttpRequest {
            query: vec![field("t", [sealed(&grant)])],
            ..post(Body::None)
        },
    ] {
        assert!(matches!(
            vault.write(&request).unwrap_err(),
            Violation::SealedPlace { .. }
        ));
    }
    assert!(
        !vault
            .write(&form(&[("x", lit("y"))]))
            .unwrap()
            .carries_grant
    );
}

#[test]
fn values_of_answers_and_kept_ones_may_go_into_headers_and_never_into_a_query() {
    let mut vault = vault();
    let held = vault.seal_held(&"session-4711".into());
    let header = HttpRequest {
        headers: vec![field("X-Session", [lit("s "), sealed(&held)])],
        ..post(Body::None)
    };
    let written = vault.write(&header).unwrap();
    assert_eq!(written.headers["x-session"], "s session-4711");
    assert!(written.headers["x-session"].is_sensitive());
    let query = HttpRequest {
        query: vec![field("s", [sealed(&held)])],
        ..post(Body::None)
    };
    assert_eq!(
        vault.write(&query).unwrap_err(),
        Violation::SealedPlace {
            place: "query:s".into()
        }
    );
}

#[test]
fn a_handle_of_another_flow_means_nothing() {
    let (mut mine, mut theirs) = (vault_with(1, &[]), vault_with(2, &[]));
    let foreign = theirs.seal_grant(&GRANT.into());
    let own = mine.seal_grant(&GRANT.into());
    assert_ne!(own.handle, foreign.handle);
    assert!(own.handle.len() <= 64);
    let invented = SealedValue {
        handle: format!("sealed:{}", "0".repeat(32)),
    };
    for handle in [
        foreign,
        invented,
        SealedValue {
            handle: String::new(),
        },
    ] {
        assert_eq!(
            mine.write(&form(&[("t", sealed(&handle))])).unwrap_err(),
            Violation::UnknownHandle
        );
    }
}

#[test]
fn a_secret_that_a_server_repeats_cannot_be_carried_on_by_its_handle() {
    let mut vault = vault();
    let request = form(&[("client_secret", sec("client_secret"))]);
    vault.write(&request).unwrap();
    for echo in [
        CLIENT_SECRET.to_owned(),
        format!("you sent {CLIENT_SECRET}!"),
        STANDARD.encode(format!("id:{NARROW}")),
    ] {
        let body = serde_json::json!({ "echo": echo }).to_string();
        let opened = vault.read(&request, &answer(200, &body)).unwrap();
        let smuggled = form(&[("x", sealed(&handle_at(&opened, "/echo")))]);
        assert!(
            matches!(vault.write(&smuggled).unwrap_err(), Violation::Echo { .. }),
            "{echo}"
        );
    }
    let grant = vault.seal_grant(&GRANT.into());
    vault
        .write(&form(&[("refresh_token", sealed(&grant))]))
        .unwrap();
    let body = format!(r#"{{"echo":"token {GRANT}"}}"#);
    let opened = vault.read(&request, &answer(200, &body)).unwrap();
    let echo = sealed(&handle_at(&opened, "/echo"));
    assert!(
        vault
            .write(&form(&[("x", echo.clone())]))
            .unwrap()
            .carries_grant,
        "a grant in disguise"
    );
    let header = HttpRequest {
        headers: vec![field("X", [echo])],
        ..post(Body::None)
    };
    assert!(matches!(
        vault.write(&header).unwrap_err(),
        Violation::SealedPlace { .. }
    ));
}

#[test]
fn a_signature_goes_where_its_key_may_go() {
    let mut vault = vault();
    let claims = serde_json::json!({ "iss": "svc", "aud": "https://login.acme.example/oauth2", "exp": NOW.as_secs() + 60 });
    let jwt = SignRequest::Jwt {
        key: "signing_key".into(),
        header: "{}".into(),
        claims: claims.to_string(),
    };
    let signature = vault.sign(&jwt, NOW).unwrap();
    let at = |url: &str, name: &str| HttpRequest {
        url: url.to_owned(),
        ..form(&[(name, sealed(&signature))])
    };
    let written = vault.write(&at(NARROW_URL, "client_assertion")).unwrap();
    let token = body_of(&written).strip_prefix("client_assertion=").unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(!written.carries_grant);
    let elsewhere = vault.write(&at(TOKEN_URL, "client_assertion")).unwrap_err();
    assert!(matches!(elsewhere, Violation::SecretDestination { .. }));
    let other = vault.write(&at(NARROW_URL, "assertion")).unwrap_err();
    assert_eq!(
        other,
        Violation::SecretPlace {
            secret: "signing_key".into(),
            place: "form:assertion".into()
        }
    );
}

#[test]
fn signing_asks_for_a_key_of_this_provider_and_reads_what_it_signs() {
    let mut vault = vault();
    let grant = vault.seal_grant(&GRANT.into());
    let bytes = |key: &str, payload: Vec<Segment>| SignRequest::Bytes {
        key: key.into(),
        payload,
        encoding: BytesEncoding::Hex,
    };
    let jwt = |claims: &str| SignRequest::Jwt {
        key: "signing_key".into(),
        header: "{}".into(),
        claims: claims.into(),
    };
    let smuggled = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJldmlsIn0";
    let foreign = SealedValue {
        handle: "sealed:00".into(),
    };
    let cases = [
        (bytes("client_secret", vec![lit("x")]), "not_a_key"),
        (bytes("other_key", vec![lit("x")]), "unknown_secret"),
        (
            bytes("signing_key", vec![sec("client_secret")]),
            "secret_place_not_granted",
        ),
        (bytes("signing_key", vec![lit(smuggled)]), "jwt_as_bytes"),
        (
            bytes("signing_key", vec![sealed(&foreign)]),
            "unknown_handle",
        ),
        (
            bytes("signing_key", vec![lit(&"x".repeat(REQUEST_MAX_BYTES + 1))]),
            "too_large",
        ),
        (
            bytes("signing_key", vec![lit("x"); SEGMENTS_MAX + 1]),
            "too_large",
        ),
        (jwt("{}"), "bad_jwt"),
        (
            jwt(r#"{"exp":1700000060,"aud":"https://evil.example"}"#),
            "bad_jwt",
        ),
    ];
    for (request, label) in cases {
        assert_eq!(
            vault.sign(&request, NOW).unwrap_err().label(),
            label,
            "{request:?}"
        );
    }
    let signature = vault
        .sign(&bytes("signing_key", vec![lit("ts:"), sealed(&grant)]), NOW)
        .unwrap();
    let request = HttpRequest {
        url: NARROW_URL.to_owned(),
        ..form(&[("client_assertion", sealed(&signature))])
    };
    assert!(
        vault.write(&request).unwrap().carries_grant,
        "made from the grant"
    );
    let audience = vault
        .sign(&jwt(r#"{"exp":1700000060,"aud":"urn:x"}"#), NOW)
        .unwrap_err();
    let fix = audience.fix(&ProviderName::parse("acme").unwrap()).unwrap();
    assert_eq!(
        fix,
        r#"[providers.acme] secrets.signing_key: audiences += ["urn:x"]"#
    );
}

#[test]
fn everything_has_a_bound() {
    let many = |n: usize| {
        (0..n)
            .map(|at| field(&format!("f{at}"), [lit("x")]))
            .collect::<Vec<_>>()
    };
    let captures = |n: usize, at: &str| {
        vec![
            Capture {
                at: at.to_owned(),
                holds: Holds::Other
            };
            n
        ]
    };
    let cases = [
        (
            HttpRequest {
                headers: many(FIELDS_MAX + 1),
                ..post(Body::None)
            },
            "too_large",
        ),
        (
            HttpRequest {
                query: many(FIELDS_MAX + 1),
                ..post(Body::None)
            },
            "too_large",
        ),
        (post(Body::Form(many(FIELDS_MAX + 1))), "too_large"),
        (
            post(Body::Form(vec![field(
                "x",
                vec![lit("y"); SEGMENTS_MAX + 1],
            )])),
            "too_large",
        ),
        (
            post(Body::Text(vec![lit(&"x".repeat(REQUEST_MAX_BYTES))])),
            "too_large",
        ),
        (
            post(Body::Text(vec![sec("client_secret"); SEGMENTS_MAX + 1])),
            "too_large",
        ),
        (
            form(&[(&"n".repeat(FIELD_NAME_MAX_BYTES + 1), lit("x"))]),
            "bad_field",
        ),
        (form(&[("", lit("x"))]), "bad_field"),
        (
            HttpRequest {
                captures: captures(CAPTURES_MAX + 1, "/a"),
                ..post(Body::None)
            },
            "too_large",
        ),
        (
            HttpRequest {
                captures: captures(1, "a"),
                ..post(Body::None)
            },
            "bad_capture",
        ),
        (
            HttpRequest {
                captures: captures(1, "/a~2"),
                ..post(Body::None)
            },
            "bad_capture",
        ),
        (
            HttpRequest {
                captures: captures(1, &"/a".repeat(200)),
                ..post(Body::None)
            },
            "bad_capture",
        ),
    ];
    for (at, (request, label)) in cases.into_iter().enumerate() {
        assert_eq!(refused(&request).label(), label, "case {at}");
    }
}

#[test]
fn a_vault_does_not_print() {
    assert_eq!(format!("{:?}", vault()), "Vault");
}
