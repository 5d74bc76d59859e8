//! What does Keyfob replace, and what was that like? The two designs that services have when nobody owns their tokens, a row
//! in a shared database and cache-aside over Redis, next to Keyfob embedded and as a daemon: the same users, callers and
//! issuer, a hundred milliseconds away, while tokens end under load.
//!
//! The first scene asks what it costs: issuer calls, reads and writes, 401s, and how long callers wait. The second has
//! single-use refresh tokens, as RFC 9700 recommends, and callers who hang up now and then, and counts grants that are lost:
//! each is a user who has to log in again.
//!
//! Servers, issuer and broker share one core, callers have the other. Requests come by a timetable, and wait from when they
//! were to come; a request is done when the resource takes its token. The resource is a look into the issuer's book.

#[path = "before/aside.rs"]
mod aside;
#[path = "before/keyfobs.rs"]
mod keyfobs;
#[path = "before/refresher.rs"]
mod refresher;
#[path = "before/row.rs"]
mod row;
#[path = "before/scene.rs"]
mod scene;

use std::time::Duration;

use anyhow::{Result, ensure};
use keyfob_benches::cores;
use keyfob_benches::record::{Curve, Record};
use keyfob_benches::servers::postgres::Postgres;
use keyfob_benches::servers::redis::Redis;
use tokio::runtime::Handle;
use tokio::task::LocalSet;

use aside::Aside;
use keyfobs::{Daemon, Embedded};
use row::Row;
use scene::{Design, Floor, Outcome, Scene, Setting};

/// Tokens that end under load. Ten seconds is the shortest life at which Keyfob renews ahead, as it does for real ones, which
/// live for an hour.
const COST: Setting = Setting {
    users: 8,
    is_single_use: false,
    lifetime: Duration::from_secs(10),
    per_second: 2_000,
    span: Duration::from_secs(12),
    callers_hang_up: false,
};
/// Many grants, each refreshed a few times. Tokens so short-lived are renewed by Keyfob when somebody asks: whoever hangs up
/// may be who started it.
const LOSS: Setting = Setting {
    users: 20,
    is_single_use: true,
    lifetime: Duration::from_secs(4),
    per_second: 500,
    span: Duration::from_secs(8),
    callers_hang_up: false,
};
/// Rows about waiting.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
/// A curve is told at each of these percentiles, by its nines: up to 99.99, which is two requests of a run.
const NINES: [f64; 9] = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0];

/// The stage and what was found on it.
struct Suite {
    back: Handle,
    record: Record,
    /// By name, in order.
    costs: Vec<(&'static str, Outcome)>,
}

fn main() -> Result<()> {
    let back = cores::back()?;
    let front = cores::front()?;
    let mut suite = Suite {
        back: back.handle().clone(),
        record: Record::new("before"),
        costs: Vec::new(),
    };
    LocalSet::new().block_on(&front, suite.run())?;
    suite.tell_costs();
    suite.record.save()?;
    Ok(())
}

// === impl Suite ===

impl Suite {
    async fn run(&mut self) -> Result<()> {
        let postgres = Postgres::start()?;
        let redis = Redis::start()?;
        self.record.versions = vec![postgres.version.clone(), redis.version.clone()];

        let floor = Setting {
            lifetime: Duration::from_secs(1),
            span: Duration::from_secs(2),
            ..COST
        };
        let scene = Scene::new(floor, &self.back)?;
        self.cost(
            "floor: tokens that never end",
            &scene,
            Floor::new(&scene).await?,
        )
        .await?;
        let scene = Scene::new(COST, &self.back)?;
        self.cost(
            "row in a database",
            &scene,
            Row::new(&scene, &postgres).await?,
        )
        .await?;
        let scene = Scene::new(COST, &self.back)?;
        self.cost("cache-aside", &scene, Aside::new(&scene, &redis).await?)
            .await?;
        for (name, by_handle) in [("keyfob, by handle", true), ("keyfob, by key", false)] {
            let scene = Scene::new(COST, &self.back)?;
            self.cost(name, &scene, Embedded::new(&scene, by_handle).await?)
                .await?;
        }
        let scene = Scene::new(COST, &self.back)?;
        self.cost("keyfob, daemon", &scene, Daemon::new(&scene).await?)
            .await?;

        let scene = Scene::new(LOSS, &self.back)?;
        self.loss(
            "row in a database",
            &scene,
            Row::new(&scene, &postgres).await?,
        )
        .await?;
        let scene = Scene::new(LOSS, &self.back)?;
        self.loss("cache-aside", &scene, Aside::new(&scene, &redis).await?)
            .await?;
        let hang_up = Setting {
            callers_hang_up: true,
            ..LOSS
        };
        let scene = Scene::new(hang_up, &self.back)?;
        let aside = Aside::new(&scene, &redis).await?;
        self.loss("cache-aside, callers hang up", &scene, aside)
            .await?;
        let scene = Scene::new(hang_up, &self.back)?;
        let embedded = Embedded::new(&scene, true).await?;
        self.loss("keyfob, by handle, callers hang up", &scene, embedded)
            .await?;
        let scene = Scene::new(hang_up, &self.back)?;
        let daemon = Daemon::new(&scene).await?;
        self.loss("keyfob, daemon, callers hang up", &scene, daemon)
            .await
    }

    async fn cost(
        &mut self,
        name: &'static str,
        scene: &std::rc::Rc<Scene>,
        design: impl Design,
    ) -> Result<()> {
        let outcome = scene.play(&design).await?;
        ensure!(
            outcome.left == 0,
            "{name}: {} requests a second are too many for this machine",
            COST.per_second
        );
        self.costs.push((name, outcome));
        Ok(())
    }

    async fn loss(
        &mut self,
        name: &str,
        scene: &std::rc::Rc<Scene>,
        design: impl Design,
    ) -> Result<()> {
        let outcome = scene.play(&design).await?;
        let lost = scene.lost(&design).await?;
        let Outcome {
            requests,
            left,
            without,
            issuer_calls,
            reason,
            ..
        } = outcome;
        let replays = scene.issuer.ledger().replayed();
        let mut note = format!(
            "{replays} replays; {without} of {requests} requests without a token, {left} never had their turn; \
             {issuer_calls} issuer calls"
        );
        if let Some(reason) = reason {
            note += &format!("; first reason: {reason}");
        }
        let group = format!("single-use refresh tokens: grants lost, of {}", LOSS.users);
        self.record.row(&group, name, lost as f64, "grants", &note);
        Ok(())
    }

    fn tell_costs(&mut self) {
        self.tell("issuer calls an expiry", "calls", |it| {
            let note = format!("{} calls, {} expiries", it.issuer_calls, it.expiries);
            (it.issuer_calls as f64 / it.expiries.max(1) as f64, note)
        });
        self.tell("401s that reached a service", "answers", |it| {
            (it.refused as f64, format!("of {} requests", it.requests))
        });
        self.tell("requests without a token", "requests", |it| {
            (it.without as f64, it.reason.clone().unwrap_or_default())
        });
        self.tell(
            "database or Redis reads for 1,000 requests",
            "reads",
            |it| (it.reads as f64 * 1e3 / it.requests as f64, String::new()),
        );
        self.tell(
            "database or Redis writes for 1,000 requests",
            "writes",
            |it| (it.writes as f64 * 1e3 / it.requests as f64, String::new()),
        );
        let latency = scene::LATENCY.as_millis();
        self.tell(
            &format!("requests that waited {latency} ms or longer"),
            "requests",
            |it| (it.waited() as f64, format!("of {} requests", it.requests)),
        );
        for (label, quantile) in QUANTILES {
            self.tell(&format!("time to a good token, {label}"), "µs", |it| {
                (it.micros(quantile), String::new())
            });
        }
        for (name, outcome) in &self.costs {
            let points = NINES.map(|nines| (nines, outcome.micros(1.0 - 10_f64.powf(-nines))));
            self.record.curves.push(Curve {
                plot: format!(
                    "Time to a good token, {} requests a second",
                    COST.per_second
                ),
                name: (*name).to_owned(),
                x: "nines of the percentile (1 is p90, 2 is p99)".to_owned(),
                y: "µs".to_owned(),
                points: points.to_vec(),
            });
        }
    }

    fn tell(&mut self, group: &str, unit: &str, figure: impl Fn(&Outcome) -> (f64, String)) {
        for (name, outcome) in &self.costs {
            let (value, note) = figure(outcome);
            self.record.row(group, name, value, unit, &note);
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Requests that waited for as long as the issuer takes.
    fn waited(&self) -> u64 {
        let latency = u64::try_from(scene::LATENCY.as_nanos()).expect("a moment");
        self.latencies.count_between(latency, self.latencies.high())
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}
