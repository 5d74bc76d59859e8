//! Writes `docs/benchmarks.md` from what the suites recorded: tables with ratios, plots, the goals and whether they are
//! met. What is said in prose of a suite, and why a row loses, stands in `benches/words/SUITE.md`.
//!
//! `benches/run` calls it; it measures nothing and leaves out nothing that was recorded.

mod goals;
mod plot;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keyfob_benches::record::Record;

/// The suites in the order in which the document has them.
const SUITES: [&str; 11] = [
    "hit", "peers", "stampede", "calm", "refresh", "guest", "schedule", "memory", "front",
    "before", "million",
];

const OPENING: &str = "\
# Benchmarks

Written by `benches/run`, which measures everything on this page again, or one suite with `benches/run SUITE`. Figures are
from one machine on one day and mean little elsewhere; **ratios between rows of one table were taken in one run and mean
more**. A floor is what nothing that does the work can be faster than; it reads the same clock and makes the same check.
Rows where Keyfob loses stay, with the reason.
";

fn main() -> Result<()> {
    let mut records = Vec::new();
    for suite in SUITES {
        records.extend(Record::load(suite)?);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let facts: Vec<String> = std::env::args().skip(1).collect();
    let page = page(&records, &facts, &docs)?;
    let path = docs.join("benchmarks.md");
    fs::write(&path, page).with_context(|| path.display().to_string())
}

/// The whole document; plots are written beside it.
fn page(records: &[Record], facts: &[String], docs: &Path) -> Result<String> {
    let mut page = format!("{OPENING}\n");
    for fact in facts {
        writeln!(page, "- {fact}")?;
    }
    let mut versions: Vec<&String> = records.iter().flat_map(|record| &record.versions).collect();
    versions.sort_unstable();
    versions.dedup();
    for version in versions {
        writeln!(page, "- {version}")?;
    }
    write!(page, "\n{}", goals::table(records)?)?;
    for record in records {
        writeln!(page, "\n## {}\n", record.suite)?;
        let words = words(&record.suite);
        if words.exists() {
            let words = fs::read_to_string(&words).with_context(|| words.display().to_string())?;
            writeln!(page, "{}\n", words.trim())?;
        }
        writeln!(page, "Again: `benches/run {}`", record.suite)?;
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
