//! What was to be reached, and what was.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use keyfob_benches::record::{Record, Row};

use super::before::Before;
use super::table::short;

/// A figure of a suite: suite, group, row.
type Figure = (&'static str, &'static str, &'static str);

/// Something to be reached.
struct Goal {
    work: &'static str,
    /// The most that `of` may be, in units of `against`.
    at_most: f64,
    of: Figure,
    against: Against,
    /// What stands between the figure and the goal, said where it is missed; nothing for what was never missed.
    why: &'static str,
}

/// What a figure is held against.
enum Against {
    /// Nothing: it stands for itself.
    Itself,
    /// One other row.
    Row(Figure),
    /// The least row of this suite and group that is not ours and has this in its name.
    Best(&'static str, &'static str, &'static str),
}

const fn ratio(work: &'static str, of: Figure, at_most: f64, against: Figure) -> Goal {
    Goal {
        work,
        at_most,
        of,
        against: Against::Row(against),
        why: "",
    }
}

const fn best(work: &'static str, of: Figure, at_most: f64, named: &'static str) -> Goal {
    Goal {
        work,
        at_most,
        of,
        against: Against::Best(of.0, of.1, named),
        why: "",
    }
}

const fn plain(work: &'static str, of: Figure, at_most: f64) -> Goal {
    Goal {
        work,
        at_most,
        of,
        against: Against::Itself,
        why: "",
    }
}

const HANDLE: &str = "handle";
const FEW: &str = "1,000 keys, uniform";
const ZIPF: &str = "1,000,000 keys, Zipf";
const PLAIN: &str = "floor: unsynchronised map, borrow";
const WITH: &str = "with (borrow)";
const WITH_TWO: &str = "with (borrow), two threads";

const TOKEN: &str = "a token";
const BY_HANDLE: &str = "keyfob, TokenHandle::get (borrow)";
const BY_HANDLE_TICKED: &str = "keyfob, TokenHandle::get (borrow), ticked clock";
const BY_KEY: &str = "keyfob, Broker::with_token, by key (borrow)";
const OURS: &str = "keyfob, Broker::token";
const SERVED: &str = "processor time of the server a token, 16 connections";
const CALM_KEY: &str = "a hit by key, p99, while …";

const GOALS: &[Goal] = &[
    ratio(
        "a handle hit against two words compared, the clock read in both",
        ("hit", HANDLE, "get"),
        2.0,
        ("hit", HANDLE, "floor: both"),
    ),
    ratio(
        "a handle hit, two threads on one key against one thread",
        ("hit", HANDLE, "get, two threads, one key"),
        1.3,
        ("hit", HANDLE, "get"),
    ),
    ratio(
        "a hit by key among 1,000, against an unsynchronised map",
        ("hit", FEW, WITH),
        3.0,
        ("hit", FEW, PLAIN),
    ),
    ratio(
        "a hit by key among a million after Zipf, against an unsynchronised map",
        ("hit", ZIPF, WITH),
        2.0,
        ("hit", ZIPF, PLAIN),
    )
    .because("five lines of memory missed where the map misses two: [how a hit works](performance.md#how-a-hit-works)"),
    ratio(
        "a hit by key, two threads against one",
        ("hit", FEW, WITH_TWO),
        1.3,
        ("hit", FEW, WITH),
    ),
    best(
        "by handle, against the fastest token library (a fifteenth)",
        ("peers", TOKEN, BY_HANDLE),
        1.0 / 15.0,
        "",
    )
    .because("two thirds are the kernel's coarse clock, [measured alone](#hit); the row below has another clock"),
    best(
        "the same with a ticked clock, which is not the default (a fifteenth)",
        ("peers", TOKEN, BY_HANDLE_TICKED),
        1.0 / 15.0,
        "",
    ),
    best(
        "by handle, against the fastest token library in Rust (a thirtieth)",
        ("peers", TOKEN, BY_HANDLE),
        1.0 / 30.0,
        "-",
    )
    .because("the same clock"),
    best(
        "by key, against the fastest token library (a third)",
        ("peers", TOKEN, BY_KEY),
        1.0 / 3.0,
        "",
    )
    .because("Go's token source has no key, no caller and no policy; the clock, one hash and one exchange are [most of it](performance.md#how-a-hit-works)"),
    plain(
        "issuer calls for 10,000 callers, cold",
        ("stampede", "10,000 callers, cold: issuer calls", OURS),
        1.0,
    ),
    plain(
        "issuer calls for 1,000 callers, the issuer failing",
        (
            "stampede",
            "1,000 callers, failing issuer: issuer calls",
            OURS,
        ),
        1.0,
    ),
    ratio(
        "the last of them, against the issuer's own time",
        (
            "stampede",
            "1,000 callers, failing issuer: until the last is answered",
            OURS,
        ),
        2.0,
        (
            "stampede",
            "1,000 callers, failing issuer: until the last is answered",
            "floor: the issuer's own time, one caller",
        ),
    ),
    plain(
        "one refresh, outside network and TLS, sandbox included",
        (
            "refresh",
            "refresh, no network",
            "a whole refresh, never rotates",
        ),
        100_000.0,
    )
    .because("[where the instructions go](performance.md#what-a-refresh-takes)"),
    plain(
        "memory beyond key and token, a million keys",
        (
            "memory",
            "1000000 keys, bytes in use beyond key and token",
            "ours, and its renewal filed",
        ),
        300.0,
    )
    .because("[what a key takes](performance.md#what-a-key-takes-in-memory)"),
    ratio(
        "processor time of a request, TCP, against nginx",
        ("front", SERVED, "keyfob, TCP"),
        1.1,
        ("front", SERVED, "nginx, a constant, TCP"),
    )
    .because("[hyper alone](#front) takes what the goal leaves, or more; the caller's hash, JSON and the answer come on top: [what a request takes](performance.md#what-a-request-over-a-socket-takes)"),
    ratio(
        "processor time of a request, Unix socket, against nginx",
        ("front", SERVED, "keyfob, Unix socket"),
        1.1,
        ("front", SERVED, "nginx, a constant, Unix socket"),
    )
    .because("the same, with less of the kernel's share to divide it by"),
    ratio(
        "a token of a batch of 32, against one alone, TCP",
        ("front", SERVED, "keyfob, 32 in one call, TCP"),
        0.2,
        ("front", SERVED, "keyfob, TCP"),
    ),
    ratio(
        "a token of a batch of 32, against one alone, Unix socket",
        ("front", SERVED, "keyfob, 32 in one call, Unix socket"),
        0.2,
        ("front", SERVED, "keyfob, Unix socket"),
    )
    .because("without TCP there is less framing for a batch to save"),
    ratio(
        "p99 by key while a plugin is swapped, against steady",
        ("calm", CALM_KEY, "the plugin is swapped"),
        2.0,
        ("calm", CALM_KEY, "nothing happens"),
    ),
    ratio(
        "p99 by key while 10,000 tokens are replaced, against steady",
        ("calm", CALM_KEY, "10,000 tokens are replaced"),
        2.0,
        ("calm", CALM_KEY, "nothing happens"),
    ),
    ratio(
        "p99 by key while 5,000 users are revoked, against steady",
        ("calm", CALM_KEY, "5,000 users are revoked"),
        2.0,
        ("calm", CALM_KEY, "nothing happens"),
    ),
];

/// The goals as a table; the rows of suites that did not run stay as they were, if there were any.
///
/// # Errors
///
/// When a suite ran and lacks a row that a goal names: a goal that is not judged must not look like none.
pub fn table(records: &[Record], before: &Before) -> Result<String> {
    let mut text = String::from(
        "## Goals\n\n| work | goal | measured | | |\n| --- | --- | --- | --- | --- |\n",
    );
    for goal in GOALS {
        if !records.iter().any(|record| record.suite == goal.of.0) {
            if let Some(row) = before.goal(goal.work) {
                writeln!(text, "{row}")?;
            }
            continue;
        }
        let (value, unit) = goal.measured(records)?;
        let (met, why) = if value <= goal.at_most {
            ("met", "")
        } else {
            ("**missed**", goal.why)
        };
        writeln!(
            text,
            "| {} | ≤ {} {unit} | {} {unit} | {met} | {why} |",
            goal.work,
            short(goal.at_most),
            short(value),
        )?;
    }
    Ok(text)
}

// === impl Goal ===

impl Goal {
    /// The same, with what to say where it is missed.
    const fn because(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    fn measured(&self, records: &[Record]) -> Result<(f64, String)> {
        let of = row(records, self.of)?;
        let base = match self.against {
            Against::Itself => return Ok((of.value, of.unit.clone())),
            Against::Row(figure) => row(records, figure)?,
            Against::Best(suite, group, named) => {
                let others = rows(records, suite).filter(|row| {
                    row.group == group
                        && !row.name.starts_with("keyfob")
                        && row.name.contains(named)
                });
                let best = others.min_by(|one, other| one.value.total_cmp(&other.value));
                best.with_context(|| format!("nobody beside us in {suite}, {group}"))?
            }
        };
        ensure!(
            base.unit == of.unit,
            "{}: {} against {}",
            self.work,
            of.unit,
            base.unit
        );
        Ok((of.value / base.value, "×".to_owned()))
    }
}

fn rows<'r>(records: &'r [Record], suite: &'r str) -> impl Iterator<Item = &'r Row> {
    let of = move |record: &&Record| record.suite == suite;
    records.iter().filter(of).flat_map(|record| &record.rows)
}

fn row(records: &[Record], (suite, group, name): Figure) -> Result<&Row> {
    let mut rows = rows(records, suite);
    let row = rows.find(|row| row.group == group && row.name == name);
    row.with_context(|| format!("the suite {suite} has no row {name:?} in {group:?}"))
}
