//! What must hold for any answer, any text and any URL.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::seal::json::{is_readable, pointer_of};

/// Values as issuers and operators make them, the awkward ones included.
fn any_secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9_-]{6,40}",
        "[ -~]{8,24}",
        "[a-zA-Z0-9+/=&%\"\\\\ü€𝄞]{8,24}"
    ]
    .prop_filter("not blank", |text| text.trim().len() >= 6)
}

/// One of the ways a server repeats what it was sent.
fn encodings(text: &str) -> Vec<String> {
    vec![
        text.to_owned(),
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(),
        text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        STANDARD.encode(text),
        URL_SAFE_NO_PAD.encode(text),
        crate::keys::hex(text.as_bytes()),
        Value::from(text).to_string(),
        text.encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect(),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let name = "[a-z_]{1,10}|access_token|refresh_token|id_token|error_x|scope|data|plan|expires_at|[a-z/~]{1,4}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Puts `text` somewhere into `value`: instead of the `at`-th leaf, and as the name of a member.
fn plant(value: &mut Value, text: &str, at: &mut usize) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| plant(one, text, at)),
        Value::Object(members) => {
            members.values_mut().for_each(|one| plant(one, text, at));
            if *at == 0 {
                members.insert(text.to_owned(), Value::Null);
            }
        }
        leaf => {
            if *at == 0 {
                *leaf = text.into();
            }
            *at = at.checked_sub(1).unwrap_or(usize::MAX);
        }
    }
}

/// Same structure; strings are handles of what they were, or what may be read.
fn matches(vault: &Vault, was: &Value, is: &Value, path: &str) -> bool {
    match (was, is) {
        (Value::String(was), Value::String(is)) => {
            let handle = SealedValue { handle: is.clone() };
            was == is
                || vault
                    .open(&handle)
                    .is_ok_and(|sealed| sealed.value.expose() == was)
        }
        (Value::Array(was), Value::Array(is)) => {
            was.len() == is.len()
                && was
                    .iter()
                    .zip(is)
                    .all(|(was, is)| matches(vault, was, is, path))
        }
        (Value::Object(was), Value::Object(is)) => {
            was.len() == is.len()
                && was.iter().all(|(name, was)| {
                    let path = format!("{path}{}", pointer_of(name));
                    is.get(name)
                        .is_some_and(|is| matches(vault, was, is, &path))
                })
        }
        (Value::Number(was), Value::String(is)) => {
            let handle = SealedValue { handle: is.clone() };
            vault
                .open(&handle)
                .is_ok_and(|sealed| *sealed.value.expose() == was.to_string())
        }
        _ => was == is,
    }
}

/// Whether any string outside the readable members of the top level is shown as it was.
fn shows_a_string(was: &Value, is: &Value) -> bool {
    match (was, is) {
        (Value::String(was), Value::String(is)) => !was.is_empty() && was == is,
        (Value::Array(was), Value::Array(is)) => {
            was.iter().zip(is).any(|(was, is)| shows_a_string(was, is))
        }
        (Value::Object(was), Value::Object(is)) => was
            .iter()
            .any(|(name, was)| shows_a_string(was, is.get(name).unwrap_or(&Value::Null))),
        _ => false,
    }
}

/// Where a lenient server would take a path: decoded until nothing changes, parameters dropped, dots resolved.
fn lenient(path: &str) -> Vec<String> {
    let mut text = path.to_owned();
    for _ in 0..4 {
        text = percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    let mut segments: Vec<String> = Vec::new();
    for segment in text.replace('\\', "/").split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_owned()),
        }
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_secret_is_nowhere_in_what_a_plugin_reads(
        secret in any_secret(),
        way in 0..9_usize,
        before in "[a-z:]{0,3}",
        after in "[a-z:]{0,3}",
        mut document in any_json(),
        at in 0..8_usize,
        status in prop_oneof![Just(200_u16), Just(400), Just(500)],
    ) {
        let repeated = encodings(&format!("{before}{secret}{after}")).swap_remove(way);
        let mut left = at;
        plant(&mut document, &repeated, &mut left);
        let document = serde_json::json!({ "error_description": repeated, "scope": [repeated], "document": document });
        let mut vault = vault_with(1, &[("mine", &secret)]);
        let mut raw = answer(status, &document.to_string());
        if let Ok(value) = HeaderValue::from_str(&repeated) {
            raw.headers.insert(HeaderName::from_static("www-authenticate"), value);
        }
        let Ok(opened) = vault.read(&post(Body::None), &raw) else { return Ok(()) };
        let mut read = String::from_utf8(opened.response.body).unwrap();
        let strings: Value = serde_json::from_str(&read).unwrap();
        read.push_str(&opened.response.headers.iter().map(|(_, value)| value.as_str()).collect::<String>());
        read.push_str(&vault.filter(&repeated, 4096));
        for encoded in encodings(&secret) {
            // Padding and the last digit of base64 depend on what follows.
            let core = encoded.trim_end_matches('=');
            let core = &core[..core.floor_char_boundary(core.len() - 1)];
            prop_assert!(!read.contains(core), "{core} in {read}");
            prop_assert!(!strings.to_string().contains(core), "{core} in {strings}");
        }
        prop_assert!(strings["error_description"].as_str().unwrap().contains("[redacted]"));
    }

    #[test]
    fn a_document_keeps_its_structure_and_shows_no_string(document in any_json()) {
        let body = serde_json::json!({ "wrapped": document });
        let mut vault = vault();
        let opened = vault.read(&post(Body::None), &answer(200, &body.to_string())).unwrap();
        let shown = json_of(&opened);
        prop_assert!(matches(&vault, &body, &shown, ""), "{body}\n{shown}");
        prop_assert!(!shows_a_string(&body, &shown), "{body}\n{shown}");
    }

    #[test]
    fn top_level_members_are_read_only_where_they_may_be(document in any_json()) {
        let mut vault = vault();
        let Ok(opened) = vault.read(&post(Body::None), &answer(200, &document.to_string())) else { return Ok(()) };
        let (Value::Object(was), Value::Object(is)) = (&document, json_of(&opened)) else { return Ok(()) };
        for (name, was) in was {
            let granted = is_readable(name) || name == "expires_at" || name == "data";
            prop_assert!(granted || !shows_a_string(was, &is[name]), "{name}: {was}");
        }
    }

    #[test]
    fn the_filter_finds_any_value_in_any_text(secret in any_secret(), text in ".{0,40}", way in 0..9_usize) {
        let vault = vault_with(1, &[("mine", &secret)]);
        let repeated = encodings(&secret).swap_remove(way);
        let clean = vault.filter(&format!("{text} {repeated} {text}"), 4096);
        prop_assert!(clean.contains("[redacted]"), "{repeated} in {clean}");
        prop_assert!(clean.len() <= 4096);
    }

    #[test]
    fn no_url_leads_outside_the_allow_list_however_it_is_read(
        path in prop::collection::vec(
            prop_oneof![
                Just("/"), Just("token"), Just("."), Just(".."), Just("%2e"), Just("%2E"), Just("%2f"), Just("%5c"), Just("\\"),
                Just(";"), Just("%3b"), Just("%25"), Just("2e"), Just("x"), Just("%74oken"), Just("//"), Just("@"), Just(":"),
                Just("?"), Just("#"), Just("%c3%a9"), Just("é"), Just("\t"), Just("evil.example")
            ],
            0..9,
        ),
        start in prop_oneof![Just("https://login.acme.example/token"), Just("https://login.acme.example"), Just("https://")],
    ) {
        let list = AllowList::parse(&["https://login.acme.example/token".to_owned()], false).unwrap();
        let raw = format!("{start}{}", path.concat());
        if let Ok(url) = list.check(&raw) {
            prop_assert_eq!(url.host_str(), Some("login.acme.example"));
            prop_assert!(url.username().is_empty() && url.query().is_none() && url.fragment().is_none());
            let path = lenient(url.path());
            prop_assert_eq!(path.first().map(String::as_str), Some("token"), "{}", raw);
            prop_assert!(list.admits(&url));
        }
    }
}
