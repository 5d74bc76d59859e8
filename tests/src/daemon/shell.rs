//! The binary as an operator at a shell beside the daemon runs it: in the folder of its configuration, with its environment.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::launch::Attempt;
use super::{KeyfobDaemon, PATIENCE};
use crate::process::Process;

/// What makes the binary available.
pub(super) const BUILD: &str = "cargo build --package keyfob";

/// Which binary, and what it finds in its environment.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) binary: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

// === impl Shell ===

impl Shell {
    pub(super) fn command(&self, dir: &Path, arguments: &[&str]) -> Command {
        self.through(&[], dir, arguments)
    }

    /// The same through a program that runs it.
    pub(super) fn through(&self, wrapper: &[&str], dir: &Path, arguments: &[&str]) -> Command {
        let words = wrapper.iter().map(OsStr::new);
        let mut words = words.chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(arguments).current_dir(dir);
        // Whoever runs the tests may have a Keyfob of their own.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KEYFOB_") {
                command.env_remove(name);
            }
        }
        command.envs(&self.environment);
        command
    }
}

// === impl Said ===

impl Said {
    /// What it printed, when it succeeded.
    ///
    /// # Errors
    ///
    /// When it failed.
    pub fn ok(self) -> anyhow::Result<String> {
        ensure!(self.code == 0, "{self:?}");
        Ok(self.out)
    }

    /// What it printed with `--json`, when it succeeded.
    ///
    /// # Errors
    ///
    /// When it failed, or printed something else.
    pub fn json(self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ok()?)?)
    }

    /// Its words, when it failed with this code.
    ///
    /// # Errors
    ///
    /// When it ended otherwise.
    pub fn failed(self, code: i32) -> anyhow::Result<String> {
        ensure!(self.code == code && !self.err.is_empty(), "{self:?}");
        Ok(self.err)
    }
}

// === impl KeyfobDaemon ===

impl KeyfobDaemon {
    /// Runs `keyfob` with these arguments as the operator with all roles.
    ///
    /// # Errors
    ///
    /// When it cannot be run, or does not end.
    pub async fn cli(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        self.cli_with(arguments, "").await
    }

    /// The same with something on standard input.
    ///
    /// # Errors
    ///
    /// As [`KeyfobDaemon::cli`].
    pub async fn cli_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let mut command = self.shell.command(self.dir.path(), arguments);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context(BUILD)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it closes it.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.with_context(|| format!("{arguments:?} does not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        let place = format!("what {arguments:?} printed");
        self.leaks.saw(place, format!("{}{}", said.out, said.err));
        Ok(said)
    }

    /// Ends it as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn cut_off(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.gone().await
    }

    /// Ends it in an orderly way, with its folder left as it is.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn pause(&mut self) -> anyhow::Result<()> {
        self.signal("TERM").await?;
        self.gone().await
    }

    async fn gone(&mut self) -> anyhow::Result<()> {
        let (_, output) = self.take()?.end().await?;
        self.leaks.saw("the log", output);
        Ok(())
    }

    /// Starts one that was ended again, in the same folder.
    ///
    /// # Errors
    ///
    /// When it ends instead; the error holds its output.
    pub async fn start_again(mut self) -> anyhow::Result<Self> {
        let command = self.shell.command(self.dir.path(), &["serve"]);
        self.process = Some(Process::start(command, BUILD)?);
        match self.settle().await? {
            Attempt::Ready(daemon) => Ok(*daemon),
            Attempt::PortTaken(output) => anyhow::bail!("its port was taken meanwhile:\n{output}"),
        }
    }
}
