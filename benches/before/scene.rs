//! The scene that all designs are put into: the same issuer, the same users, the same callers, the same timetable.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use keyfob::testing::issuer::{
    Behaviour, Client, ClientAuth, Issuer, IssuerConfig, RefreshRotation,
};
use keyfob_benches::cached::subject;
use keyfob_benches::draw::Draw;
use keyfob_benches::load::{self, Arrivals};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// The client of all of them, and its secret.
pub const CLIENT: &str = "svc";
pub const CLIENT_SECRET: &str = "correct-horse";
/// `svc:correct-horse`.
pub const AUTHORIZATION: &str = "Basic c3ZjOmNvcnJlY3QtaG9yc2U=";
/// How long the issuer takes to answer: an ordinary one, across the internet.
pub const LATENCY: Duration = Duration::from_millis(100);
/// How many requests are under way at once.
const WORKERS: u64 = 64;
/// How often a request is tried with another token before it gives up.
const TRIES: usize = 3;
/// One in so many callers hangs up, where callers do.
const HANGS_UP_EVERY: u64 = 10;
/// After so long: less than the issuer takes.
const HANGS_UP_AFTER: Duration = Duration::from_millis(50);
/// How long an issuer's answer may belong to the expiry before: longer than any refresh here, shorter than any life.
const ONE_EXPIRY: Duration = Duration::from_secs(2);

/// A way for services to come by tokens.
pub trait Design {
    /// Whoever handles one request at a time.
    type Worker: Worker + 'static;

    async fn worker(&self) -> Result<Self::Worker>;

    /// What it asked of a database or of Redis.
    fn counts(&self) -> &Counts;
}

/// Handles one request at a time. Its futures are dropped when a caller hangs up.
pub trait Worker {
    /// A token, and what has to be known to get another.
    type Token: AsRef<str>;

    async fn token(&mut self, user: usize) -> Result<Self::Token>;

    /// The resource said 401 to this one.
    async fn instead_of(&mut self, user: usize, refused: Self::Token) -> Result<Self::Token>;
}

/// What was asked of a database or of Redis.
#[derive(Default)]
pub struct Counts {
    reads: Cell<u64>,
    writes: Cell<u64>,
}

/// How a scene is set.
#[derive(Clone, Copy)]
pub struct Setting {
    /// How many users, each with a grant.
    pub users: usize,
    /// Whether grants are replaced at each use.
    pub is_single_use: bool,
    /// How long tokens live.
    pub lifetime: Duration,
    /// Requests a second, of all users.
    pub per_second: u32,
    /// How long they come.
    pub span: Duration,
    /// Whether one in ten callers hangs up before the issuer can answer.
    pub callers_hang_up: bool,
}

/// An issuer with users' grants.
pub struct Scene {
    pub issuer: Arc<Issuer>,
    pub grants: Vec<String>,
    pub is_single_use: bool,
    /// Where work is done that is not the callers'.
    pub back: Handle,
    setting: Setting,
    told: Told,
}

/// What callers were told.
#[derive(Default)]
struct Told {
    /// 401s that the resource said.
    refused: Cell<u64>,
    without: Cell<u64>,
    /// The first reason.
    reason: RefCell<Option<String>>,
}

/// What a run came to.
pub struct Outcome {
    /// Requests that came.
    pub requests: u64,
    /// Requests that never had their turn.
    pub left: u64,
    /// 401s that the resource said to services.
    pub refused: u64,
    /// Requests that ended without a good token.
    pub without: u64,
    pub reason: Option<String>,
    /// Reads of a database or of Redis.
    pub reads: u64,
    pub writes: u64,
    /// Calls of the issuer, and how many tokens' ends they were for.
    pub issuer_calls: u64,
    pub expiries: u64,
    /// From when a request was to come to a token that the resource takes.
    pub latencies: Histogram<u64>,
}

// === impl Counts ===

impl Counts {
    pub fn read(&self) {
        self.reads.set(self.reads.get() + 1);
    }

    pub fn write(&self) {
        self.writes.set(self.writes.get() + 1);
    }
}

// === impl Scene ===

impl Scene {
    pub fn new(setting: Setting, back: &Handle) -> Result<Rc<Self>> {
        let rotation = match setting.is_single_use {
            true => RefreshRotation::SingleUse,
            false => RefreshRotation::Never,
        };
        let client = Client::new(CLIENT, ClientAuth::Basic(CLIENT_SECRET.into()));
        let entered = back.enter();
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![client.rotation(rotation)],
            lifetime: setting.lifetime,
            ..IssuerConfig::default()
        })?;
        drop(entered);
        issuer.behave(Behaviour::Latency(LATENCY));
        let grants = (0..setting.users)
            .map(|user| issuer.issue_refresh_token(CLIENT, &subject(user)))
            .collect::<Option<_>>()
            .context("the issuer knows the client")?;
        Ok(Rc::new(Self {
            issuer: Arc::new(issuer),
            grants,
            is_single_use: setting.is_single_use,
            back: back.clone(),
            setting,
            told: Told::default(),
        }))
    }

    /// Gets everybody a first token, one user after the other, so that their tokens do not end together; then lets callers
    /// come.
    pub async fn play(self: &Rc<Self>, design: &impl Design) -> Result<Outcome> {
        let Setting {
            users,
            per_second,
            span,
            ..
        } = self.setting;
        // Within half a life: a token that nobody asks for when it is due is left to lapse, which is not what is looked at.
        let apart = self.setting.lifetime / 2 / u32::try_from(users)?;
        let mut first = design.worker().await?;
        for user in 0..users {
            self.serve(&mut first, user)
                .await
                .context("a first token")?;
            tokio::time::sleep(apart.saturating_sub(LATENCY)).await;
        }
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(design.worker().await?);
        }
        let counts = design.counts();
        let before = (counts.reads.get(), counts.writes.get());
        let calls_before = self.issuer.ledger().count();
        self.told.refused.set(0);

        let arrivals = Rc::new(Arrivals::new(per_second, span));
        let mut working = JoinSet::new();
        for (seed, worker) in (0..).zip(workers) {
            let (scene, arrivals) = (Rc::clone(self), Rc::clone(&arrivals));
            working.spawn_local(async move { scene.work(worker, &arrivals, seed).await });
        }
        let mut latencies = load::latencies();
        let mut requests = 0;
        while let Some(worked) = working.join_next().await {
            let (served, found) = worked?;
            requests += served;
            latencies.add(found)?;
        }
        let (issuer_calls, expiries) = self.expiries_since(calls_before);
        Ok(Outcome {
            requests,
            left: arrivals.left().await,
            refused: self.told.refused.get(),
            without: self.told.without.get(),
            reason: self.told.reason.take(),
            reads: counts.reads.get() - before.0,
            writes: counts.writes.get() - before.1,
            issuer_calls,
            expiries,
            latencies,
        })
    }

    /// How many users can get no token any more, once those they have are over.
    pub async fn lost(self: &Rc<Self>, design: &impl Design) -> Result<usize> {
        tokio::time::sleep(self.setting.lifetime).await;
        let mut asking = JoinSet::new();
        for user in 0..self.setting.users {
            let mut worker = design.worker().await?;
            let scene = Rc::clone(self);
            asking.spawn_local(async move { scene.serve(&mut worker, user).await.is_err() });
        }
        let mut lost = 0;
        while let Some(asked) = asking.join_next().await {
            lost += usize::from(asked?);
        }
        Ok(lost)
    }

    async fn work<W: Worker>(
        &self,
        mut worker: W,
        arrivals: &Arrivals,
        seed: u64,
    ) -> (u64, Histogram<u64>) {
        let mut draw = Draw::new(seed);
        let mut latencies = load::latencies();
        let mut served = 0;
        while let Some(arrival) = arrivals.next().await {
            served += 1;
            let serving = self.serve(&mut worker, draw.below(self.setting.users));
            let hangs_up =
                self.setting.callers_hang_up && arrival.number.is_multiple_of(HANGS_UP_EVERY);
            let done = match hangs_up {
                true => match tokio::time::timeout(HANGS_UP_AFTER, serving).await {
                    Ok(done) => done,
                    // Nobody is there to be told anything.
                    Err(_) => continue,
                },
                false => serving.await,
            };
            match done {
                Ok(()) => load::note(&mut latencies, arrival.planned.elapsed()),
                Err(error) => {
                    self.told.without.set(self.told.without.get() + 1);
                    let mut reason = self.told.reason.borrow_mut();
                    reason.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        (served, latencies)
    }

    /// One request: a token, and the resource that looks at it.
    async fn serve(&self, worker: &mut impl Worker, user: usize) -> Result<()> {
        let mut token = worker.token(user).await?;
        for _ in 0..TRIES {
            if self.issuer.is_active(token.as_ref()) {
                return Ok(());
            }
            self.told.refused.set(self.told.refused.get() + 1);
            token = worker.instead_of(user, token).await?;
        }
        ensure!(
            self.issuer.is_active(token.as_ref()),
            "refused {TRIES} times"
        );
        Ok(())
    }

    /// Calls of the issuer, and for how many ends of tokens they were: those for one user that come together are for one.
    fn expiries_since(&self, number: u64) -> (u64, u64) {
        let calls = self.issuer.ledger().entries_from(number);
        let mut expiries = 0;
        let mut latest = std::collections::HashMap::new();
        for call in &calls {
            let before = latest.insert(call.presented, call.at);
            let is_new = before.is_none_or(|before| call.at.since(before) > ONE_EXPIRY);
            expiries += u64::from(is_new);
        }
        (calls.len() as u64, expiries)
    }
}

/// Nothing to come by: what the timetable and the resource cost by themselves.
pub struct Floor {
    tokens: Rc<[String]>,
    counts: Counts,
}

// === impl Floor ===

impl Floor {
    /// Tokens that do not end within the scene, though the setting says so.
    pub async fn new(scene: &Scene) -> Result<Self> {
        let refresher = crate::refresher::Refresher::new(scene)?;
        let lifetime = scene.setting.lifetime + scene.setting.span * 2;
        scene.issuer.behave(Behaviour::Lifetime(lifetime));
        let mut tokens = Vec::new();
        for grant in &scene.grants {
            tokens.push(refresher.refresh(grant).await?.access_token);
        }
        Ok(Self {
            tokens: tokens.into(),
            counts: Counts::default(),
        })
    }
}

impl Design for Floor {
    type Worker = Rc<[String]>;

    async fn worker(&self) -> Result<Self::Worker> {
        Ok(Rc::clone(&self.tokens))
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Worker for Rc<[String]> {
    type Token = String;

    async fn token(&mut self, user: usize) -> Result<String> {
        Ok(self[user].clone())
    }

    async fn instead_of(&mut self, _: usize, _: String) -> Result<String> {
        bail!("it was to last")
    }
}
