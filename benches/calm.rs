//! Do callers notice what happens behind them? Hits by key and by handle of an embedded broker, while nothing happens, while
//! its plugin is swapped over and over, while ten thousand tokens are replaced, and while five thousand users are revoked.
//!
//! Callers have one core, the broker and the issuer the other. The row beside a core that is merely busy tells what two cores
//! of one machine cost each other, whatever runs on them. Every call is timed, its two clock readings included: the floor is
//! those alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use futures_util::stream;
use hdrhistogram::Histogram;
use keyfob::model::contract::Rotation;
use keyfob::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig};
use keyfob::{Broker, Principal, RejectOutcome, RejectReport, TokenHandle, TokenRequest};
use keyfob_benches::draw::Draw;
use keyfob_benches::record::Record;
use keyfob_benches::{broker, cached, cores, load};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Users with a token each.
const USERS: usize = 10_000;
/// Handles that callers hold.
const HANDLES: usize = 64;
/// How long callers call where what happens has no end of its own.
const SPAN: Duration = Duration::from_secs(3);
/// Refreshes and revocations under way at once: enough that the core behind never waits.
const AT_ONCE: usize = 64;
/// Calls between two looks whether it is over.
const BATCH: usize = 256;
/// Longer than the suite.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// Rows.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
const CLIENT: &str = "svc";
const CLIENT_SECRET: &str = "correct-horse";

/// A broker with tokens, and its callers.
struct Stage {
    issuer: Arc<Issuer>,
    broker: Broker,
    caller: Principal,
    /// Of all users.
    requests: Arc<[TokenRequest]>,
    handles: Vec<TokenHandle>,
    back: Handle,
}

/// What callers met while something happened.
struct Met {
    while_: &'static str,
    note: String,
    /// Of the callers' core, by the other.
    interrupts: u64,
    took: Duration,
    by_key: Histogram<u64>,
    by_handle: Histogram<u64>,
}

fn main() -> Result<()> {
    let back = cores::back()?;
    let front = cores::front()?;
    let mut record = Record::new("calm");
    front.block_on(measure(back.handle(), &mut record))?;
    record.save()?;
    Ok(())
}

async fn measure(back: &Handle, record: &mut Record) -> Result<()> {
    let mut stage = Stage::new(back).await?;
    let mut all = vec![floor()];
    all.push(stage.calls_during("nothing happens", stage.rest()).await?);
    all.push(
        stage
            .calls_during("the other core is busy", stage.busy())
            .await?,
    );
    all.push(
        stage
            .calls_during("the plugin is swapped", stage.swaps())
            .await?,
    );
    let before = stage.issuer.ledger().granted();
    let met = stage.calls_during("10,000 tokens are replaced", stage.refreshes());
    all.push(met.await?);
    let refreshed = stage.issuer.ledger().granted() - before;
    ensure!(
        refreshed == USERS as u64,
        "{refreshed} tokens were replaced"
    );
    let met = stage.calls_during("5,000 users are revoked", stage.revocations());
    all.push(met.await?);
    all.push(
        stage
            .calls_during("nothing happens again", stage.rest())
            .await?,
    );
    for (kind, of) in [
        ("by key", (|met| &met.by_key) as fn(&Met) -> &Histogram<u64>),
        ("by handle", |met| &met.by_handle),
    ] {
        for (label, quantile) in QUANTILES {
            let steady = of(&all[1]).value_at_quantile(quantile) as f64;
            for met in &all {
                let value = of(met).value_at_quantile(quantile) as f64;
                let note = format!("{:.2} × steady", value / steady);
                let group = format!("a hit {kind}, {label}, while …");
                record.row(&group, met.while_, value, "ns", &note);
            }
        }
    }
    for met in all.iter().skip(1) {
        let mut note = format!("{} calls of each kind", met.by_key.len());
        if !met.note.is_empty() {
            note += &format!("; {}", met.note);
        }
        let a_second = met.interrupts as f64 / met.took.as_secs_f64();
        let group = "interrupts of the callers' core by the other, while …";
        record.row(group, met.while_, a_second, "1/s", &note);
    }
    Ok(())
}

/// The clock alone.
fn floor() -> Met {
    let mut found = load::latencies();
    let end = load::now() + SPAN / 3;
    while load::now() < end {
        for _ in 0..BATCH {
            let start = load::now();
            load::note(&mut found, black_box(load::now()) - start);
        }
    }
    Met {
        while_: "floor: nobody calls",
        note: String::new(),
        interrupts: 0,
        took: SPAN / 3,
        by_key: found.clone(),
        by_handle: found,
    }
}

/// Tokens of these users are revoked at the end; callers ask for those of the others.
fn is_doomed(user: usize) -> bool {
    user % 2 == 1
}

// === impl Stage ===

impl Stage {
    async fn new(back: &Handle) -> Result<Self> {
        let entered = back.enter();
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![Client::new(CLIENT, ClientAuth::Basic(CLIENT_SECRET.into()))],
            lifetime: LIFETIME,
            ..IssuerConfig::default()
        })?;
        drop(entered);
        let grants = (0..USERS)
            .map(|user| issuer.issue_refresh_token(CLIENT, &cached::subject(user)))
            .collect::<Option<Vec<_>>>()
            .context("the issuer knows the client")?;
        let client = (CLIENT, CLIENT_SECRET);
        let settings = broker::settings(issuer.token_url(), client, Rotation::Never);
        let caller = broker::caller();
        let requests: Arc<[_]> = (0..USERS).map(broker::request).collect();
        let (asked, who) = (Arc::clone(&requests), caller.clone());
        let building = back.spawn(async move {
            let broker = Broker::builder().settings(settings).build().await?;
            broker::import(&broker, grants).await?;
            let mut first = stream::iter(0..USERS)
                .map(async |user| broker.token(&who, &asked[user]).await)
                .buffer_unordered(AT_ONCE);
            while let Some(token) = first.next().await {
                token.context("a first token")?;
            }
            drop(first);
            anyhow::Ok(broker)
        });
        let broker = building.await??;
        let mut handles = Vec::new();
        for user in (0..USERS).filter(|user| !is_doomed(*user)).take(HANDLES) {
            handles.push(broker.handle(&caller, &requests[user]).await?);
        }
        Ok(Self {
            issuer: Arc::new(issuer),
            broker,
            caller,
            requests,
            handles,
            back: back.clone(),
        })
    }

    /// Calls until `event` has ended. A call that meets no token waits for it, and its wait counts.
    async fn calls_during(
        &mut self,
        while_: &'static str,
        event: JoinHandle<Result<String>>,
    ) -> Result<Met> {
        let (mut by_key, mut by_handle) = (load::latencies(), load::latencies());
        let mut draw = Draw::new(1);
        let (began, interrupts_before) = (load::now(), cores::interrupts(cores::CALLERS)?);
        while !event.is_finished() {
            for _ in 0..BATCH {
                let request = &self.requests[draw.below(USERS / 2) * 2];
                let handle = &mut self.handles[draw.below(HANDLES)];
                let start = load::now();
                let issued = self.broker.token(&self.caller, request).await;
                let between = load::now();
                let held = match handle.get() {
                    Ok(token) => Ok(black_box(token).generation()),
                    Err(_) => handle.token().await.map(|token| token.generation()),
                };
                let end = load::now();
                black_box(issued.context("a token by key")?);
                black_box(held.context("a token by handle")?);
                load::note(&mut by_key, between - start);
                load::note(&mut by_handle, end - between);
            }
        }
        Ok(Met {
            while_,
            interrupts: cores::interrupts(cores::CALLERS)? - interrupts_before,
            took: began.elapsed(),
            note: event.await??,
            by_key,
            by_handle,
        })
    }

    fn rest(&self) -> JoinHandle<Result<String>> {
        self.back.spawn(async {
            tokio::time::sleep(SPAN).await;
            Ok(String::new())
        })
    }

    fn busy(&self) -> JoinHandle<Result<String>> {
        self.back.spawn_blocking(|| {
            let end = load::now() + SPAN;
            let mut draw = Draw::new(2);
            while load::now() < end {
                for _ in 0..BATCH {
                    black_box(draw.word());
                }
            }
            Ok(String::new())
        })
    }

    fn swaps(&self) -> JoinHandle<Result<String>> {
        let broker = self.broker.clone();
        self.back.spawn(async move {
            let component: Arc<[u8]> = keyfob::broker::builtin("oauth2")
                .context("it ships with the host")?
                .into();
            let end = load::now() + SPAN;
            let mut swaps = 0;
            while load::now() < end {
                let swapped = broker.swap_provider("acme", Arc::clone(&component), "benches");
                swapped.await?;
                swaps += 1;
            }
            Ok(format!("{swaps} swaps"))
        })
    }

    fn refreshes(&self) -> JoinHandle<Result<String>> {
        let (broker, caller) = (self.broker.clone(), self.caller.clone());
        let requests = Arc::clone(&self.requests);
        self.back.spawn(async move {
            let start = load::now();
            let replace = async |user: usize| {
                let request = &requests[user];
                let current = broker.token(&caller, request).await?;
                let report = RejectReport {
                    generation: current.token.generation().number(),
                    status: None,
                    www_authenticate: None,
                };
                let (_, outcome) = broker.reject(&caller, request, &report).await?;
                let is_new = matches!(outcome, RejectOutcome::Refreshed);
                ensure!(is_new, "a token stayed: {}", outcome.label());
                Ok(())
            };
            let mut replacing = stream::iter(0..USERS)
                .map(replace)
                .buffer_unordered(AT_ONCE);
            while let Some(replaced) = replacing.next().await {
                replaced?;
            }
            Ok(format!("in {:.1} s", start.elapsed().as_secs_f64()))
        })
    }

    fn revocations(&self) -> JoinHandle<Result<String>> {
        let broker = self.broker.clone();
        self.back.spawn(async move {
            let start = load::now();
            let doomed = (0..USERS).filter(|user| is_doomed(*user));
            let mut revoking = stream::iter(doomed)
                .map(async |user| {
                    let key = cached::key(user).credential;
                    broker.revoke_credential(&key, "benches").await
                })
                .buffer_unordered(AT_ONCE);
            while let Some(revoked) = revoking.next().await {
                revoked?;
            }
            Ok(format!("in {:.1} s", start.elapsed().as_secs_f64()))
        })
    }
}
