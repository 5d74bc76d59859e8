//! What `builtin:allowlist` promises.

use keyfob_guest::ExportedPolicy;
use keyfob_guest::bindings::policy::Guest;
use serde_json::{Value, json};

use super::*;

fn query(rules: Value) -> Query {
    Query {
        now: 1_700_000_000,
        tenant: "default".into(),
        caller: "billing".into(),
        attributes: vec![],
        provider: "acme".into(),
        subject: None,
        scopes: vec!["orders.read".into()],
        audience: None,
        settings: json!({ "allow": rules }).to_string(),
    }
}

fn rule(subjects: &[&str], scopes: &[&str], audiences: &[&str]) -> Value {
    json!({"provider": "acme", "subjects": subjects, "scopes": scopes, "audiences": audiences})
}

fn decide(query: Query) -> Result<Vec<String>, String> {
    let decision = ExportedPolicy::<Allowlist>::decide(query);
    decision
        .map(|allowance| allowance.scopes)
        .map_err(|reason| reason.code)
}

fn with(change: impl FnOnce(&mut Query), rules: Value) -> Result<Vec<String>, String> {
    let mut query = query(rules);
    change(&mut query);
    decide(query)
}

#[test]
fn what_a_rule_names_is_allowed_unchanged() {
    let rules = json!([rule(&["*"], &["orders.read", "orders.write"], &["*"])]);
    assert_eq!(decide(query(rules)), Ok(vec!["orders.read".into()]));
}

#[test]
fn nothing_is_allowed_that_no_rule_names() {
    assert_eq!(decide(query(json!([]))), Err("provider_not_allowed".into()));
    let other =
        json!([{"provider": "other", "subjects": ["*"], "scopes": ["*"], "audiences": ["*"]}]);
    assert_eq!(decide(query(other)), Err("provider_not_allowed".into()));
    assert_eq!(
        decide(query(json!([rule(&["*"], &[], &["*"])]))),
        Err("scope_not_allowed".into())
    );
    assert_eq!(
        decide(query(json!([rule(&["*"], &["orders"], &["*"])]))),
        Err("scope_not_allowed".into())
    );
}

#[test]
fn a_star_covers_every_subject_and_the_own_account() {
    let rules = || json!([rule(&["*"], &["*"], &["*"])]);
    assert!(decide(query(rules())).is_ok());
    assert!(with(|query| query.subject = Some("alice".into()), rules()).is_ok());
}

#[test]
fn a_named_subject_covers_itself_and_nobody_else() {
    let rules = || json!([rule(&["alice"], &["*"], &["*"])]);
    assert!(with(|query| query.subject = Some("alice".into()), rules()).is_ok());
    let denied = Err("subject_not_allowed".to_owned());
    assert_eq!(
        with(|query| query.subject = Some("bob".into()), rules()),
        denied
    );
    assert_eq!(
        with(|query| query.subject = Some("Alice".into()), rules()),
        denied
    );
    assert_eq!(decide(query(rules())), denied);
}

#[test]
fn a_rule_without_subjects_covers_the_own_account_only() {
    let rules = || json!([{"provider": "acme", "scopes": ["*"]}]);
    assert!(decide(query(rules())).is_ok());
    let denied = with(|query| query.subject = Some("alice".into()), rules());
    assert_eq!(denied, Err("subject_not_allowed".into()));
    let denied = with(
        |query| query.audience = Some("https://a.example".into()),
        rules(),
    );
    assert_eq!(denied, Err("audience_not_allowed".into()));
}

#[test]
fn no_scope_at_all_needs_a_star() {
    let ask = |rules| with(|query| query.scopes.clear(), rules);
    assert_eq!(
        ask(json!([rule(&["*"], &["orders.read"], &["*"])])),
        Err("scopes_unbounded".into())
    );
    assert_eq!(
        ask(json!([rule(&["*"], &[], &["*"])])),
        Err("scopes_unbounded".into())
    );
    assert_eq!(ask(json!([rule(&["*"], &["*"], &["*"])])), Ok(vec![]));
}

#[test]
fn rules_for_the_same_subject_and_audience_add_up_and_others_do_not() {
    let ask = |rules| with(|query| query.scopes = vec!["a".into(), "b".into()], rules);
    assert!(
        ask(json!([
            rule(&["*"], &["a"], &["*"]),
            rule(&["*"], &["b"], &["*"])
        ]))
        .is_ok()
    );
    let apart = json!([
        rule(&["*"], &["a"], &["*"]),
        rule(&["alice"], &["b"], &["*"])
    ]);
    assert_eq!(ask(apart), Err("scope_not_allowed".into()));
}

#[test]
fn a_denial_names_the_line_to_add_and_it_helps() {
    let mut asked = query(json!([]));
    asked.subject = Some("al\"ice".into());
    asked.audience = Some("https://api.acme.example".into());
    let reason = Allowlist::decide(&asked).expect_err("nothing is allowed yet");
    assert_eq!(
        reason.message,
        "add to `allow` of [callers.billing]: { provider = \"acme\", subjects = [\"al\\\"ice\"], \
         scopes = [\"orders.read\"], audiences = [\"https://api.acme.example\"] }"
    );
    asked.settings =
        json!({"allow": [rule(&["al\"ice"], &["orders.read"], &["https://api.acme.example"])]})
            .to_string();
    assert!(decide(asked).is_ok());
}

#[test]
fn the_line_for_the_own_account_opens_no_other() {
    let reason = Allowlist::decide(&query(json!([]))).expect_err("nothing is allowed yet");
    assert!(
        reason
            .message
            .ends_with("{ provider = \"acme\", scopes = [\"orders.read\"] }"),
        "{}",
        reason.message
    );
}

#[test]
fn settings_that_cannot_be_read_deny() {
    for settings in [
        "",
        "7",
        "{\"allow\": {}}",
        "{\"allow\": [{\"subjects\": []}]}",
        "{\"allowed\": []}",
    ] {
        assert_eq!(
            with(|query| query.settings = settings.into(), json!([])),
            Err("settings".into()),
            "{settings}"
        );
    }
    assert_eq!(
        with(|query| query.settings = "{}".into(), json!([])),
        Err("provider_not_allowed".into())
    );
}

#[test]
fn the_schema_is_json() {
    let description = ExportedPolicy::<Allowlist>::describe();
    let schema: Value =
        serde_json::from_str(&description.settings_schema).expect("a schema is JSON");
    assert_eq!(
        schema["properties"]["allow"]["items"]["required"],
        json!(["provider"])
    );
}
