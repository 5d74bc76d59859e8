//! Builds the plugins that ship inside the binary: cargo for `wasm32-unknown-unknown`, then `wit-component`.
//!
//! The nested cargo has a target directory of its own (the outer one is locked) and an environment cleaned of the
//! outer build's flags and wrappers. What it writes is `builtin.rs`, included by `src/wasm/builtin.rs`.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use wit_component::{ComponentEncoder, DecodedWasm};

/// What follows `builtin:` in a configuration, and the package it is built from.
const PLUGINS: [(&str, &str); 3] = [
    ("oauth2", "keyfob-oauth2"),
    ("github-app", "keyfob-github-app"),
    ("allowlist", "keyfob-policy-allowlist"),
];

const TARGET: &str = "wasm32-unknown-unknown";

/// The profile of the workspace manifest: small, no unwinding tables.
const PROFILE: &str = "guest";

/// The linker's own choice is 1 MiB. Of a memory this small all is put back to its beginning by writing over it; of a larger one
/// pages are given back to the system and taken again, in every step (`benches/guest.rs`: nothing kept resident). A plugin
/// that needed more would be stopped, for the stack lies at the bottom of its memory.
const STACK_BYTES: u32 = 64 << 10;

/// Everything a plugin is made of, relative to the workspace.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "wit",
    "guest/sdk",
    "guest/oauth2",
    "guest/github-app",
    "guest/policy-allowlist",
];

/// Cargo settings that say how to reach crates; every other `CARGO*` variable belongs to the outer build.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Flags and wrappers that are meant for the outer target: sanitizers, coverage, `clippy-driver`.
const DROPPED: [&str; 4] = [
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_BUILTIN_PLUGINS").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let host = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = host
        .parent()
        .context("the host crate lies inside the workspace")?;
    for source in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }

    ensure_target()?;
    let modules = build(workspace, &plugin_target_dir(&out))?;
    let mut table = String::from("static BUILTINS: &[(&str, &[u8])] = &[\n");
    for (name, package) in PLUGINS {
        let module = modules
            .join(package.replace('-', "_"))
            .with_extension("wasm");
        let component = fs::read(&module)
            .with_context(|| format!("reading {}", module.display()))
            .and_then(|module| componentize(&module))
            .with_context(|| format!("making a component of {package}"))?;
        let file = format!("{name}.wasm");
        fs::write(out.join(&file), component)?;
        writeln!(
            table,
            "    ({name:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))),"
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("builtin.rs"), table)?;
    Ok(())
}

/// Adds the target where rustup can; otherwise says which command does.
fn ensure_target() -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .with_context(|| format!("running {}", rustc.display()))?;
    let libraries =
        String::from_utf8(output.stdout).context("the path of the target's libraries")?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).stdout(Stdio::null());
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        rustup.arg("--toolchain").arg(toolchain);
    }
    if rustup.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "the Rust target {TARGET} is not installed and rustup could not add it.\n\
         Run: rustup target add {TARGET}\n\
         Without rustup, install that target's standard library from where your compiler came, or build without the \
         feature `builtin-plugins`."
    )
}

/// One directory for all profiles and features of the outer build, since the plugins are the same in each: beside
/// `debug` and `release`, where `OUT_DIR` lies as deep as it always has; inside it otherwise.
fn plugin_target_dir(out: &Path) -> PathBuf {
    // <target>/<profile>/build/<package>-<hash>/out
    let mut above = out.ancestors().skip(2);
    let shared = match (above.next(), above.nth(1)) {
        (Some(build), Some(target)) if build.ends_with("build") => target,
        _ => out,
    };
    shared.join("keyfob-plugins")
}

/// Builds every plugin's core module and returns the directory they are in.
fn build(workspace: &Path, target_dir: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        if is_outer(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .arg("build")
        .arg("--locked")
        .args(["--profile", PROFILE, "--target", TARGET])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        // A `build-dir` in somebody's configuration would be the outer build's, and that one is locked.
        .env("CARGO_BUILD_BUILD_DIR", target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace))
        .current_dir(workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (_, package) in PLUGINS {
        cargo.args(["--package", package]);
    }
    let status = cargo
        .status()
        .context("running cargo for the built-in plugins")?;
    ensure!(
        status.success(),
        "cargo could not build the built-in plugins: {status}"
    );
    Ok(target_dir.join(TARGET).join(PROFILE))
}

fn is_outer(name: &str) -> bool {
    let cargos = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
    cargos || DROPPED.contains(&name)
}

/// Keeps the building machine's paths out of panic messages, and a plugin's digest independent of where it was built; and the
/// stack small.
fn flags(workspace: &Path) -> OsString {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = OsString::from("--remap-path-prefix=");
    flags.push(workspace);
    flags.push("=/keyfob");
    if let Some(home) = home {
        // 0x1f separates the flags of CARGO_ENCODED_RUSTFLAGS.
        flags.push("\x1f--remap-path-prefix=");
        flags.push(home);
        flags.push("=/cargo");
    }
    flags.push("\x1f-Clink-arg=-zstack-size=");
    flags.push(STACK_BYTES.to_string());
    flags
}

/// Makes a component and refuses one that imports anything.
fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&component)? else {
        bail!("the encoder made a WIT package instead of a component");
    };
    let imports = &resolve.worlds[world].imports;
    let names: Vec<_> = imports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    ensure!(
        names.is_empty(),
        "a plugin imports nothing, but this one imports {}",
        names.join(", ")
    );
    Ok(component)
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo sets {name} for build scripts"))
}
