//! Where the binary under test comes from.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::process::run;

/// Names a ready-made binary; without it one is built.
const BINARY_VARIABLE: &str = "KEYFOB_BIN";

/// Runs `keyfob` to its end with these arguments: whether it succeeded, and what it printed.
///
/// # Errors
///
/// When it cannot be built or does not end.
pub async fn keyfob(arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let (status, output) = run(binary().await?, arguments).await?;
    Ok((status.success(), output))
}

/// The binary under test: the one that `KEYFOB_BIN` names, or one built now, once per process.
///
/// # Errors
///
/// When it cannot be built.
pub async fn binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    let binary = BINARY.get_or_try_init(|| async {
        match std::env::var_os(BINARY_VARIABLE) {
            Some(path) => Ok(std::fs::canonicalize(&path)
                .with_context(|| format!("{BINARY_VARIABLE} is {}", Path::new(&path).display()))?),
            None => build().await,
        }
    });
    binary.await.map(PathBuf::as_path)
}

async fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    // The whole workspace, so that features are those of `cargo test --workspace` and nothing is compiled twice.
    command.args([
        "build",
        "--workspace",
        "--bin",
        "keyfob",
        "--manifest-path",
        manifest,
    ]);
    command.arg("--message-format=json-render-diagnostics");
    let built = command
        .kill_on_drop(true)
        .output()
        .await
        .context("running cargo")?;
    ensure!(
        built.status.success(),
        "building keyfob:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.context("cargo built keyfob and named no executable")
}
