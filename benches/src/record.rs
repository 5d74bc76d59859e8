//! Figures of one suite, kept as JSON beneath the build directory.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// In which variable `benches/run` says when, what and on which machine.
const MEASURED: &str = "KEYFOB_MEASURED";

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The table it belongs to, within its suite.
    pub group: String,
    /// What was measured, or who.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit: `ns`, `µs`, `ms`, `s`, `B`, `calls`, `instructions` …
    pub unit: String,
    /// What is to be said of it beside the figure; empty when nothing is.
    pub note: String,
}

/// One curve of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The plot it belongs to, within its suite: its heading.
    pub plot: String,
    /// What it shows: its line in the legend.
    pub name: String,
    /// Name and unit of the horizontal axis.
    pub x: String,
    /// Name and unit of the vertical axis.
    pub y: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// All that a suite found out in one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The suite's name: its file's.
    pub suite: String,
    /// In the order in which a reader wants them.
    pub rows: Vec<Row>,
    /// Likewise.
    pub curves: Vec<Curve>,
    /// When, what and on which machine, as `benches/run` tells.
    #[serde(default)]
    pub measured: String,
    /// Versions of whoever was measured beside us, as they print them.
    pub versions: Vec<String>,
    /// When it was begun: what criterion kept from before is not of this run.
    #[serde(skip)]
    since: Option<SystemTime>,
}

// === impl Record ===

impl Record {
    /// An empty one. To be made before anything is measured.
    #[expect(
        clippy::disallowed_methods,
        reason = "compared with when files were written"
    )]
    pub fn new(suite: &str) -> Self {
        Self {
            since: Some(SystemTime::now()),
            suite: suite.to_owned(),
            measured: std::env::var(MEASURED).unwrap_or_else(|_| "by hand".to_owned()),
            ..Self::default()
        }
    }

    /// Adds a figure.
    pub fn row(&mut self, group: &str, name: &str, value: f64, unit: &str, note: &str) {
        self.rows.push(Row {
            group: group.to_owned(),
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            note: note.to_owned(),
        });
    }

    /// Adds a point to the right of a curve's others; begins the curve with its first.
    pub fn point(&mut self, plot: &str, name: &str, (x, y): (&str, &str), at: (f64, f64)) {
        let same = |curve: &&mut Curve| curve.plot == plot && curve.name == name;
        if let Some(curve) = self.curves.iter_mut().find(same) {
            curve.points.push(at);
            return;
        }
        self.curves.push(Curve {
            plot: plot.to_owned(),
            name: name.to_owned(),
            x: x.to_owned(),
            y: y.to_owned(),
            points: vec![at],
        });
    }

    /// Adds the medians, in nanoseconds an iteration, that criterion found for these groups in this build directory.
    ///
    /// # Errors
    ///
    /// When criterion left nothing there, or something else.
    pub fn criterion(&mut self, groups: &[&str]) -> Result<()> {
        for group in groups {
            let folder = target().join("criterion").join(group);
            let mut found = Vec::new();
            collect(&folder, &mut found)?;
            found.retain(|(written, ..)| self.since.is_none_or(|since| *written >= since));
            anyhow::ensure!(!found.is_empty(), "nothing new in {}", folder.display());
            // Criterion keeps no order; files are written in the order in which the rows ran.
            found.sort_by_key(|(written, ..)| *written);
            for (_, name, median) in found {
                self.row(group, &name, median, "ns", "");
            }
        }
        Ok(())
    }

    /// Writes it down, in place of the last run's, and shows it.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    #[expect(
        clippy::print_stdout,
        reason = "a suite is a program that tells what it found"
    )]
    pub fn save(&self) -> Result<PathBuf> {
        let folder = folder();
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(format!("{}.json", self.suite));
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| path.display().to_string())?;
        print!("{self}");
        Ok(path)
    }

    /// The last run of a suite; `None` when it never ran here.
    ///
    /// # Errors
    ///
    /// When what is there cannot be read.
    pub fn load(suite: &str) -> Result<Option<Self>> {
        let path = folder().join(format!("{suite}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        let record = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(Some(record))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = "";
        let width = self.rows.iter().map(|row| row.name.chars().count()).max();
        for row in &self.rows {
            if row.group != group {
                group = &row.group;
                writeln!(f, "\n{}: {group}", self.suite)?;
            }
            let width = width.unwrap_or_default();
            let (name, unit, note) = (&row.name, &row.unit, &row.note);
            writeln!(f, "  {name:width$}  {:>14.3} {unit}  {note}", row.value)?;
        }
        Ok(())
    }
}

/// Where records are kept.
pub fn folder() -> PathBuf {
    target().join("benchmarks")
}

/// The build directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// What criterion tells of one row.
type Found = (SystemTime, String, f64);

fn collect(folder: &Path, found: &mut Vec<Found>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "new") {
            let read = |name: &str| -> Result<serde_json::Value> {
                let path = path.join(name);
                let text = fs::read(&path).with_context(|| path.display().to_string())?;
                Ok(serde_json::from_slice(&text)?)
            };
            let (about, estimates) = (read("benchmark.json")?, read("estimates.json")?);
            let mut name = about["function_id"].as_str().unwrap_or_default().to_owned();
            if let Some(value) = about["value_str"].as_str() {
                name = format!("{name}, {value}");
            }
            let median = estimates["median"]["point_estimate"].as_f64();
            let median = median.context("criterion wrote no median")?;
            let written = fs::metadata(path.join("estimates.json"))?.modified()?;
            found.push((written, name, median));
        } else {
            collect(&path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_comes_back() {
        let mut record = Record::new("a-suite-of-tests");
        record.row("lookups", "ours", 1.5, "ns", "");
        for at in [(1.0, 2.0), (10.0, 3.0)] {
            record.point("growth", "ours", ("keys", "ns"), at);
        }
        let points: Vec<_> = record.curves.iter().map(|curve| &curve.points).collect();
        assert_eq!(points, [&vec![(1.0, 2.0), (10.0, 3.0)]]);
        let path = record.save().unwrap();
        let loaded = Record::load("a-suite-of-tests").unwrap().unwrap();
        assert_eq!((loaded.suite, loaded.rows), (record.suite, record.rows));
        assert_eq!(loaded.curves, record.curves);
        fs::remove_file(path).unwrap();
        assert_eq!(Record::load("a-suite-of-tests").unwrap(), None);
    }
}
