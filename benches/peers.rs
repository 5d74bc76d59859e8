//! A token that is in memory, got again: by us, by the token libraries that a team would use instead, and by caches with a
//! check of the end. Everybody looks whether the token is still good, and is asked as its documentation has it.
//!
//! Futures are awaited inside one `block_on` around each whole batch; all of them are ready at once. Beside another thread
//! they are polled once by hand, for the same reason. Libraries have one token, ours and the caches find it by key. Trust the
//! ratios within one run.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use keyfob::model::policy::TokenRequest;
use keyfob_benches::asked::Asked;
use keyfob_benches::draw::Draw;
use keyfob_benches::issuer::Issuer;
use keyfob_benches::pair;
use keyfob_benches::peers;
use keyfob_benches::peers::go::Go;
use keyfob_benches::record::Record;

use caches::Caches;
use libraries::{HEADER, Libraries, TOKEN, TWO};

#[path = "peers/caches.rs"]
mod caches;
#[path = "peers/libraries.rs"]
mod libraries;

const ONE_KEY: &str = "caches, one key";
const KEYS: &str = "caches, 1,000 keys";
const ONE_KEY_TWO: &str = "caches, one key, two threads";
/// All in the first cache.
const FEW: usize = 1_000;
/// How many questions are laid out.
const QUESTIONS: usize = 1 << 16;

/// How rows are measured: on one thread, or beside another that does the same.
trait Rows {
    fn row<T>(&mut self, name: &str, get: impl Fn(&TokenRequest) -> T + Sync);
}

struct Alone<'a>(BenchmarkGroup<'a, WallTime>, Asked);

struct Beside<'a>(BenchmarkGroup<'a, WallTime>, Asked);

// === impl Alone ===

impl Rows for Alone<'_> {
    fn row<T>(&mut self, name: &str, get: impl Fn(&TokenRequest) -> T + Sync) {
        let Self(group, asked) = self;
        group.bench_function(name, |b| b.iter(|| get(black_box(asked.next()))));
    }
}

// === impl Beside ===

impl Rows for Beside<'_> {
    fn row<T>(&mut self, name: &str, get: impl Fn(&TokenRequest) -> T + Sync) {
        let Self(group, asked) = self;
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let (mut one, mut other) = (asked.clone(), asked.elsewhere());
                let get = &get;
                pair::alike(
                    iterations,
                    move || drop(black_box(get(black_box(one.next())))),
                    move || drop(black_box(get(black_box(other.next())))),
                )
            });
        });
    }
}

fn main() -> Result<()> {
    let mut record = Record::new("peers");
    let go = Go::build()?;
    let issuer = Issuer::start(Duration::ZERO)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let libraries = runtime.block_on(Libraries::new(&issuer))?;
    runtime.block_on(libraries.check())?;
    let calls = issuer.calls();
    libraries.tokens(&mut c, &runtime);
    libraries.headers(&mut c, &runtime);
    libraries.two_threads(&mut c, &runtime);
    runtime.block_on(libraries.check())?;
    ensure!(issuer.calls() == calls, "a token was not got from memory");

    let one = Caches::new(1);
    let same = Asked::new(&[0; 16]);
    one.rows(&mut Alone(c.benchmark_group(ONE_KEY), same.clone()));
    one.rows(&mut Beside(c.benchmark_group(ONE_KEY_TWO), same));
    let uniform = Draw::new(1).uniform(FEW, QUESTIONS);
    let asked = Asked::new(&uniform);
    Caches::new(FEW).rows(&mut Alone(c.benchmark_group(KEYS), asked));
    c.final_summary();

    let goes = go.benchmarks(&issuer)?;
    record.versions = peers::versions();
    record.versions.push(go.version.clone());
    for (group, name, threads, row) in [
        (TOKEN, "Token", 1, "Go x/oauth2, Token"),
        (HEADER, "Header", 1, "Go x/oauth2, Token and SetAuthHeader"),
        (TWO, "Shared", 2, "Go x/oauth2, Token"),
    ] {
        record.criterion(&[group])?;
        let found = goes
            .iter()
            .find(|found| found.name == name && found.threads == threads);
        // Go counts what all threads did together.
        let nanos = found.context(row)?.nanos * f64::from(threads);
        record.row(group, row, nanos, "ns", "in a process of its own");
    }
    record.criterion(&[ONE_KEY, KEYS, ONE_KEY_TWO])?;
    record.save()?;
    Ok(())
}
