//! Ten thousand users whose tokens end in the same second, through the real thing: store, sandbox and sockets. Prints what
//! the issuer saw at the start, after a restart, and over one refresh window. Run it by hand:
//! `cargo run --release -p keyfob-tests --example herd [USERS] [SECONDS_TO_THE_END]`.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyfob::model::event::Event;
use keyfob::model::policy::TokenRequest;
use keyfob::model::secret::Secret;
use keyfob::store::Store;
use keyfob::store::embedded::EmbeddedStore;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::stage::{ACME, CLIENT, Setting, Stage, client, credential, of, subject};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SEALING_KEY: &str = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";

/// The window in which tokens are renewed, and the share of their lives that it must fit in.
const WINDOW: Duration = Duration::from_secs(100);
const AHEAD: f64 = 0.6;
/// How often they ask, all of them together: all tokens are in use, and nothing is spread by who asks.
const ASK_EVERY: Duration = Duration::from_secs(30);

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(path, &SEALING_KEY.into()).expect("a new file opens"))
}

/// Everybody asks at once, and waits for as long as it takes.
async fn all_ask(stage: &Stage, requests: &[TokenRequest]) -> Duration {
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for request in requests {
        let (caller, request) = (stage.billing(), request.clone());
        callers.spawn(async move {
            while caller.token(&request).await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    callers.join_all().await;
    began.elapsed()
}

/// Everybody's first token; however long it takes to get them all, they end together.
async fn first_tokens(stage: &Stage, requests: &[TokenRequest], ends: Instant) -> Duration {
    let asked = all_ask(stage, requests);
    tokio::pin!(asked);
    loop {
        let life = ends - Instant::now();
        stage.issuer.behave(Behaviour::Lifetime(life));
        tokio::select! {
            took = &mut asked => return took,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// What the issuer saw in each second, from the `from`th request on.
fn histogram(stage: &Stage, from: usize) -> BTreeMap<u64, usize> {
    let mut seconds = BTreeMap::new();
    for entry in &stage.issuer.ledger().entries()[from..] {
        *seconds.entry(entry.at.as_secs()).or_default() += 1;
    }
    seconds
}

fn peak(seconds: &BTreeMap<u64, usize>) -> usize {
    seconds.values().copied().max().unwrap_or(0)
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let users: usize = numbers.next().map_or(10_000, |users: u64| {
        usize::try_from(users).expect("users fit in memory")
    });
    let life = Duration::from_secs(numbers.next().unwrap_or(400));
    let dir = tempfile::tempdir().expect("there is room for a file");
    let path = dir.path().join("keyfob.redb");
    let setting = Setting::new().lifetime(life).acme(|acme| {
        acme.refresh.ahead = AHEAD;
        acme.refresh.max_ahead = WINDOW;
    });
    let mut setting = setting.refresh_tokens(client());
    setting.store = Some(open(&path));
    let mut stage = setting.open().await;

    let mut requests = Vec::new();
    let mut imports = JoinSet::new();
    for n in 0..users {
        let name = format!("user-{n}");
        let grant = stage.issuer.issue_refresh_token(CLIENT, &name);
        let grant = Secret::new(grant.expect("the client is registered"));
        let (broker, key) = (stage.broker.clone(), credential(Some(&name)));
        imports.spawn(async move { broker.import_credential(key, grant, "herd").await.is_ok() });
        requests.push(of(ACME).subject(subject(&name)));
    }
    assert!(imports.join_all().await.into_iter().all(|taken| taken));

    let ends = Instant::now() + life;
    let took = first_tokens(&stage, &requests, ends).await;
    stage.issuer.behave(Behaviour::Normal);
    println!(
        "{users} first tokens in {took:.1?}: peak {} requests a second",
        peak(&histogram(&stage, 0))
    );

    let before = stage.issuer.ledger().entries().len();
    let began = Instant::now();
    stage.restart(|| open(&path), |_| {}).await;
    let down = began.elapsed();
    let took = all_ask(&stage, &requests).await;
    let adopted = |event: &Event| matches!(event, Event::TokenAdopted { .. });
    println!(
        "restart in {down:.1?}, then {} tokens out of the store in {took:.1?}: {} requests to the issuer",
        stage.recorder.count(adopted),
        stage.issuer.ledger().entries().len() - before,
    );

    let all_renewed = (before + users) as u64;
    let mut ticks = tokio::time::interval(ASK_EVERY);
    while stage.issuer.ledger().count() < all_renewed && Instant::now() < ends {
        ticks.tick().await;
        all_ask(&stage, &requests).await;
    }
    let seconds = histogram(&stage, before);
    let renewals: usize = seconds.values().sum();
    let (first, last) = (seconds.keys().next(), seconds.keys().next_back());
    let span = last.zip(first).map_or(1, |(last, first)| last - first + 1);
    let mean = renewals as f64 / span as f64;
    println!(
        "{renewals} renewals over {span} s: peak {} and mean {mean:.1} requests a second, {:.2} times",
        peak(&seconds),
        peak(&seconds) as f64 / mean,
    );
    println!("second by second: {:?}", seconds.values());
    stage.close().await;
}
