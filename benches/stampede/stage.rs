//! Whom the callers ask, and how one herd goes.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use dashmap::DashMap;
use http::Extensions;
use huskarl::cache::TokenSource;
use keyfob::model::time::{Clock, SystemClock};
use keyfob_benches::issuer::{Fetch, Issuer};
use keyfob_benches::peers::aws::Identities;
use keyfob_benches::peers::azure::{Asking, Pipeline};
use keyfob_benches::peers::caches::{Ends, Held};
use keyfob_benches::peers::go::Go;
use keyfob_benches::peers::ours::Ours;
use keyfob_benches::peers::{google, huskarl as huskarl_peer};
use quick_cache::sync::{EntryAction, EntryResult};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// How long the issuer takes for an answer.
const TAKES: Duration = Duration::from_millis(50);
/// A hundred times that: whoever takes longer has shown how it does it.
pub const LIMIT: Duration = Duration::from_secs(5);
/// The life of the token that ends before the herd comes.
const FIRST_SECS: u64 = 2;
/// From that token to the herd: the token is over, whatever is rounded.
const OVER: Duration = Duration::from_millis(FIRST_SECS * 1_000 + 200);
/// Caches are asked for this one.
const KEY: &str = "acme";

/// What the callers find.
#[derive(Clone, Copy, PartialEq)]
pub enum Scene {
    Cold,
    Expired,
    Failing,
}

/// Whom they ask.
#[derive(Clone, Copy, PartialEq)]
pub enum Who {
    Ours,
    Huskarl,
    Google,
    Aws,
    Azure,
    Go,
    Moka,
    QuickCache,
    Naive,
}

/// How one run went.
pub struct Outcome {
    pub calls: u64,
    pub answered: u64,
    pub failed: u64,
    pub took: Duration,
}

/// What a caller does: gets a token.
trait Ask: Future<Output = Result<(), String>> + Send + 'static {}

impl<F: Future<Output = Result<(), String>> + Send + 'static> Ask for F {}

/// An issuer for one run, and the shortest way to it.
pub struct Stage {
    scene: Scene,
    callers: usize,
    issuer: Issuer,
    pub fetch: Fetch,
}

// === impl Scene ===

impl Scene {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Expired => "after the end",
            Self::Failing => "failing issuer",
        }
    }

    /// The same with how many come, as tables have it.
    pub fn whole(self) -> &'static str {
        match self {
            Self::Cold => "10,000 callers, cold",
            Self::Expired => "10,000 callers, after the end",
            Self::Failing => "1,000 callers, failing issuer",
        }
    }

    pub fn callers(self) -> usize {
        match self {
            Self::Cold | Self::Expired => 10_000,
            Self::Failing => 1_000,
        }
    }

    /// How often each is run: the median counts, and the most calls. Waiting for a token's end takes its time.
    pub fn runs(self) -> usize {
        match self {
            Self::Cold | Self::Failing => 9,
            Self::Expired => 3,
        }
    }
}

// === impl Who ===

impl Who {
    /// In the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::Huskarl,
        Self::Google,
        Self::Aws,
        Self::Azure,
        Self::Go,
        Self::Moka,
        Self::QuickCache,
        Self::Naive,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "keyfob, Broker::token",
            Self::Huskarl => "huskarl, token",
            Self::Google => "google-cloud-auth, headers",
            Self::Aws => "aws-smithy-runtime, identity",
            Self::Azure => "azure_core, policy",
            Self::Go => "Go x/oauth2, Token",
            Self::Moka => "moka, try_get_with",
            Self::QuickCache => "quick_cache, entry_async",
            Self::Naive => "dashmap: look, fetch, insert",
        }
    }

    pub fn takes_part_in(self, scene: Scene) -> bool {
        self != Self::Google || scene != Scene::Expired
    }

    pub async fn run(self, stage: &Stage, go: &Go) -> Result<Outcome> {
        match self {
            Self::Ours => stage.ours().await,
            Self::Huskarl => stage.huskarl().await,
            Self::Google => stage.google().await,
            Self::Aws => stage.aws().await,
            Self::Azure => stage.azure().await,
            Self::Go => stage.go(go),
            Self::Moka => stage.moka().await,
            Self::QuickCache => stage.quick_cache().await,
            Self::Naive => stage.naive().await,
        }
    }
}

// === impl Stage ===

impl Stage {
    pub async fn new(scene: Scene, callers: usize) -> Result<Self> {
        let issuer = Issuer::start(TAKES)?;
        if scene == Scene::Expired {
            issuer.next_lives(FIRST_SECS);
        }
        issuer.fail(scene == Scene::Failing);
        let fetch = Fetch::connect(&issuer).await?;
        Ok(Self {
            scene,
            callers,
            issuer,
            fetch,
        })
    }

    /// Has all callers come at once.
    async fn herd<F: Ask>(&self, ask: impl Fn() -> F) -> Result<Outcome> {
        if self.scene == Scene::Expired {
            ask().await.map_err(anyhow::Error::msg)?;
            sleep(OVER).await;
        }
        let before = self.issuer.calls();
        let start = Instant::now();
        let mut callers: JoinSet<Result<(), String>> = (0..self.callers).map(|_| ask()).collect();
        let (mut answered, mut failed) = (0, 0);
        while let Ok(Some(got)) = timeout_at(start + LIMIT, callers.join_next()).await {
            answered += 1;
            if let Err(error) = got? {
                failed += 1;
                // With an issuer that works it says more about how it was set up than about who was asked.
                ensure!(self.scene == Scene::Failing, "{error}");
            }
        }
        let took = start.elapsed();
        callers.shutdown().await;
        Ok(Outcome {
            calls: self.issuer.calls() - before,
            answered,
            failed,
            took,
        })
    }

    async fn ours(&self) -> Result<Outcome> {
        let ours = Ours::new(&self.issuer).await?;
        let outcome = self.herd(|| {
            let ours = ours.clone();
            async move { told(ours.broker.token(&ours.caller, &ours.request).await) }
        });
        let outcome = outcome.await;
        ours.broker.shutdown(Duration::from_secs(1)).await;
        outcome
    }

    async fn huskarl(&self) -> Result<Outcome> {
        let tokens = huskarl_peer::tokens(&self.issuer, self.fetch.clone())?;
        let ask = || {
            let tokens = Arc::clone(&tokens);
            async move { told(tokens.token().await) }
        };
        self.herd(ask).await
    }

    async fn google(&self) -> Result<Outcome> {
        let credentials = google::credentials(&self.issuer)?;
        let ask = || {
            let credentials = credentials.clone();
            async move { told(credentials.headers(Extensions::new()).await) }
        };
        self.herd(ask).await
    }

    async fn aws(&self) -> Result<Outcome> {
        let identities = Arc::new(Identities::new(self.fetch.clone())?);
        let ask = || {
            let identities = Arc::clone(&identities);
            async move { told(identities.identity().await) }
        };
        self.herd(ask).await
    }

    async fn azure(&self) -> Result<Outcome> {
        let pipeline = Pipeline::new(self.fetch.clone());
        let ask = || {
            let pipeline = pipeline.clone();
            async move { told(pipeline.send(&mut Asking::new()).await) }
        };
        self.herd(ask).await
    }

    async fn moka(&self) -> Result<Outcome> {
        let cache = moka::future::Cache::builder()
            .max_capacity(1_000)
            .expire_after(Ends)
            .build_with_hasher(foldhash::quality::RandomState::default());
        let ask = || {
            let (cache, fetch) = (cache.clone(), self.fetch.clone());
            async move { told(cache.try_get_with(KEY, Held::fetch(&fetch)).await) }
        };
        self.herd(ask).await
    }

    /// Entries have no end of their own: the value is looked at, and replaced under the guard, as `entry_async` has it.
    async fn quick_cache(&self) -> Result<Outcome> {
        let cache = Arc::new(quick_cache::sync::Cache::<String, Arc<Held>>::new(1_000));
        let ask = || {
            let (cache, fetch) = (Arc::clone(&cache), self.fetch.clone());
            async move {
                let now = SystemClock.now();
                if cache.get(KEY).is_some_and(|held| held.is_fresh(now)) {
                    return Ok(());
                }
                let entry = cache.entry_async(KEY, |_, held| {
                    if held.is_fresh(now) {
                        EntryAction::Retain(Arc::clone(held))
                    } else {
                        EntryAction::ReplaceWithGuard
                    }
                });
                match entry.await {
                    EntryResult::Retained(_) => Ok(()),
                    EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => {
                        told(guard.insert(Held::fetch(&fetch).await.map_err(why)?))
                    }
                    EntryResult::Removed(..) | EntryResult::Timeout => Err("not asked for".into()),
                }
            }
        };
        self.herd(ask).await
    }

    /// Looks, fetches, inserts: what is written first.
    async fn naive(&self) -> Result<Outcome> {
        let cache = Arc::new(DashMap::<String, Arc<Held>>::new());
        let ask = || {
            let (cache, fetch) = (Arc::clone(&cache), self.fetch.clone());
            async move {
                let now = SystemClock.now();
                if cache.get(KEY).is_some_and(|held| held.is_fresh(now)) {
                    return Ok(());
                }
                let held = Held::fetch(&fetch).await.map_err(why)?;
                cache.insert(KEY.to_owned(), held);
                Ok(())
            }
        };
        self.herd(ask).await
    }

    fn go(&self, go: &Go) -> Result<Outcome> {
        let first = u64::from(self.scene == Scene::Expired);
        let after = if first == 1 { OVER } else { Duration::ZERO };
        let herd = go.stampede(&self.issuer, self.callers, after, LIMIT)?;
        Ok(Outcome {
            calls: self.issuer.calls() - first,
            answered: herd.answered,
            failed: herd.failed,
            took: herd.took,
        })
    }
}

/// Whether somebody got a token, and why not.
fn told<T, E: Debug>(got: Result<T, E>) -> Result<(), String> {
    got.map(drop).map_err(why)
}

fn why(error: impl Debug) -> String {
    format!("{error:?}")
}
