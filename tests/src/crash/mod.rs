//! Kills the real binary again and again while its grants rotate, and has the issuer say whether a rotation was lost or a
//! grant presented twice. The issuer lives in this process and survives every kill; its ledger is the oracle.
//! `docs/reliability.md` says what this proves, and what it does not.
//!
//! [`run`] is the story; when to kill is `aim`'s, who asks meanwhile `callers`', what must hold `oracle`'s, where it
//! all stands `ground`'s, and the two authorization servers are behind `upstream`.

mod aim;
mod callers;
mod draw;
mod ground;
pub mod memory;
mod oracle;
mod report;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use keyfob::model::time::{Clock as _, SystemClock};
use tokio::time::Instant;

use self::aim::{Aim, Shot};
use self::draw::Draw;
use self::ground::Ground;
pub use self::report::Report;
pub use self::upstream::Kind;
use crate::daemon::KeyfobDaemon;

/// How long the end waits for every doubt to be decided: a mark is over a few seconds after its attempt's deadline.
const SETTLE: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the process is killed.
    pub kills: usize,
    /// Draws when and how. The same seed aims the same; what the machine makes of it differs.
    pub seed: u64,
    /// Credentials of each provider.
    pub credentials: usize,
    /// Which authorization server.
    pub issuer: Kind,
    /// Whether the memory of the process is searched before its orderly end.
    pub memory: bool,
}

/// Does it. `told` hears how many kills are done.
///
/// # Errors
///
/// When the run could not be made. What went wrong with the process under test is in the report.
pub async fn run(plan: Plan, mut told: impl FnMut(&Report)) -> anyhow::Result<Report> {
    let mut ground = Ground::prepare(&plan).await?;
    let mut draw = Draw::new(plan.seed);
    let mut usual_start = measure_start(&mut ground).await?;
    for _ in 0..plan.kills {
        let shot = Shot::draw(&mut draw, usual_start);
        let began = Instant::now();
        let started = round(&mut ground, shot).await?;
        ground.report.cycles.push(began.elapsed());
        if let Some(started) = started {
            ground.report.starts.push(started);
            usual_start = ground.report.usual_start();
        }
        told(&ground.report);
        if ground.gave_up() {
            break;
        }
    }
    if !ground.gave_up() {
        settle(&mut ground, plan.memory).await?;
    }
    ground.search_file()?;
    ground.close().await
}

/// A first start, which makes the store; nothing is asked of it.
async fn measure_start(ground: &mut Ground) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let daemon = ground.start().await?;
    anyhow::ensure!(
        daemon.ready().await?,
        "the first start failed:\n{}",
        daemon.log()
    );
    let took = began.elapsed();
    daemon.stop().await?;
    Ok(took)
}

/// From a start to the kill; how long the start took, where it was left to finish.
async fn round(ground: &mut Ground, shot: Shot) -> anyhow::Result<Option<Duration>> {
    ground.next_round();
    let began = Instant::now();
    let daemon = ground.start().await?;
    if let Aim::Starting = shot.aim {
        tokio::time::sleep(shot.delay).await;
        ground.kill(&daemon, shot.aim)?;
        ground.bury(daemon).await?;
        return Ok(None);
    }
    if !daemon.ready().await? {
        ground.refused_start(daemon).await?;
        return Ok(None);
    }
    let started = began.elapsed();
    ground.audit(&daemon).await?;
    let (daemon, stop) = (Arc::new(daemon), Arc::new(AtomicBool::new(false)));
    let mut callers = callers::spawn(ground, &daemon, &stop);
    let hit = shot.wait(ground.upstream()).await;
    ground.kill(&daemon, shot.aim)?;
    stop.store(true, Ordering::Relaxed);
    ground.report.missed += usize::from(!hit);
    while let Some(done) = callers.join_next().await {
        done.context("a caller")?;
    }
    let daemon = Arc::into_inner(daemon).context("the callers are gone")?;
    ground.bury(daemon).await?;
    Ok(Some(started))
}

/// One more life, in which every doubt is decided, and an orderly end.
async fn settle(ground: &mut Ground, memory: bool) -> anyhow::Result<()> {
    ground.next_round();
    let daemon = ground.start().await?;
    if !daemon.ready().await? {
        return ground.refused_start(daemon).await;
    }
    ground.audit(&daemon).await?;
    let (daemon, stop) = (Arc::new(daemon), Arc::new(AtomicBool::new(false)));
    let mut callers = callers::spawn(ground, &daemon, &stop);
    let deadline = Instant::now() + SETTLE;
    while !ground.all_served() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = callers.join_next().await {
        done.context("a caller")?;
    }
    let daemon = Arc::into_inner(daemon).context("the callers are gone")?;
    ground.last_tokens(&daemon).await?;
    if memory {
        ground.look_into_memory(&daemon)?;
    }
    ground.end(daemon).await
}

/// A seed that nobody chose, for a run that names none.
pub fn seed() -> u64 {
    now_millis()
}

/// Now, as the ledger has it.
fn now_millis() -> u64 {
    SystemClock.now().as_millis()
}

/// Everything of a daemon that a caller or the ground may need at once.
type Daemon = Arc<KeyfobDaemon>;
