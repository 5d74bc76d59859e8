//! Many callers want one token at once, and there is none: how often is the issuer asked, and how long does the last of them
//! wait? Cold; after the first token ended; and with an issuer that fails.
//!
//! The issuer is on loopback, takes 50 ms for an answer and counts. Everybody makes real requests to it. Whoever is not done
//! after the limit is left, and its row says how far it came. All callers are tasks of one runtime with a thread for each
//! core; those of Go are goroutines in a process of their own. `google-cloud-auth` begins to fetch when it is set up, not
//! when it is asked, and renews so early that nobody comes after the end: it has no row there.

#[path = "stampede/stage.rs"]
mod stage;

use std::time::Duration;

use anyhow::{Context, Result};
use keyfob_benches::peers;
use keyfob_benches::peers::go::Go;
use keyfob_benches::record::Record;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use stage::{LIMIT, Outcome, Scene, Stage, Who};

/// How often each point of a curve is run: the median counts, and the most calls.
const CURVE_RUNS: usize = 3;
/// Curves go from one caller to as many as the scene has, by tens.
const CURVES: [Scene; 2] = [Scene::Cold, Scene::Failing];
/// The tables of a scene, and its plots.
const CALLS: &str = "issuer calls";
const WAITS: &str = "until the last is answered";

/// What it takes to run everybody, and what was found.
struct Suite {
    runtime: Runtime,
    go: Go,
    /// How long the issuer takes for one caller.
    own: Duration,
    record: Record,
}

/// How a few runs went.
struct Found {
    /// The most of them.
    calls: u64,
    /// By how long it took.
    median: Outcome,
}

/// How long one answer takes when nobody else asks: what no caller can be quicker than.
async fn own_time() -> Result<Duration> {
    let stage = Stage::new(Scene::Cold, 1).await?;
    let mut all = Vec::new();
    for _ in 0..Scene::Cold.runs() {
        let start = Instant::now();
        stage.fetch.token().await?;
        all.push(start.elapsed());
    }
    all.sort();
    Ok(all[all.len() / 2])
}

impl Suite {
    /// Runs one of them a few times with all callers of a scene and writes it down; then with fewer, for the curves.
    fn measure(&mut self, scene: Scene, who: Who) -> Result<()> {
        let found = self.run(scene, who, scene.callers(), scene.runs())?;
        let Outcome {
            answered,
            failed,
            took,
            ..
        } = found.median;
        let ratio = took.as_secs_f64() / self.own.as_secs_f64();
        let callers = scene.callers() as u64;
        let mut note = format!("{ratio:.2} × the issuer's own time, {failed} errors");
        if answered < callers {
            note = format!("stopped: {answered} of {callers} answered, {failed} with errors");
        }
        let (group, name) = (scene.whole(), who.name());
        let (calls, waits) = (found.calls as f64, millis(took));
        let record = &mut self.record;
        record.row(&format!("{group}: {CALLS}"), name, calls, "calls", "");
        record.row(&format!("{group}: {WAITS}"), name, waits, "ms", &note);
        if CURVES.contains(&scene) {
            self.grow(scene, who, found)?;
        }
        Ok(())
    }

    /// How calls and the last caller's wait grow up to the `whole` herd. Curves end where a run had to be stopped.
    fn grow(&mut self, scene: Scene, who: Who, whole: Found) -> Result<()> {
        let mut callers = 1;
        while callers < scene.callers() {
            let found = self.run(scene, who, callers, CURVE_RUNS)?;
            self.point(scene, who, callers, &found);
            if found.median.took >= LIMIT {
                return Ok(());
            }
            callers *= 10;
        }
        self.point(scene, who, callers, &whole);
        Ok(())
    }

    fn point(&mut self, scene: Scene, who: Who, callers: usize, found: &Found) {
        let figures = [
            (CALLS, "calls", found.calls as f64),
            (WAITS, "ms", millis(found.median.took)),
        ];
        for (what, unit, value) in figures {
            let plot = format!("{}: {what}", scene.name());
            let axes = ("callers at once", unit);
            let at = (callers as f64, value);
            self.record.point(&plot, who.name(), axes, at);
        }
    }

    /// Runs one of them `times`, or until one run has to be stopped.
    fn run(&self, scene: Scene, who: Who, callers: usize, times: usize) -> Result<Found> {
        let mut outcomes = Vec::new();
        for _ in 0..times {
            let run = async { who.run(&Stage::new(scene, callers).await?, &self.go).await };
            let outcome = self.runtime.block_on(run);
            let outcome = outcome
                .with_context(|| format!("{}, {callers} callers, {}", who.name(), scene.name()))?;
            let over = outcome.took >= LIMIT;
            outcomes.push(outcome);
            if over {
                break;
            }
        }
        outcomes.sort_by_key(|outcome| outcome.took);
        let calls = outcomes.iter().map(|outcome| outcome.calls).max();
        Ok(Found {
            calls: calls.context("it ran")?,
            median: outcomes.swap_remove(outcomes.len() / 2),
        })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn main() -> Result<()> {
    let go = Go::build()?;
    let runtime = Runtime::new()?;
    let mut record = Record::new("stampede");
    record.versions = peers::versions();
    record.versions.push(go.version.clone());
    let own = runtime.block_on(own_time())?;
    let mut suite = Suite {
        runtime,
        go,
        own,
        record,
    };
    for scene in [Scene::Cold, Scene::Expired, Scene::Failing] {
        let group = format!("{}: {WAITS}", scene.whole());
        let floor = "floor: the issuer's own time, one caller";
        suite.record.row(&group, floor, millis(own), "ms", "");
        for who in Who::ALL {
            if who.takes_part_in(scene) {
                suite.measure(scene, who)?;
            }
        }
    }
    let mut record = suite.record;
    // One table after the other, each in the order in which the rows were measured.
    let mut order: Vec<String> = Vec::new();
    for row in &record.rows {
        if !order.contains(&row.group) {
            order.push(row.group.clone());
        }
    }
    record
        .rows
        .sort_by_key(|row| order.iter().position(|group| *group == row.group));
    record.save()?;
    Ok(())
}
