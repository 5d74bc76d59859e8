//! Go's `golang.org/x/oauth2`, in a process of its own: `benches/peers/oauth2_test.go`, built with what `benches/peers/go`
//! installs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::issuer::Issuer;
use crate::record;

/// How often each benchmark is run; the median counts.
const RUNS: usize = 5;

/// The built test program.
pub struct Go {
    program: PathBuf,
    /// As the toolchain prints it, and the library's package.
    pub version: String,
}

/// How one benchmark went.
pub struct Benchmark {
    /// Its name in the source, without `Benchmark`.
    pub name: String,
    /// On how many threads.
    pub threads: u32,
    /// Nanoseconds from one operation to the next, on all threads together.
    pub nanos: f64,
}

/// How a stampede went.
pub struct Stampede {
    /// Who got an answer.
    pub answered: u64,
    /// To whom it was an error.
    pub failed: u64,
    /// Until the last one was answered, or the limit.
    pub took: Duration,
}

// === impl Go ===

impl Go {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// When there is no Go: with the command that installs it.
    pub fn build() -> Result<Self> {
        let folder = std::path::absolute(record::target().join("go"))?;
        let go = folder.join("venv/bin/go");
        let library = folder.join("debian/usr/share/gocode");
        let there = go.exists() && library.join("src/golang.org/x/oauth2").exists();
        ensure!(
            there,
            "Go and its OAuth library are missing: run benches/peers/go"
        );
        let program = folder.join("peers.test");
        let mut build = Command::new(&go);
        build
            .args(["test", "-c", "-o"])
            .arg(&program)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"))
            .env("GO111MODULE", "off")
            .env("GOPATH", &library)
            .env("GOCACHE", folder.join("cache"))
            .env("GOTOOLCHAIN", "local");
        run(&mut build)?;
        let version = run(Command::new(&go).arg("version"))?;
        let packages = std::fs::read_dir(folder.join("packages"))?;
        let oauth2 = packages
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| name.contains("oauth2"))
            .unwrap_or_default();
        Ok(Self {
            program,
            version: format!("{}, {oauth2}", version.trim()),
        })
    }

    /// Runs the benchmarks, each on one thread and on two.
    ///
    /// # Errors
    ///
    /// When one fails.
    pub fn benchmarks(&self, issuer: &Issuer) -> Result<Vec<Benchmark>> {
        let runs = RUNS.to_string();
        let mut program = self.program(issuer);
        program.args(["-test.run", "^$", "-test.bench", ".", "-test.cpu", "1,2"]);
        program.args(["-test.benchtime", "300ms", "-test.count", &runs]);
        let printed = run(&mut program)?;
        let mut found: Vec<(String, u32, Vec<f64>)> = Vec::new();
        for line in printed.lines() {
            // BenchmarkToken-2   3049426   126.2 ns/op
            let mut words = line.split_ascii_whitespace();
            let Some(name) = words.next().and_then(|name| name.strip_prefix("Benchmark")) else {
                continue;
            };
            let (name, threads) = name.rsplit_once('-').unwrap_or((name, "1"));
            let nanos: f64 = words.nth(1).context("no figure")?.parse()?;
            let threads = threads.parse()?;
            match found
                .iter_mut()
                .find(|row| row.0 == name && row.1 == threads)
            {
                Some((.., all)) => all.push(nanos),
                None => found.push((name.to_owned(), threads, vec![nanos])),
            }
        }
        found
            .into_iter()
            .map(|(name, threads, mut all)| {
                ensure!(all.len() == RUNS, "{name} ran {} times", all.len());
                all.sort_by(f64::total_cmp);
                let nanos = all[RUNS / 2];
                Ok(Benchmark {
                    name,
                    threads,
                    nanos,
                })
            })
            .collect()
    }

    /// So many callers at once; after a first token and this wait, if one is given.
    ///
    /// # Errors
    ///
    /// When the program fails.
    pub fn stampede(
        &self,
        issuer: &Issuer,
        callers: usize,
        after: Duration,
        limit: Duration,
    ) -> Result<Stampede> {
        let mut program = self.program(issuer);
        program
            .args(["-test.run", "TestStampede"])
            .env("CALLERS", callers.to_string())
            .env("WAIT_MS", after.as_millis().to_string())
            .env("LIMIT_MS", limit.as_millis().to_string());
        let printed = run(&mut program)?;
        let figures = printed
            .lines()
            .find_map(|line| line.strip_prefix("stampede "))
            .context("no figures")?;
        let figures: Vec<u64> = figures
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [answered, failed, nanos] = figures[..] else {
            anyhow::bail!("three figures are expected: {figures:?}")
        };
        Ok(Stampede {
            answered,
            failed,
            took: Duration::from_nanos(nanos),
        })
    }

    fn program(&self, issuer: &Issuer) -> Command {
        let mut program = Command::new(&self.program);
        program.env("TOKEN_URL", issuer.token_url());
        program
    }
}

/// What it printed.
fn run(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(done.stdout)?)
}
