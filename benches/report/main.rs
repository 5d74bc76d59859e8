//! Writes `docs/benchmarks.md` from what the suites recorded: tables with ratios, plots, the goals and whether they are
//! met. What is said in prose of a suite, and why a row loses, stands in `benches/words/SUITE.md`.
//!
//! `benches/run` calls it; it measures nothing and leaves out nothing that was recorded. What the page says of a suite that
//! was not measured in this build directory stays, with the day it was measured on.

mod before;
mod goals;
mod plot;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use before::Before;
use keyfob_benches::record::Record;

/// The suites in the order in which the document has them.
const SUITES: [&str; 12] = [
    "hit", "scaling", "peers", "stampede", "calm", "refresh", "guest", "schedule", "memory",
    "front", "before", "million",
];

const OPENING: &str = "\
# Benchmarks

Written by `benches/run`, which measures everything on this page again, or one suite with `benches/run SUITE`. Figures are
from the machine and the day that a section names and mean little elsewhere; **ratios between rows of one table were taken
in one run and mean more**. A floor is what nothing that does the work can be faster than; it reads the same clock and makes
the same check.
Rows where Keyfob loses stay, with the reason.
";

fn main() -> Result<()> {
    let mut records = Vec::new();
    for suite in SUITES {
        records.extend(Record::load(suite)?);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let path = docs.join("benchmarks.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let page = page(&records, &Before::read(&before), &docs)?;
    fs::write(&path, page).with_context(|| path.display().to_string())
}

/// The whole document; plots are written beside it.
fn page(records: &[Record], before: &Before, docs: &Path) -> Result<String> {
    let mut page = format!("{OPENING}\n");
    write!(page, "{}", goals::table(records, before)?)?;
    for suite in SUITES {
        let Some(record) = records.iter().find(|record| record.suite == suite) else {
            if let Some(section) = before.section(suite) {
                writeln!(page, "\n{section}")?;
            }
            continue;
        };
        writeln!(page, "\n## {suite}\n")?;
        let words = words(&record.suite);
        if words.exists() {
            let words = fs::read_to_string(&words).with_context(|| words.display().to_string())?;
            writeln!(page, "{}\n", words.trim())?;
        }
        writeln!(
            page,
            "Measured {}. Again: `benches/run {suite}`",
            record.measured
        )?;
        let mut versions = record.versions.clone();
        versions.sort_unstable();
        versions.dedup();
        if !versions.is_empty() {
            writeln!(page, "\nBeside it: {}", versions.join("; "))?;
        }
        write!(page, "{}", table::tables(&record.rows))?;
        for plot in plot::plots(record, docs)? {
            writeln!(page, "\n![{}]({})", plot.heading, plot.path)?;
        }
    }
    Ok(page)
}

fn words(suite: &str) -> PathBuf {
    let words = Path::new(env!("CARGO_MANIFEST_DIR")).join("words");
    words.join(format!("{suite}.md"))
}
