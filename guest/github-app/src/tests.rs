//! What `builtin:github-app` promises, driven by the SDK's harness.

use keyfob_guest::bindings::provider::types::SignRequest;
use keyfob_guest::serde_json::{Value, json};
use keyfob_guest::testing::{Harness, NOW, Run};
use keyfob_guest::{Expiry, Refusal};

use super::GithubApp;

fn harness() -> Harness<GithubApp> {
    Harness::new(json!({"app_id": "Iv1.abc", "installation_id": 42}))
}

fn signed(harness: Harness<GithubApp>) -> Run<GithubApp> {
    let mut flow = harness.refresh();
    flow.signs();
    flow.sign("h.c.s");
    flow
}

fn refused(status: u16, headers: &[(&str, &str)], body: Value) -> Refusal {
    signed(harness())
        .answer_with(status, headers, body)
        .refused()
}

fn misconfigured(refusal: Refusal) -> (String, String) {
    let Refusal::Misconfigured(reason) = refusal else {
        panic!("an operator must act: {refusal:?}")
    };
    (reason.code, reason.message)
}

#[test]
fn a_signed_jwt_is_traded_for_an_installation_token() {
    let mut flow = harness().refresh();
    let signs = flow.signs();
    assert_eq!(signs.key(), "private_key");
    assert_eq!(
        signs.claims(),
        json!({"iss": "Iv1.abc", "iat": NOW - 60, "exp": NOW + 540})
    );
    assert!(matches!(signs.request, SignRequest::Jwt(_)));
    flow.sign("h.c.s");

    let sent = flow.sends();
    assert_eq!(
        sent.url(),
        "https://api.github.com/app/installations/42/access_tokens"
    );
    assert_eq!(sent.bearer().as_deref(), Some("h.c.s"));
    assert_eq!(
        sent.header("X-GitHub-Api-Version").as_deref(),
        Some("2022-11-28")
    );
    assert_eq!(sent.json(), json!({}));

    flow.answer(201, json!({"token": "ghs_1", "expires_at": "2023-11-14T23:13:20Z", "permissions": {"contents": "read"}}));
    let done = flow.done();
    assert_eq!(done.access_token, "ghs_1");
    assert_eq!(done.tokens.expires, Expiry::At(NOW + 3600));
    assert_eq!(done.refresh_token, None);
}

#[test]
fn an_odd_date_does_not_cost_the_token() {
    for date in [json!("tomorrow"), json!(null), json!(17)] {
        let mut flow = signed(harness());
        flow.answer(201, json!({"token": "ghs_1", "expires_at": date}));
        assert_eq!(flow.done().tokens.expires, Expiry::Unknown);
    }
}

#[test]
fn a_subject_names_another_installation() {
    let flow = signed(harness().call(|call| call.subject = Some("77".into())));
    assert!(
        flow.sends()
            .url()
            .ends_with("/installations/77/access_tokens")
    );
}

#[test]
fn a_subject_that_is_no_number_reaches_no_url() {
    for subject in [
        "",
        "77/../1",
        "octocat",
        "7%2e",
        "-1",
        "+1",
        "123456789012345678901",
    ] {
        let flow = harness()
            .call(|call| call.subject = Some(subject.into()))
            .refresh();
        assert_eq!(
            misconfigured(flow.refused()).0,
            "no_installation",
            "{subject}"
        );
    }
    let nobody = Harness::<GithubApp>::new(json!({"app_id": "1"})).refresh();
    assert_eq!(misconfigured(nobody.refused()).0, "no_installation");
}

#[test]
fn scopes_are_permissions_and_take_the_place_of_the_configured_ones() {
    let settings = json!({"app_id": "1", "installation_id": "42", "repositories": ["a", "b"],
                          "permissions": {"contents": "write"}});
    let harness = || Harness::<GithubApp>::new(&settings);
    let configured = json!({"permissions": {"contents": "write"}, "repositories": ["a", "b"]});
    assert_eq!(signed(harness()).sends().json(), configured);
    let asked =
        harness().call(|call| call.scopes = vec!["contents:read".into(), "issues:write".into()]);
    assert_eq!(
        signed(asked).sends().json()["permissions"],
        json!({"contents": "read", "issues": "write"})
    );
}

#[test]
fn what_github_cannot_honour_is_refused_and_not_ignored() {
    let scopes = harness()
        .call(|call| call.scopes = vec!["repo".into()])
        .refresh();
    assert_eq!(misconfigured(scopes.refused()).0, "no_permission");
    let audience = harness()
        .call(|call| call.audience = Some("https://a.example".into()))
        .refresh();
    assert_eq!(misconfigured(audience.refused()).0, "no_audience");
}

#[test]
fn errors_carry_githubs_words_to_the_operator() {
    let body = json!({"message": "'Expiration time' claim ('exp') is too far in the future"});
    let (code, message) = misconfigured(refused(401, &[], body));
    assert_eq!(code, "bad_jwt");
    assert!(message.ends_with("too far in the future"), "{message}");
    assert_eq!(
        misconfigured(refused(404, &[], json!({"message": "Not Found"}))).0,
        "installation_not_found"
    );
    let suspended = json!({"message": "This installation has been suspended"});
    assert_eq!(
        misconfigured(refused(403, &[], suspended)).0,
        "installation_forbidden"
    );
    let denied =
        json!({"message": "The permissions requested are not granted to this installation."});
    assert_eq!(misconfigured(refused(422, &[], denied)).0, "not_permitted");
}

#[test]
fn an_error_inside_a_200_is_an_error() {
    let refusal = refused(
        200,
        &[],
        json!({"error": "incorrect_client_credentials", "error_description": "no"}),
    );
    assert_eq!(misconfigured(refusal).0, "incorrect_client_credentials");
    assert!(matches!(
        refused(200, &[], json!({"message": "hm"})),
        Refusal::Transient(_)
    ));
    assert!(matches!(
        refused(502, &[], json!(null)),
        Refusal::Transient(_)
    ));
}

#[test]
fn a_rate_limit_is_told_from_a_refusal() {
    let wait = |status, headers: &[(&str, &str)], body| match refused(status, headers, body) {
        Refusal::RateLimited(limit) => limit.after_seconds,
        other => panic!("a rate limit: {other:?}"),
    };
    assert_eq!(wait(403, &[("retry-after", "45")], json!({})), Some(45));
    let reset = (NOW + 90).to_string();
    let primary = [
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", reset.as_str()),
    ];
    assert_eq!(wait(403, &primary, json!({})), Some(90));
    let secondary = json!({"message": "You have exceeded a secondary rate limit"});
    assert_eq!(
        wait(403, &[("x-ratelimit-remaining", "12")], secondary),
        Some(60)
    );
    assert_eq!(wait(429, &[], json!({})), Some(60));
}

#[test]
fn ids_that_cannot_be_are_mistakes() {
    let settings = json!({"app_id": 1.7, "installation_id": "mine"});
    let mistakes = Harness::<GithubApp>::new(settings)
        .configure()
        .expect_err("both are wrong");
    let places: Vec<_> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
    assert_eq!(places, ["/app_id", "/installation_id"]);
}

#[test]
fn an_enterprise_server_has_its_own_destination() {
    let settings =
        json!({"app_id": "1", "installation_id": "2", "api_url": "https://ghe.example/api/v3/"});
    let needs = Harness::<GithubApp>::new(settings)
        .configure()
        .expect("the settings are right");
    assert_eq!(
        needs.destinations,
        ["https://ghe.example/api/v3/app/installations"]
    );
    assert_eq!(
        (needs.secrets, needs.readable),
        (vec!["private_key".into()], vec!["expires_at".into()])
    );
}
