//! The rows of the suite: what each round found, and medians of that next to nginx.

use keyfob_benches::load::{Closed, Open};
use keyfob_benches::record::{Curve, Record};

use crate::{CONNECTIONS, PER_SECOND};

/// Rows of the open loop.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
/// Points of a curve for each nine.
const POINTS_PER_NINE: u32 = 4;
/// How many nines a run of twenty thousand requests can tell.
const NINES: u32 = 4;
/// One row, as it was measured.
pub struct Found {
    name: String,
    /// Whom it is told next to.
    peer: Option<String>,
    /// How many tokens one answer holds.
    tokens: usize,
    pub closed: Vec<Closed>,
    pub open: Vec<Open>,
}

/// All rows, by name, over the rounds.
#[derive(Default)]
pub struct Table(Vec<Found>);

// === impl Table ===

impl Table {
    /// The row of this name, made where there is none.
    pub fn row(&mut self, name: &str, peer: Option<String>, tokens: usize) -> &mut Found {
        let at = self.0.iter().position(|found| found.name == name);
        let at = at.unwrap_or_else(|| {
            self.0.push(Found {
                name: name.to_owned(),
                peer,
                tokens,
                closed: Vec::new(),
                open: Vec::new(),
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Tells everything, once all rounds are over.
    pub fn record(&self, record: &mut Record) {
        let used = format!("processor time of the server a token, {CONNECTIONS} connections");
        self.group(record, &used, "µs", |found| Some(found.used_micros()));
        let answered = format!("tokens a second from one core, {CONNECTIONS} connections");
        self.group(record, &answered, "1/s", |found| Some(found.per_second()));
        for (label, quantile) in QUANTILES {
            let group = format!("latency at {PER_SECOND} requests a second, {label}");
            self.group(record, &group, "µs", |found| found.micros(quantile));
        }
        // Whoever leaves some has better percentiles than it deserves: those would have waited longest.
        let left = format!("requests never asked at {PER_SECOND} a second, in the worst round");
        for found in &self.0 {
            if let Some(worst) = found.open.iter().map(|run| run.left).max() {
                record.row(&left, &found.name, worst as f64, "requests", "");
            }
        }
        for found in self.0.iter().filter(|found| !found.open.is_empty()) {
            let points = (0..=NINES * POINTS_PER_NINE).filter_map(|at| {
                let nines = f64::from(at) / f64::from(POINTS_PER_NINE);
                Some((nines, found.micros(1.0 - 10_f64.powf(-nines))?))
            });
            record.curves.push(Curve {
                plot: format!("Latency at {PER_SECOND} requests a second"),
                name: found.name.clone(),
                x: "nines of the percentile (1 is p90, 2 is p99)".to_owned(),
                y: "µs".to_owned(),
                points: points.collect(),
            });
        }
    }

    fn group(
        &self,
        record: &mut Record,
        group: &str,
        unit: &str,
        figure: impl Fn(&Found) -> Option<f64>,
    ) {
        for found in &self.0 {
            let Some(value) = figure(found) else { continue };
            let peer = self
                .0
                .iter()
                .find(|other| Some(&other.name) == found.peer.as_ref());
            let note = peer.and_then(|peer| {
                let ratio = value / figure(peer)?;
                Some(format!("{ratio:.2} × {}", peer.name))
            });
            record.row(group, &found.name, value, unit, &note.unwrap_or_default());
        }
    }
}

// === impl Found ===

impl Found {
    fn used_micros(&self) -> f64 {
        let tokens = self.tokens as f64;
        median(
            self.closed
                .iter()
                .map(|run| run.used.as_secs_f64() * 1e6 / (run.requests as f64 * tokens)),
        )
    }

    fn per_second(&self) -> f64 {
        let tokens = self.tokens as f64;
        median(
            self.closed
                .iter()
                .map(|run| run.requests as f64 * tokens / run.took.as_secs_f64()),
        )
    }

    fn micros(&self, quantile: f64) -> Option<f64> {
        let runs = self.open.iter();
        let runs = runs.map(|run| run.latencies.value_at_quantile(quantile) as f64 / 1e3);
        (!self.open.is_empty()).then(|| median(runs))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
