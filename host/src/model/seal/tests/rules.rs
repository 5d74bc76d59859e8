//! Rules: what an operator granted, read from settings.

use super::*;

fn mistakes(change: impl FnOnce(&mut ProviderSettings)) -> Vec<String> {
    let mut settings = provider();
    change(&mut settings);
    let mistakes = Rules::new(&settings).unwrap_err();
    assert!(mistakes.iter().all(|mistake| !mistake.fix.is_empty()));
    mistakes.into_iter().map(|mistake| mistake.at).collect()
}

#[test]
fn without_a_word_a_secret_goes_to_allow_in_auth_and_body() {
    let rules = Rules::new(&provider()).unwrap();
    let rule = rules.secret("client_secret").unwrap();
    assert_eq!(rule.places, Place::defaults());
    assert_eq!(
        rule.to.entries().collect::<Vec<_>>(),
        rules.allow.entries().collect::<Vec<_>>()
    );
    assert!(
        rule.audiences
            .contains(&"https://login.acme.example".to_owned())
    );
    assert!(rules.secret("other").is_none());
}

#[test]
fn every_mistake_is_named_at_its_place() {
    let all = mistakes(|settings| {
        settings.allow.push("http://acme.example".to_owned());
        settings.readable = strings(&["access_token", "/id_token", "", "fine"]);
        settings.expose = strings(&["", "fine"]);
        settings.secrets = vec![
            SecretSettings {
                places: Some(strings(&[
                    "auth",
                    "cookie",
                    "header:Host",
                    "query:x",
                    "form:",
                ])),
                ..secret("a")
            },
            SecretSettings {
                to: Some(strings(&["https://elsewhere.example/x"])),
                ..secret("b")
            },
            SecretSettings {
                alg: Some("none".to_owned()),
                ..secret("c")
            },
            SecretSettings {
                key_id: Some("k".to_owned()),
                ..secret("d")
            },
            secret("Bad-Name"),
            secret("d"),
        ];
    });
    for at in [
        "/allow/1",
        "/readable/0",
        "/readable/1",
        "/readable/2",
        "/expose/0",
        "/secrets/a/in/1",
        "/secrets/a/in/2",
        "/secrets/a/in/3",
        "/secrets/a/in/4",
        "/secrets/b/to",
        "/secrets/c/alg",
        "/secrets/d",
        "/secrets/Bad-Name",
    ] {
        assert!(all.contains(&at.to_owned()), "{at} in {all:?}");
    }
}

#[test]
fn places_are_spelled_as_the_configuration_has_them() {
    for (text, place) in [
        ("auth", Place::Auth),
        ("form", Place::Form(None)),
        (
            "form:client_secret",
            Place::Form(Some("client_secret".to_owned())),
        ),
        ("json", Place::Json),
        ("text", Place::Text),
        ("header:X-Api-Key", Place::Header("x-api-key".to_owned())),
    ] {
        assert_eq!(Place::parse(text), Some(place));
    }
    for bad in [
        "",
        "url",
        "query",
        "header:",
        "header",
        "header:a b",
        "header:authorization",
        "header:proxy-x",
        "form:",
        "auth:x",
    ] {
        assert_eq!(Place::parse(bad), None, "{bad}");
    }
}
