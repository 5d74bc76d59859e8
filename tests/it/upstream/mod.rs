//! The way out, against servers that behave and servers that do not.

mod addresses;
mod answers;
mod trust;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use keyfob::model::contract::BoxFuture;
use keyfob::model::time::{SystemClock, UnixTime};
use keyfob::model::transport::{Answer, Delivery, FaultKind, OutgoingRequest, Upstream as _};
use keyfob::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig};
use keyfob::upstream::{HttpUpstream, Lookup, TransportSettings};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const SECRET: &str = "a-client-secret-of-length";

/// An issuer with one client, `svc`, that sends its secret in the body.
fn issuer() -> Issuer {
    let clients = vec![Client::new("svc", ClientAuth::Post(SECRET.into()))];
    Issuer::start(IssuerConfig {
        clients,
        ..IssuerConfig::default()
    })
    .expect("an issuer")
}

/// Plain http to this machine.
fn local() -> HttpUpstream {
    upstream(&TransportSettings {
        insecure_http: true,
        ..TransportSettings::default()
    })
}

fn upstream(settings: &TransportSettings) -> HttpUpstream {
    HttpUpstream::new(settings, Arc::new(SystemClock)).expect("settings in order")
}

/// A token request as `seal` would have made it.
fn ask(url: &str) -> OutgoingRequest {
    let mut headers = HeaderMap::new();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form);
    let body = format!("grant_type=client_credentials&client_id=svc&client_secret={SECRET}");
    OutgoingRequest {
        method: Method::POST,
        url: url.parse().expect("a URL"),
        headers,
        body: body.into_bytes().into(),
        carries_grant: false,
    }
}

fn with_grant(request: OutgoingRequest) -> OutgoingRequest {
    OutgoingRequest {
        carries_grant: true,
        ..request
    }
}

/// Sends, and checks that whatever came of it tells nothing of the request.
async fn send(
    upstream: &HttpUpstream,
    mut request: OutgoingRequest,
    timeout: Duration,
) -> Delivery {
    request
        .headers
        .insert("x-key", HeaderValue::from_static("hunter2-hunter2"));
    let delivery = upstream.send(request, timeout).await;
    let told = format!("{delivery:?} {upstream:?}");
    for hidden in [SECRET, "hunter2", "client_secret", "q=hidden"] {
        assert!(!told.contains(hidden), "{told}");
    }
    delivery
}

/// Sends, waits until the server has seen it, and lets the whole timeout pass at once.
async fn run_out(
    upstream: &HttpUpstream,
    request: OutgoingRequest,
    seen: impl Future<Output = ()>,
) -> Delivery {
    let mut sending = std::pin::pin!(send(upstream, request, PATIENCE));
    tokio::select! {
        early = &mut sending => return early,
        () = seen => {}
    }
    tokio::time::pause();
    tokio::time::advance(PATIENCE).await;
    let delivery = sending.await;
    tokio::time::resume();
    delivery
}

#[track_caller]
fn answered(delivery: Delivery) -> Answer {
    match delivery {
        Delivery::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn not_sent(delivery: Delivery) -> FaultKind {
    match delivery {
        Delivery::NotSent(fault) => fault.kind,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn lost(delivery: Delivery) -> FaultKind {
    match delivery {
        Delivery::Lost(fault) => fault.kind,
        other => panic!("{other:?}"),
    }
}

/// Every name is at these addresses.
struct Names {
    addresses: Vec<IpAddr>,
    asked: AtomicUsize,
}

impl Names {
    fn at(addresses: &[&str]) -> Arc<Self> {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        Arc::new(Self {
            addresses,
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Lookup for Names {
    fn lookup(&self, _name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.addresses.clone();
        Box::pin(async move { Ok(found) })
    }
}

fn named(settings: &TransportSettings, names: Arc<Names>) -> HttpUpstream {
    HttpUpstream::with_lookup(settings, Arc::new(SystemClock), names).expect("settings in order")
}

/// `https://HOST:PORT/token` of an issuer.
fn under_name(issuer: &Issuer, host: &str) -> String {
    issuer.token_url().replace("127.0.0.1", host)
}

/// A clock that stands.
struct Stands(UnixTime);

impl keyfob::model::time::Clock for Stands {
    fn now(&self) -> UnixTime {
        self.0
    }
}
