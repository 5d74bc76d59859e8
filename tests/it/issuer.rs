//! The issuer of the kit is strict, and misbehaves as it is told. Asked through `upstream`, as everything else asks it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use keyfob::model::time::{Clock as _, SystemClock};
use keyfob::model::transport::{Answer, Delivery, OutgoingRequest, Upstream as _};
use keyfob::testing::issuer::{
    Behaviour, Client, ClientAuth, Issuer, IssuerConfig, Outcome, RefreshRotation, VerifyingKey,
};
use keyfob::testing::{Canary, TestClock};
use keyfob::upstream::{HttpUpstream, TransportSettings};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const SIGNING_KEY: &[u8] = b"a shared signing key of the tests";

struct Kit {
    issuer: Issuer,
    clock: Arc<TestClock>,
    upstream: HttpUpstream,
}

fn kit() -> Kit {
    let clock = Arc::new(TestClock::new());
    let key = || VerifyingKey::new("HS256", SIGNING_KEY).expect("a key");
    let client = |id: &str, auth| Client::new(id, auth).scopes(&["read", "write"]);
    let secret = || "s3cr:t &+of clients".to_owned();
    let clients = vec![
        client("basic", ClientAuth::Basic(secret())),
        client("raw", ClientAuth::BasicRaw(secret())),
        client("post", ClientAuth::Post(secret())),
        client("jwt", ClientAuth::PrivateKeyJwt(key())),
        client("never", ClientAuth::None).assertions(key()),
        client("single", ClientAuth::None).rotation(RefreshRotation::SingleUse),
        client("grace", ClientAuth::None).rotation(RefreshRotation::Grace(Duration::from_secs(60))),
    ];
    let config = IssuerConfig {
        clients,
        clock: clock.clone(),
        ..IssuerConfig::default()
    };
    let settings = TransportSettings {
        insecure_http: true,
        ..TransportSettings::default()
    };
    Kit {
        issuer: Issuer::start(config).expect("an issuer"),
        clock,
        upstream: HttpUpstream::new(&settings, Arc::new(SystemClock)).expect("settings in order"),
    }
}

impl Kit {
    async fn send(&self, url: &str, authorization: Option<&str>, form: &[(&str, &str)]) -> Answer {
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        if let Some(value) = authorization {
            headers.insert(
                AUTHORIZATION,
                HeaderValue::from_str(value).expect("a header"),
            );
        }
        let request = OutgoingRequest {
            method: Method::POST,
            url: url.parse().expect("a URL"),
            headers,
            body: body.into_bytes().into(),
            carries_grant: false,
        };
        match self.upstream.send(request, PATIENCE).await {
            Delivery::Answered(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    async fn token(&self, authorization: Option<&str>, form: &[(&str, &str)]) -> (u16, Value) {
        let answer = self
            .send(self.issuer.token_url(), authorization, form)
            .await;
        (
            answer.status.as_u16(),
            serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
        )
    }

    /// A refresh of a public client.
    async fn refresh(&self, client: &str, token: &str) -> (u16, Value) {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", token),
        ];
        self.token(None, &form).await
    }

    fn assertion(&self, claims: Value) -> String {
        let key = jsonwebtoken::EncodingKey::from_secret(SIGNING_KEY);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a JWT")
    }

    fn in_a_minute(&self) -> u64 {
        self.clock.now().as_secs() + 60
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

const CC: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn each_client_authenticates_its_own_way_only() {
    let kit = kit();
    let encoded = basic("basic", "s3cr%3At+%26%2Bof+clients");
    assert_eq!(kit.token(Some(&encoded), &[CC]).await.0, 200);
    assert_eq!(
        kit.token(Some(&basic("raw", "s3cr:t &+of clients")), &[CC])
            .await
            .0,
        200
    );
    let post = [
        CC,
        ("client_id", "post"),
        ("client_secret", "s3cr:t &+of clients"),
    ];
    assert_eq!(kit.token(None, &post).await.0, 200);

    let unencoded = basic("basic", "s3cr:t &+of clients");
    let answer = kit
        .send(kit.issuer.token_url(), Some(&unencoded), &[CC])
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(
        answer.headers["www-authenticate"]
            .to_str()
            .is_ok_and(|text| text.starts_with("Basic"))
    );
    let swapped = [
        CC,
        ("client_id", "basic"),
        ("client_secret", "s3cr:t &+of clients"),
    ];
    assert_eq!(
        text(&kit.token(None, &swapped).await.1, "error"),
        "invalid_client"
    );
    assert_eq!(
        text(&kit.token(Some(&encoded), &post).await.1, "error"),
        "invalid_request"
    );
}

#[tokio::test]
async fn an_assertion_authenticates_once_and_for_this_issuer_only() {
    let kit = kit();
    let form = |assertion: &str| {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        [
            CC,
            ("client_assertion_type", kind),
            ("client_assertion", assertion),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let good = json!({
        "iss": "jwt", "sub": "jwt", "aud": kit.issuer.token_url(), "exp": kit.in_a_minute(), "jti": "1"
    });
    let mut elsewhere = good.clone();
    elsewhere["aud"] = json!("https://other.example/token");
    elsewhere["jti"] = json!("2");
    let mut old = good.clone();
    old["exp"] = json!(kit.clock.now().as_secs());
    for (claims, expected) in [(&good, 200), (&good, 401), (&elsewhere, 401), (&old, 401)] {
        let form = form(&kit.assertion(claims.clone()));
        let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(kit.token(None, &form).await.0, expected, "{claims}");
    }
}

#[tokio::test]
async fn a_jwt_bearer_grant_brings_a_token_of_its_subject() {
    let kit = kit();
    let claims = json!({
        "iss": "never", "sub": "alice", "aud": [kit.issuer.base_url()], "exp": kit.in_a_minute()
    });
    let assertion = kit.assertion(claims);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("client_id", "never"),
        ("assertion", &assertion),
        ("scope", "read"),
    ];
    let (status, answer) = kit.token(None, &form).await;
    assert_eq!((status, text(&answer, "scope")), (200, "read".to_owned()));
    let bearer = format!("Bearer {}", text(&answer, "access_token"));
    let resource = kit
        .send(&kit.issuer.resource_url(), Some(&bearer), &[])
        .await;
    let seen: Value = serde_json::from_slice(&resource.body).expect("JSON");
    assert_eq!(
        seen,
        json!({ "client": "never", "subject": "alice", "scope": "read" })
    );
}

#[tokio::test]
async fn what_another_issuer_might_forgive_is_refused_here() {
    let kit = kit();
    let id = ("client_id", "never");
    for (form, error) in [
        (vec![id], "invalid_request"),
        (
            vec![id, ("grant_type", "password")],
            "unsupported_grant_type",
        ),
        (vec![id, CC, CC], "invalid_request"),
        (vec![id, CC, ("scope", "admin")], "invalid_scope"),
        (vec![id, CC, ("scope", "read  write")], "invalid_scope"),
        (vec![("client_id", "nobody"), CC], "invalid_client"),
        (vec![CC], "invalid_client"),
        (vec![id, ("grant_type", "refresh_token")], "invalid_request"),
        (
            vec![id, ("grant_type", "refresh_token"), ("refresh_token", "x")],
            "invalid_grant",
        ),
    ] {
        assert_eq!(
            text(&kit.token(None, &form).await.1, "error"),
            error,
            "{form:?}"
        );
    }
    let in_url = format!("{}?client_secret=x", kit.issuer.token_url());
    assert_eq!(
        kit.send(&in_url, None, &[id, CC]).await.status,
        StatusCode::BAD_REQUEST
    );
    let twice = [
        id,
        CC,
        ("resource", "https://a.example"),
        ("resource", "https://b.example"),
    ];
    assert_eq!(kit.token(None, &twice).await.0, 200);
}

#[tokio::test]
async fn a_replayed_single_use_grant_kills_its_family() {
    let kit = kit();
    let first = kit
        .issuer
        .issue_refresh_token("single", "alice")
        .expect("a grant");
    let (_, answer) = kit.refresh("single", &first).await;
    let (access, second) = (
        text(&answer, "access_token"),
        text(&answer, "refresh_token"),
    );
    assert!(kit.issuer.is_active(&access) && kit.issuer.is_active(&second));
    assert!(!kit.issuer.is_active(&first));

    assert_eq!(kit.refresh("single", &first).await.0, 400);
    assert!(!kit.issuer.is_active(&access) && !kit.issuer.is_active(&second));
    assert_eq!(
        text(&kit.refresh("single", &second).await.1, "error"),
        "invalid_grant"
    );
    assert_eq!(kit.issuer.ledger().replayed(), 1);
    let entries = kit.issuer.ledger().entries();
    assert_eq!(entries[0].presented, entries[1].presented);
    assert_eq!(entries[1].outcome, Outcome::Replayed);
    let other = kit
        .issuer
        .issue_refresh_token("single", "bob")
        .expect("a grant");
    assert_eq!(kit.refresh("single", &other).await.0, 200);
}

#[tokio::test]
async fn a_grant_with_grace_works_again_inside_it_and_not_after() {
    let kit = kit();
    let first = kit
        .issuer
        .issue_refresh_token("grace", "alice")
        .expect("a grant");
    assert_eq!(kit.refresh("grace", &first).await.0, 200);
    kit.clock.jump(Duration::from_secs(30));
    assert_eq!(kit.refresh("grace", &first).await.0, 200);
    kit.clock.jump(Duration::from_secs(60));
    assert_eq!(kit.refresh("grace", &first).await.0, 400);
    assert_eq!(kit.issuer.ledger().replayed(), 1);
}

#[tokio::test]
async fn a_grant_that_stays_is_never_replaced_and_never_widened() {
    let kit = kit();
    let grant = kit
        .issuer
        .issue_refresh_token("never", "alice")
        .expect("a grant");
    for _ in 0..2 {
        let (status, answer) = kit.refresh("never", &grant).await;
        assert_eq!((status, answer.get("refresh_token")), (200, None));
    }
    assert_eq!(kit.refresh("single", &grant).await.0, 400);
    assert!(kit.issuer.is_active(&grant));
    kit.issuer.revoke(&grant);
    assert_eq!(kit.refresh("never", &grant).await.0, 400);
}

#[tokio::test]
async fn a_lost_answer_has_spent_the_grant() {
    let kit = kit();
    let grant = kit
        .issuer
        .issue_refresh_token("single", "alice")
        .expect("a grant");
    kit.issuer.behave_next(1, Behaviour::EmptyOk);
    assert_eq!(kit.refresh("single", &grant).await, (200, Value::Null));
    assert!(!kit.issuer.is_active(&grant));
    let unspent = kit
        .issuer
        .issue_refresh_token("single", "bob")
        .expect("a grant");
    kit.issuer.behave_next(1, Behaviour::Status(500));
    assert_eq!(kit.refresh("single", &unspent).await.0, 500);
    assert!(kit.issuer.is_active(&unspent));
}

#[tokio::test]
async fn tokens_end_when_they_say_so() {
    let kit = kit();
    kit.issuer
        .behave(Behaviour::Lifetime(Duration::from_millis(2500)));
    let (_, answer) = kit.token(None, &[CC, ("client_id", "never")]).await;
    assert_eq!(answer["expires_in"], 2);
    let bearer = format!("Bearer {}", text(&answer, "access_token"));
    let resource = kit.issuer.resource_url();
    assert_eq!(
        kit.send(&resource, Some(&bearer), &[]).await.status,
        StatusCode::OK
    );
    kit.clock.jump(Duration::from_secs(3));
    let refused = kit.send(&resource, Some(&bearer), &[]).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        refused.headers["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
}

#[tokio::test]
async fn a_revoked_token_is_dead_at_once() {
    let kit = kit();
    let (_, answer) = kit.token(None, &[CC, ("client_id", "never")]).await;
    let token = text(&answer, "access_token");
    let url = kit.issuer.revoke_url();
    kit.send(&url, None, &[("client_id", "grace"), ("token", &token)])
        .await;
    assert!(kit.issuer.is_active(&token), "somebody else's");
    kit.send(&url, None, &[("client_id", "never"), ("token", &token)])
        .await;
    assert!(!kit.issuer.is_active(&token));
}

#[tokio::test]
async fn the_canary_knows_every_secret_and_the_ledger_none() {
    let kit = kit();
    let grant = kit
        .issuer
        .issue_refresh_token("single", "alice")
        .expect("a grant");
    let (_, answer) = kit.refresh("single", &grant).await;
    let canary: &Canary = kit.issuer.canary();
    for secret in [
        &grant,
        &text(&answer, "access_token"),
        &text(&answer, "refresh_token"),
    ] {
        assert!(canary.find(format!("log: {secret}")).is_some());
    }
    assert!(canary.find(basic("basic", "s3cr:t &+of clients")).is_some());
    canary.assert_absent(
        "the ledger",
        format!("{:?} {:?}", kit.issuer, kit.issuer.ledger()),
    );
}
