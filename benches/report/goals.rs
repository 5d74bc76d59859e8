//! What was to be reached, and what was.

use std::fmt::Write as _;

use keyfob_benches::record::Record;

use super::table::short;

/// A figure of a suite: suite, group, row.
type Figure = (&'static str, &'static str, &'static str);

/// Something to be reached.
struct Goal {
    work: &'static str,
    /// The most that `of` may be, in units of `against` where that is given.
    at_most: f64,
    of: Figure,
    against: Option<Figure>,
}

const fn ratio(work: &'static str, of: Figure, at_most: f64, against: Figure) -> Goal {
    Goal {
        work,
        at_most,
        of,
        against: Some(against),
    }
}

const fn plain(work: &'static str, of: Figure, at_most: f64) -> Goal {
    Goal {
        work,
        at_most,
        of,
        against: None,
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
    ),
    ratio(
        "a hit by key, two threads against one",
        ("hit", FEW, WITH_TWO),
        1.3,
        ("hit", FEW, WITH),
    ),
    ratio(
        "by handle, against the fastest token library",
        ("peers", TOKEN, BY_HANDLE),
        1.0 / 15.0,
        ("peers", TOKEN, "Go x/oauth2, Token"),
    ),
    ratio(
        "by handle, against the fastest token library in Rust",
        ("peers", TOKEN, BY_HANDLE),
        1.0 / 30.0,
        ("peers", TOKEN, "google-cloud-auth, access_token"),
    ),
    ratio(
        "by key, against the fastest token library",
        ("peers", TOKEN, BY_KEY),
        1.0 / 3.0,
        ("peers", TOKEN, "Go x/oauth2, Token"),
    ),
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
    plain(
        "one refresh, outside network and TLS, sandbox included",
        (
            "refresh",
            "refresh, no network",
            "a whole refresh, never rotates",
        ),
        100_000.0,
    ),
    plain(
        "memory beyond key and token, a million keys",
        (
            "memory",
            "1000000 keys, bytes in use beyond key and token",
            "keyfob",
        ),
        300.0,
    ),
    ratio(
        "processor time of a request, TCP, against nginx",
        ("front", SERVED, "keyfob, TCP"),
        1.1,
        ("front", SERVED, "nginx, a constant, TCP"),
    ),
    ratio(
        "processor time of a request, Unix socket, against nginx",
        ("front", SERVED, "keyfob, Unix"),
        1.1,
        ("front", SERVED, "nginx, a constant, Unix"),
    ),
    ratio(
        "a token of a batch of 32, against one alone, TCP",
        ("front", SERVED, "keyfob, 32 at once, TCP"),
        0.2,
        ("front", SERVED, "keyfob, TCP"),
    ),
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

/// The goals as a table; those whose suites did not run are left out.
pub fn table(records: &[Record]) -> String {
    let mut text =
        String::from("## Goals\n\n| work | goal | measured | |\n| --- | --- | --- | --- |\n");
    for goal in GOALS {
        let Some((value, unit)) = goal.measured(records) else {
            continue;
        };
        let met = if value <= goal.at_most {
            "met"
        } else {
            "**missed**"
        };
        let _ = writeln!(
            text,
            "| {} | ≤ {} {unit} | {} {unit} | {met} |",
            goal.work,
            short(goal.at_most),
            short(value),
        );
    }
    text
}

// === impl Goal ===

impl Goal {
    fn measured(&self, records: &[Record]) -> Option<(f64, String)> {
        let (value, unit) = figure(records, self.of)?;
        match self.against {
            None => Some((value, unit)),
            Some(against) => {
                let (base, base_unit) = figure(records, against)?;
                (base_unit == unit).then(|| (value / base, "×".to_owned()))
            }
        }
    }
}

fn figure(records: &[Record], (suite, group, name): Figure) -> Option<(f64, String)> {
    let record = records.iter().find(|record| record.suite == suite)?;
    let mut rows = record.rows.iter();
    let row = rows.find(|row| row.group == group && row.name == name)?;
    Some((row.value, row.unit.clone()))
}
