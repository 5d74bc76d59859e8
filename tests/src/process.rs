//! Real child processes of a test: started, watched for their ready line, stopped, and their whole output kept. What a
//! particular program needs is said in the module named after it.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a program may take to become ready or to stop. Generous: a debug build on a busy machine compiles its plugins
/// first, and a test that is going to pass never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// Shared with whoever kills it while others still talk to it. Held for a system call, never across `.await`.
    child: Mutex<Child>,
    output: watch::Sender<String>,
    readers: JoinSet<()>,
}

// === impl Process ===

impl Process {
    /// Starts a program with nothing on its standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be started; `install` is the command that makes it available.
    pub fn start(mut command: Command, install: &str) -> anyhow::Result<Self> {
        let name = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match started {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{name} is not installed; run: {install}")
            }
            started => started.with_context(|| format!("starting {name}"))?,
        };
        let output = watch::Sender::default();
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(keep(stdout, output.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(keep(stderr, output.clone()));
        }
        Ok(Self {
            name,
            child: Mutex::new(child),
            output,
            readers,
        })
    }

    /// Everything it wrote so far, lines of both streams as they came.
    pub fn output(&self) -> String {
        self.output.borrow().clone()
    }

    /// The rest of the first line that starts with `start`.
    ///
    /// # Errors
    ///
    /// When the child ends before it wrote one, or takes longer than [`PATIENCE`]; the error holds its output.
    pub async fn line(&mut self, start: &str) -> anyhow::Result<String> {
        let mut lines = self.output.subscribe();
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let written = async {
            tokio::select! {
                biased;
                _ = lines.wait_for(|text| rest_of_line(text, start).is_some()) => {}
                _ = child.wait() => while self.readers.join_next().await.is_some() {},
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, written).await.is_ok();
        let output = self.output();
        match rest_of_line(&output, start) {
            Some(rest) => Ok(rest.to_owned()),
            None if in_time => bail!("{} ended before it wrote `{start}`:\n{output}", self.name),
            None => bail!("{} runs and never wrote `{start}`:\n{output}", self.name),
        }
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        self.child()
            .try_wait()
            .with_context(|| format!("asking after {}", self.name))
    }

    /// Sends a signal by name: `TERM`, `HUP`.
    ///
    /// # Errors
    ///
    /// When the child is gone, or there is no `kill`.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.id()?;
        // The program, not the system call: that would be the only unsafe code of the kit, or a dependency.
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(id.to_string())
            .status();
        let sent = sent.await.context("running kill")?;
        if !sent.success() {
            bail!("{} could not be sent {signal}", self.name);
        }
        Ok(())
    }

    /// Its number.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        let id = self.child().id();
        id.with_context(|| format!("{} has ended", self.name))
    }

    /// Ends it at once, as `kill -9` does: in microseconds, which starting the program `kill` would take a thousand of.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn kill(&self) -> anyhow::Result<()> {
        let killed = self.child().start_kill();
        killed.with_context(|| format!("killing {}", self.name))
    }

    /// Waits until it ended and everything it wrote was read.
    ///
    /// # Errors
    ///
    /// When it takes longer than [`PATIENCE`]; the error holds its output.
    pub async fn end(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = async {
            let status = child.wait().await;
            while self.readers.join_next().await.is_some() {}
            status
        };
        let Ok(status) = tokio::time::timeout(PATIENCE, ended).await else {
            bail!("{} does not end:\n{}", self.name, self.output());
        };
        let status = status.with_context(|| format!("waiting for {}", self.name))?;
        Ok((status, self.output()))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a program to its end: how it ended, and everything it wrote.
///
/// # Errors
///
/// As [`Process::start`] and [`Process::end`].
pub async fn run(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<(ExitStatus, String)> {
    let mut command = Command::new(program.as_ref());
    command.args(arguments);
    Process::start(command, "look at PATH")
        .map(Process::end)?
        .await
}

async fn keep(stream: impl AsyncRead + Unpin, output: watch::Sender<String>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    // Bytes, not `lines()`: a child that writes something that is not UTF-8 must not hide what follows.
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        output.send_modify(|text| text.push_str(&String::from_utf8_lossy(&line)));
        line.clear();
    }
}

fn rest_of_line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let whole = text.rsplit_once('\n')?.0;
    whole.lines().find_map(|line| line.strip_prefix(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, "-").unwrap()
    }

    #[tokio::test]
    async fn the_ready_line_is_found_and_all_output_kept() {
        let mut child = shell("echo warming >&2; echo ready https://x:1; echo more");
        assert_eq!(child.line("ready ").await.unwrap(), "https://x:1");
        let (status, output) = child.end().await.unwrap();
        assert!(status.success());
        assert!(
            output.contains("warming") && output.contains("more"),
            "{output}"
        );
    }

    #[tokio::test]
    async fn a_child_that_dies_is_reported_with_its_words() {
        let mut child = shell("echo no such file >&2; exit 3");
        let error = child.line("ready ").await.unwrap_err().to_string();
        assert!(error.contains("before it wrote `ready `"), "{error}");
        let (status, output) = child.end().await.unwrap();
        assert_eq!(
            (status.code(), output.as_str()),
            (Some(3), "no such file\n")
        );
    }

    #[tokio::test]
    async fn a_missing_program_says_how_to_install_it() {
        let missing = Command::new("no-such-program-anywhere");
        let error = Process::start(missing, "apt-get install it").unwrap_err();
        assert!(
            error.to_string().ends_with("run: apt-get install it"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_kill_gives_the_child_no_last_word() {
        let mut child = shell("trap 'echo bye' TERM EXIT; echo ready; while :; do :; done");
        child.line("ready").await.unwrap();
        child.kill().unwrap();
        let (status, output) = child.end().await.unwrap();
        assert_eq!((status.code(), output.as_str()), (None, "ready\n"));
    }

    #[tokio::test]
    async fn a_signal_reaches_the_child() {
        let mut child =
            shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        child.line("ready").await.unwrap();
        child.signal("TERM").await.unwrap();
        let (status, output) = child.end().await.unwrap();
        assert_eq!((status.code(), output.as_str()), (Some(7), "ready\nbye\n"));
    }
}
