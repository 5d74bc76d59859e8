//! Ten thousand users whose tokens end together, through the real thing: store, sandbox and sockets. Prints what the issuer
//! saw at the start, after a restart, and over one refresh window. Takes a token's life; run it by hand:
//! `cargo run -p keyfob-tests --example herd [USERS] [LIFE_SECONDS]`.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(
    clippy::disallowed_methods,
    reason = "callers are tasks that end with the process"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyfob::model::event::Event;
use keyfob::model::policy::TokenRequest;
use keyfob::model::secret::Secret;
use keyfob::model::time::UnixTime;
use keyfob::store::Store;
use keyfob::store::embedded::EmbeddedStore;
use keyfob_tests::stage::{ACME, CLIENT, Setting, Stage, client, credential, of, subject};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SEALING_KEY: &str = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";

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
    let life = Duration::from_secs(numbers.next().unwrap_or(480));
    let dir = tempfile::tempdir().expect("there is room for a file");
    let path = dir.path().join("keyfob.redb");
    let mut setting = Setting::new().lifetime(life).refresh_tokens(client());
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

    let took = all_ask(&stage, &requests).await;
    let seconds = histogram(&stage, 0);
    println!(
        "{users} first tokens in {took:.1?}: peak {} requests a second",
        peak(&seconds)
    );

    let before = stage.issuer.ledger().entries().len();
    let began = Instant::now();
    stage.restart(|| open(&path), |_| {}).await;
    let down = began.elapsed();
    let took = all_ask(&stage, &requests).await;
    // Once more: they are in use.
    all_ask(&stage, &requests).await;
    let adopted = |event: &Event| matches!(event, Event::TokenAdopted { .. });
    println!(
        "restart in {down:.1?}, then {} tokens out of the store in {took:.1?}: {} requests to the issuer",
        stage.recorder.count(adopted),
        stage.issuer.ledger().entries().len() - before,
    );

    let ends = UnixTime::from_secs(*seconds.keys().next_back().expect("somebody asked"));
    let ends = ends.plus(life);
    stage.issuer.ledger().wait_for((before + users) as u64).await;
    let seconds = histogram(&stage, before);
    let (first, last) = (seconds.keys().next(), seconds.keys().next_back());
    let span = last.zip(first).map_or(1, |(last, first)| last - first + 1);
    let mean = users as f64 / span as f64;
    println!(
        "{users} renewals over {span} s, the last {} s before the tokens ended: peak {} and mean {mean:.1} requests a second, {:.2} times",
        ends.as_secs().saturating_sub(last.copied().unwrap_or(0)),
        peak(&seconds),
        peak(&seconds) as f64 / mean,
    );
    stage.close().await;
}
