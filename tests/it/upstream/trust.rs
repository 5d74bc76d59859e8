//! Certificates of both sides, and proxies.

use keyfob::model::secret::Secret;
use keyfob::testing::issuer::IssuerTls;
use keyfob::upstream::ProxyRoute;
use keyfob_tests::pki::Authority;
use keyfob_tests::raw::{RawServer, Say};

use super::*;

/// An https issuer at issuer.example, and settings that reach it.
fn https(authority: &Authority, client_ca: Option<Vec<u8>>) -> (Issuer, TransportSettings) {
    let leaf = authority.server(&["issuer.example", "127.0.0.1"]);
    let clients = vec![
        Client::new("svc", ClientAuth::Post(SECRET.into())),
        Client::new("mtls", ClientAuth::Certificate),
    ];
    let tls = IssuerTls {
        cert: leaf.cert.into(),
        key: leaf.key.into(),
        client_cert_required: client_ca.is_some(),
        client_ca,
    };
    let config = IssuerConfig {
        clients,
        tls: Some(tls),
        ..IssuerConfig::default()
    };
    let settings = TransportSettings {
        insecure_http: true,
        ca: Some(authority.pem()),
        ..TransportSettings::default()
    };
    (Issuer::start(config).expect("an issuer"), settings)
}

#[tokio::test]
async fn a_configured_authority_is_trusted_and_no_other() {
    let authority = Authority::new();
    let (issuer, settings) = https(&authority, None);
    answered(send(&upstream(&settings), ask(issuer.token_url()), PATIENCE).await);

    let stranger = TransportSettings {
        ca: Some(Authority::new().pem()),
        ..settings.clone()
    };
    let system = TransportSettings {
        ca: None,
        ..settings.clone()
    };
    for settings in [stranger, system] {
        let request = with_grant(ask(issuer.token_url()));
        assert_eq!(
            not_sent(send(&upstream(&settings), request, PATIENCE).await),
            FaultKind::Tls
        );
    }
    let misnamed = named(&settings, Names::at(&["127.0.0.1"]));
    let request = ask(&under_name(&issuer, "other.example"));
    match send(&misnamed, request, PATIENCE).await {
        Delivery::NotSent(fault) => assert!(fault.detail.contains("another name"), "{fault:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(issuer.ledger().count(), 1);
}

#[tokio::test]
async fn a_client_certificate_authenticates() {
    let authority = Authority::new();
    let (issuer, settings) = https(&authority, Some(authority.pem()));
    let leaf = authority.client("client.example");
    let ours = TransportSettings {
        cert: Some(leaf.cert.into_bytes()),
        key: Some(Secret::new(leaf.key)),
        ..settings
    };
    let body = b"grant_type=client_credentials&client_id=mtls"
        .to_vec()
        .into();
    let request = OutgoingRequest {
        body,
        ..with_grant(ask(issuer.token_url()))
    };
    let answer = answered(send(&upstream(&ours), request, PATIENCE).await);
    assert!(answer.status.is_success());
    assert_eq!(issuer.ledger().entries()[0].client.as_deref(), Some("mtls"));
}

#[tokio::test]
async fn a_missing_client_certificate_never_reaches_the_issuer() {
    let authority = Authority::new();
    let (issuer, settings) = https(&authority, Some(authority.pem()));
    match send(
        &upstream(&settings),
        with_grant(ask(issuer.token_url())),
        PATIENCE,
    )
    .await
    {
        Delivery::NotSent(fault) | Delivery::Lost(fault) => {
            // Whether the alert or the reset behind it is seen first is the network's choice.
            assert!(
                matches!(fault.kind, FaultKind::Tls | FaultKind::Broken),
                "{fault:?}"
            );
        }
        Delivery::Answered(answer) => panic!("{answer:?}"),
    }
    assert_eq!(issuer.ledger().count(), 0);
}

#[tokio::test]
async fn settings_that_make_no_client_name_the_setting() {
    let leaf = Authority::new().client("client.example");
    let (cert, key) = (Some(leaf.cert.into_bytes()), Some(Secret::new(leaf.key)));
    let none = TransportSettings::default;
    let other = Some(Secret::new(Authority::new().client("other").key));
    for (settings, setting) in [
        (
            TransportSettings {
                ca: Some(b"nonsense".to_vec()),
                ..none()
            },
            "tls.ca",
        ),
        (
            TransportSettings {
                cert: cert.clone(),
                ..none()
            },
            "tls.key",
        ),
        (
            TransportSettings {
                key: key.clone(),
                ..none()
            },
            "tls.cert",
        ),
        (
            TransportSettings {
                cert: Some(b"nonsense".to_vec()),
                key,
                ..none()
            },
            "tls.cert",
        ),
        (
            TransportSettings {
                cert,
                key: other,
                ..none()
            },
            "tls",
        ),
        (
            TransportSettings {
                proxy: via("::"),
                ..none()
            },
            "proxy",
        ),
    ] {
        let error = HttpUpstream::new(&settings, Arc::new(SystemClock)).expect_err(setting);
        assert_eq!(error.setting, setting, "{error}");
    }
}

fn via(url: &str) -> ProxyRoute {
    ProxyRoute::Via {
        url: url.into(),
        except: None,
    }
}

#[tokio::test]
async fn a_configured_proxy_gets_a_tunnel_and_nothing_of_the_request() {
    let authority = Authority::new();
    let (issuer, settings) = https(&authority, None);
    let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    let proxy = RawServer::start(Say::Once(refusal.into()))
        .await
        .expect("a server");
    // The proxy is on this machine, and the operator named it: no address rule is in its way.
    let settings = TransportSettings {
        insecure_http: false,
        proxy: via(&format!("http://user:hunter2@{}", proxy.address)),
        ..settings
    };
    let request = with_grant(ask("https://issuer.example/token?q=hidden"));
    assert_eq!(
        not_sent(send(&upstream(&settings), request, PATIENCE).await),
        FaultKind::Connect
    );
    assert_eq!(proxy.lines(), ["CONNECT issuer.example:443 HTTP/1.1"]);
    assert_eq!(issuer.ledger().count(), 0);
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_ignored_unless_configured() {
    let proxy = RawServer::start(Say::Nothing).await.expect("a server");
    let url = format!("http://{}", proxy.address);
    // A process has one environment: the child is this binary with another one.
    let child = tokio::process::Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "upstream::trust::a_configured_authority_is_trusted_and_no_other",
        ])
        .envs(
            [
                "HTTPS_PROXY",
                "https_proxy",
                "HTTP_PROXY",
                "ALL_PROXY",
                "all_proxy",
            ]
            .map(|name| (name, &url)),
        )
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .await
        .expect("a child");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
    assert_eq!(proxy.lines(), Vec::<String>::new());
}
