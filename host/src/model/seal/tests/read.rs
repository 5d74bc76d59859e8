//! Reading answers: what a plugin sees, what is captured, what is withheld.

use http::header::{HeaderName, HeaderValue};

use super::*;

const TOKEN_ANSWER: &str = r#"{"access_token":"token-a1","token_type":"Bearer","expires_in":3600.50,
    "scope":"read write","refresh_token":"grant-r2-0987654321","id_token":"id.token.1","expires_at":"2030-01-01",
    "user":{"name":"Ada","id":12345678901234567890,"access_token":"nested-1"},"data":{"plan":"pro","id":"d1"},
    "error_hint":"none","flags":[true,null,"x"],"empty":""}"#;

#[test]
fn every_string_of_a_successful_answer_is_a_handle_except_what_may_be_read() {
    let mut vault = vault();
    let opened = vault
        .read(&post(Body::None), &answer(200, TOKEN_ANSWER))
        .unwrap();
    let body = json_of(&opened);
    for hidden in [
        "/access_token",
        "/refresh_token",
        "/id_token",
        "/user/name",
        "/user/access_token",
        "/data/id",
        "/flags/2",
    ] {
        handle_at(&opened, hidden);
    }
    for (pointer, plain) in [
        ("/token_type", "Bearer"),
        ("/scope", "read write"),
        ("/expires_at", "2030-01-01"),
        ("/data/plan", "pro"),
        ("/error_hint", "none"),
        ("/empty", ""),
    ] {
        assert_eq!(body.pointer(pointer).unwrap(), plain, "{pointer}");
    }
    let text = String::from_utf8(opened.response.body.clone()).unwrap();
    assert!(
        text.contains(r#""expires_in":3600.50"#) && text.contains(r#""id":12345678901234567890"#),
        "{text}"
    );
    assert_eq!(opened.verdict, Completeness::Token);
    assert_eq!(opened.grant.unwrap().expose(), "grant-r2-0987654321");
    assert_eq!(
        vault.captured_grant().unwrap().expose(),
        "grant-r2-0987654321"
    );
}

#[test]
fn an_unchanged_grant_is_no_new_one() {
    let mut vault = vault();
    vault.seal_grant(&GRANT.into());
    let body = format!(r#"{{"access_token":"token-a1","refresh_token":"{GRANT}"}}"#);
    let opened = vault.read(&post(Body::None), &answer(200, &body)).unwrap();
    assert!(opened.grant.is_none() && vault.captured_grant().is_none());
    handle_at(&opened, "/refresh_token");
}

#[test]
fn captures_find_tokens_wherever_they_stand() {
    let mut vault = vault();
    let request = capturing(&[
        ("/data/0/tok~1en", Holds::AccessToken),
        ("/data/0/refresh_token", Holds::AccessToken),
        ("/n", Holds::Other),
    ]);
    let body = r#"{"data":[{"tok/en":"token-a1","refresh_token":"grant-r9-abcdef"}],"n":42}"#;
    let opened = vault.read(&request, &answer(201, body)).unwrap();
    assert_eq!(opened.verdict, Completeness::Token);
    assert_eq!(
        opened.grant.as_ref().unwrap().expose(),
        "grant-r9-abcdef",
        "a refresh token by any name"
    );
    let token = handle_at(&opened, "/data/0/tok~1en");
    assert_eq!(
        vault.open(&token).unwrap().holds(),
        Some(Holds::AccessToken)
    );
    handle_at(&opened, "/n");
}

#[test]
fn a_token_that_nobody_captured_stays_hidden_and_what_it_is() {
    for (status, top) in [(200, "data"), (200, "error_data"), (400, "data")] {
        let mut vault = vault();
        let body = format!(
            r#"{{"{top}":{{"access_token":"token-a1","refresh_token":"grant-r2","id_token":"id-token-1","plan":{{"refresh_token":["grant-r3"]}}}}}}"#
        );
        let opened = vault
            .read(&post(Body::None), &answer(status, &body))
            .unwrap();
        for member in [
            "access_token",
            "refresh_token",
            "id_token",
            "plan/refresh_token/0",
        ] {
            handle_at(&opened, &format!("/{top}/{member}"));
        }
        let access = handle_at(&opened, &format!("/{top}/access_token"));
        assert_ne!(
            vault.open(&access).unwrap().holds(),
            Some(Holds::AccessToken)
        );
        let refresh = handle_at(&opened, &format!("/{top}/refresh_token"));
        assert!(
            vault
                .write(&form(&[("t", sealed(&refresh))]))
                .unwrap()
                .carries_grant
        );
    }
}

#[test]
fn what_lies_inside_a_captured_container_is_hidden_and_no_token() {
    let mut vault = vault();
    let request = capturing(&[("/box", Holds::AccessToken)]);
    let opened = vault
        .read(
            &request,
            &answer(200, r#"{"box":{"x":"token-a1","n":[7]}}"#),
        )
        .unwrap();
    assert_eq!(opened.verdict, Completeness::NoToken);
    assert_eq!(
        vault.open(&handle_at(&opened, "/box/x")).unwrap().holds(),
        Some(Holds::Other)
    );
    handle_at(&opened, "/box/n/0");
}

#[test]
fn verdicts_say_whether_the_issuer_did_it() {
    let html = "<html><body>Sign in</body></html>";
    for (status, body, verdict, note) in [
        (200, "", Completeness::NoToken, Some("empty")),
        (200, "  \n", Completeness::NoToken, Some("empty")),
        (200, html, Completeness::NoToken, Some("not_json")),
        (
            200,
            r#"{"access_token":"tok"#,
            Completeness::NoToken,
            Some("not_json"),
        ),
        (
            200,
            r#"{"access_token":"token-a1"} x"#,
            Completeness::NoToken,
            Some("not_json"),
        ),
        (
            200,
            r#"{"access_token":12345}"#,
            Completeness::NoToken,
            None,
        ),
        (200, r#"{"access_token":""}"#, Completeness::NoToken, None),
        (
            200,
            r#"{"access_token":["token-a1"]}"#,
            Completeness::NoToken,
            None,
        ),
        (200, r#"["token-a1"]"#, Completeness::NoToken, None),
        (
            200,
            r#"{"error":"bad_refresh_token"}"#,
            Completeness::Refused,
            None,
        ),
        (
            200,
            r#"{"error":"x","access_token":"token-a1"}"#,
            Completeness::Token,
            None,
        ),
        (
            200,
            "\u{feff}{\"access_token\":\"token-a1\"}",
            Completeness::Token,
            None,
        ),
        (204, "", Completeness::NoToken, Some("empty")),
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            Completeness::Refused,
            None,
        ),
        (
            401,
            r#"{"error":"invalid_client"}"#,
            Completeness::Refused,
            None,
        ),
        (401, html, Completeness::Ambiguous, Some("not_json")),
        (404, r#"{"message":"no"}"#, Completeness::Ambiguous, None),
        (
            400,
            r#"{"error":{"code":1}}"#,
            Completeness::Ambiguous,
            None,
        ),
        (429, "", Completeness::Refused, Some("empty")),
        (429, html, Completeness::Refused, Some("not_json")),
        (500, html, Completeness::Refused, Some("not_json")),
        (503, "", Completeness::Refused, Some("empty")),
        (502, html, Completeness::Ambiguous, Some("not_json")),
        (504, "", Completeness::Ambiguous, Some("empty")),
        (307, "", Completeness::Ambiguous, Some("empty")),
        (
            400,
            r#"{"access_token":"token-a1"}"#,
            Completeness::Ambiguous,
            None,
        ),
    ] {
        let opened = vault()
            .read(&post(Body::None), &answer(status, body))
            .unwrap();
        assert_eq!(
            (opened.verdict, opened.response.note.as_deref()),
            (verdict, note),
            "{status} {body}"
        );
        assert_eq!(
            opened.response.body.is_empty(),
            note.is_some(),
            "{status} {body}"
        );
        assert_eq!(opened.response.status, status);
    }
    let bytes = Answer {
        body: Bytes::from_static(b"\xff\xfe"),
        ..answer(200, "")
    };
    assert_eq!(
        vault()
            .read(&post(Body::None), &bytes)
            .unwrap()
            .response
            .note
            .as_deref(),
        Some("not_json")
    );
}

#[test]
fn error_answers_are_readable_but_for_tokens_and_what_was_sent() {
    let mut vault = vault();
    let grant = vault.seal_grant(&GRANT.into());
    let request = form(&[
        ("refresh_token", sealed(&grant)),
        ("client_secret", sec("client_secret")),
    ]);
    vault.write(&request).unwrap();
    let body = format!(
        r#"{{"error":"invalid_grant","error_description":"{GRANT} of {CLIENT_SECRET}","access_token":"token-a9","n":[1,{{"{CLIENT_SECRET}":"x"}}]}}"#
    );
    let mut raw = answer(400, &body);
    let headers = [
        (
            "www-authenticate",
            format!("Bearer error=\"{CLIENT_SECRET}\""),
        ),
        ("retry-after", "7".into()),
        ("x-ratelimit-reset", "9".into()),
        ("set-cookie", "a=b".into()),
        ("location", "https://x".into()),
    ];
    for (name, value) in headers {
        raw.headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_str(&value).unwrap(),
        );
    }
    let opened = vault.read(&request, &raw).unwrap();
    let body = json_of(&opened);
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(body["error_description"], "[redacted] of [redacted]");
    assert_eq!(body["n"], serde_json::json!([1, { "[redacted]": "x" }]));
    let token = handle_at(&opened, "/access_token");
    assert_eq!(
        vault.open(&token).unwrap().holds(),
        None,
        "no token comes from an error"
    );
    let mut headers = opened.response.headers;
    headers.sort();
    let expected = [
        ("retry-after", "7"),
        ("www-authenticate", "Bearer error=\"[redacted]\""),
        ("x-ratelimit-reset", "9"),
    ];
    assert_eq!(
        headers,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn an_error_brings_no_grant() {
    let mut vault = vault();
    let opened = vault
        .read(
            &post(Body::None),
            &answer(400, r#"{"refresh_token":"grant-r2"}"#),
        )
        .unwrap();
    assert!(opened.grant.is_none() && vault.captured_grant().is_none());
    handle_at(&opened, "/refresh_token");
}

#[test]
fn whatever_was_sent_is_not_read_when_it_is_repeated() {
    let mut vault = vault();
    let first = vault
        .read(
            &post(Body::None),
            &answer(200, r#"{"session":"session-4711"}"#),
        )
        .unwrap();
    let session = handle_at(&first, "/session");
    let basic = Auth::Basic {
        user: vec![sealed(&session)],
        password: vec![lit("")],
        encoding: BasicEncoding::Raw,
    };
    let request = HttpRequest {
        auth: Some(basic),
        ..form(&[("s", sealed(&session))])
    };
    let sent = vault.write(&request).unwrap();
    let header = sent.headers["authorization"].to_str().unwrap();
    let body = serde_json::json!({ "error": format!("session-4711, {header}") }).to_string();
    let opened = vault.read(&request, &answer(400, &body)).unwrap();
    assert_eq!(json_of(&opened)["error"], "[redacted], Basic [redacted]");
}

#[test]
fn a_token_repeated_in_a_readable_member_of_its_own_answer_is_not_read() {
    let body = r#"{"scope":"token-a1x and id-token-1x","error":"grant-r9-abcdef","data":{"plan":"captured-1"},"x":{"y":"captured-1"},
        "access_token":"token-a1x","id_token":"id-token-1x","refresh_token":"grant-r9-abcdef"}"#;
    let opened = vault()
        .read(&capturing(&[("/x/y", Holds::Other)]), &answer(200, body))
        .unwrap();
    let body = json_of(&opened);
    assert_eq!(body["scope"], "[redacted] and [redacted]");
    assert_eq!(body["error"], "[redacted]");
    assert_eq!(body["data"]["plan"], "[redacted]");
}

#[test]
fn a_member_named_twice_beside_a_token_is_a_refusal_that_loses_no_grant() {
    for body in [
        r#"{"access_token":"token-a1","access_token":"token-a2","refresh_token":"grant-r2"}"#,
        r#"{"access_token":"token-a1","scope":"a","scope":"b","refresh_token":"grant-r2"}"#,
        r#"{"refresh_token":"grant-r2","access_t\u006fken":"token-a1","access_token":"token-a2"}"#,
    ] {
        let mut vault = vault();
        let refused = vault
            .read(&post(Body::None), &answer(200, body))
            .map(|_| ())
            .unwrap_err();
        assert!(
            matches!(refused, Violation::DuplicateMember { .. }),
            "{body}"
        );
        assert_eq!(
            vault.captured_grant().unwrap().expose(),
            "grant-r2",
            "{body}"
        );
    }
    let mut vault = vault();
    let body =
        r#"{"refresh_token":"grant-r2","refresh_token":"grant-r3","access_token":"token-a1"}"#;
    assert!(vault.read(&post(Body::None), &answer(200, body)).is_err());
    assert!(
        vault.captured_grant().is_none(),
        "which of the two nobody knows"
    );
    let body = r#"{"data":{"a":1,"a":2},"access_token":"token-a1"}"#;
    assert!(
        vault.read(&post(Body::None), &answer(200, body)).is_ok(),
        "elsewhere it is the server's affair"
    );
    let nested = capturing(&[("/data/t", Holds::AccessToken)]);
    assert!(
        vault
            .read(
                &nested,
                &answer(200, r#"{"data":{"t":"x"},"data":{"t":"y"}}"#)
            )
            .is_err()
    );
}

#[test]
fn form_answers_follow_the_same_rules() {
    let mut vault = vault();
    let request = HttpRequest {
        answer: AnswerFormat::Form,
        captures: vec![Capture {
            at: "n".into(),
            holds: Holds::Other,
        }],
        ..post(Body::None)
    };
    let body = "access_token=token-a1&scope=repo%2Cuser&token_type=bearer&refresh_token=grant-r2&login=ada&n=1&expires_at=5&empty=";
    let opened = vault.read(&request, &answer(200, body)).unwrap();
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(&opened.response.body)
        .into_owned()
        .collect();
    let hidden: Vec<&str> = pairs
        .iter()
        .filter(|(_, value)| value.starts_with("sealed:"))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(hidden, ["access_token", "refresh_token", "login", "n"]);
    assert_eq!(pairs[1].1, "repo,user");
    assert_eq!(
        (opened.verdict, opened.grant.unwrap().expose().as_str()),
        (Completeness::Token, "grant-r2")
    );

    for (body, note) in [
        ("", "empty"),
        ("<html>a=b</html>", "not_form"),
        (r#"{"access_token":"a=b"}"#, "not_form"),
        ("token", "not_form"),
        ("a=b&", "not_form"),
    ] {
        let opened = vault.read(&request, &answer(200, body)).unwrap();
        assert_eq!(
            (opened.verdict, opened.response.note.as_deref()),
            (Completeness::NoToken, Some(note)),
            "{body}"
        );
    }
    let refused = r#"{"error":"invalid_grant"}"#;
    for (status, verdict) in [(400, Completeness::Refused), (200, Completeness::NoToken)] {
        let opened = vault.read(&request, &answer(status, refused)).unwrap();
        assert_eq!(
            opened.verdict, verdict,
            "{status}: an error that is no form"
        );
    }
    let twice = vault.read(&request, &answer(200, "access_token=a&access_token=b"));
    assert!(matches!(twice, Err(Violation::DuplicateMember { .. })));
    let error = vault
        .read(
            &request,
            &answer(200, "error=bad_verification_code&error_description=no"),
        )
        .unwrap();
    assert_eq!(error.verdict, Completeness::Refused);
    assert_eq!(
        error.response.body,
        b"error=bad_verification_code&error_description=no"
    );
}

#[test]
fn a_withheld_answer_is_not_read_but_its_grant_is_not_lost() {
    let mut vault = vault();
    let request = HttpRequest {
        answer: AnswerFormat::Withheld,
        ..post(Body::None)
    };
    let opened = vault.read(&request, &answer(200, TOKEN_ANSWER)).unwrap();
    assert!(opened.response.body.is_empty());
    assert_eq!(opened.response.note.as_deref(), Some("withheld"));
    assert!(opened.grant.is_some());
}

#[test]
fn an_answer_without_end_is_withheld_and_its_grant_kept() {
    let deep = format!(
        r#"{{"refresh_token":"grant-r2","access_token":"token-a1","x":{}1{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let wide = format!(
        r#"{{"refresh_token":"grant-r2","access_token":"token-a1","x":[{}"z"]}}"#,
        r#""y","#.repeat(HANDLES_MAX)
    );
    for (body, note) in [(deep, "too_deep"), (wide, "too_many")] {
        let opened = vault()
            .read(&post(Body::None), &answer(200, &body))
            .unwrap();
        assert_eq!(opened.response.note.as_deref(), Some(note));
        assert_eq!(opened.verdict, Completeness::Token);
        assert_eq!(opened.grant.unwrap().expose(), "grant-r2");
    }
}

#[test]
fn words_for_operators_hold_no_value_and_no_control_character() {
    let mut vault = vault();
    vault.seal_grant(&GRANT.into());
    let said = format!(
        "refused {GRANT}\r\nkeyfob: \u{202e}forged {}",
        hex_of(CLIENT_SECRET)
    );
    assert_eq!(
        vault.filter(&said, 512),
        "refused [redacted]  keyfob:  forged [redacted]"
    );
    let long = vault.filter(&"ü".repeat(400), 101);
    assert!(long.len() <= 101 && long.ends_with('…'), "{long}");
    assert_eq!(vault.filter("abc", 2), "");
    assert_eq!(vault.filter("abc", 3), "abc");
    // Cut after the filter: half a secret at the edge would not be found.
    assert!(
        !vault
            .filter(&format!("{}{CLIENT_SECRET}", "x".repeat(90)), 100)
            .contains(&CLIENT_SECRET[..5])
    );
}

fn hex_of(text: &str) -> String {
    crate::keys::hex(text.as_bytes())
}

#[test]
fn an_error_page_of_somebody_in_between_is_no_word_of_the_issuer() {
    let page = "<html><body>Request Timeout</body></html>";
    for status in [400, 401, 403, 404, 407, 408, 413, 431, 451, 499] {
        for body in ["", page, r#"{"message":"forbidden"}"#] {
            let opened = vault()
                .read(&post(Body::None), &answer(status, body))
                .unwrap();
            assert_eq!(opened.verdict, Completeness::Ambiguous, "{status} {body}");
        }
    }
}
