//! PostgreSQL as it comes: a fresh cluster, no setting changed but where it listens.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Address, Server, Unprivileged, command, folder, program, run, version};

/// Its superuser and its database.
pub const USER: &str = "postgres";

/// What it writes when it takes queries; connections it takes before.
const READY: &str = "ready to accept connections";

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    /// Its processes.
    pub server: Server,
    /// Where it listens on loopback.
    pub tcp: SocketAddr,
    /// Where it listens besides.
    pub unix: Address,
    /// As it prints it.
    pub version: String,
}

// === impl Postgres ===

impl Postgres {
    /// Makes a cluster and starts it; as an unprivileged user where we are root, for it refuses root.
    ///
    /// # Errors
    ///
    /// When it is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let further = installed();
        let initdb = fs::canonicalize(program("initdb", "postgresql", &further)?)?;
        // Of the same installation: a machine may have several.
        let program = initdb.with_file_name("postgres");
        let version = version(&program, "--version")?;
        let folder = folder()?;
        let user = Unprivileged::if_needed()?;
        if let Some(user) = user {
            user.own(folder.path())?;
        }
        let data = folder.path().join("data");
        let mut make = command(&initdb, user);
        make.current_dir(folder.path());
        make.args(["--auth", "trust", "--username", USER, "--encoding", "UTF8"]);
        make.args(["--no-sync", "--pgdata"]).arg(&data);
        run(make).context("making a cluster")?;
        let tcp = Address::free()?;
        let mut command = command(&program, user);
        command.current_dir(folder.path());
        command.arg("-D").arg(&data).arg("-k").arg(folder.path());
        command.args(["-h", "127.0.0.1", "-p", &tcp.port().to_string()]);
        let socket = folder.path().join(format!(".s.PGSQL.{}", tcp.port()));
        // SIGQUIT: at once, and nothing is kept; the cluster goes with its folder.
        let server = Server::start("postgres", "QUIT", folder, command, |server| {
            server.said().contains(READY)
        })?;
        Ok(Self {
            server,
            tcp,
            unix: Address::Unix(socket),
            version,
        })
    }
}

/// Where Debian keeps each line of it, the newest first.
fn installed() -> Vec<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = fs::read_dir(Path::new("/usr/lib/postgresql"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let line = entry.file_name().to_str()?.parse().ok()?;
            Some((line, entry.path().join("bin")))
        })
        .collect();
    folders.sort();
    folders
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .collect()
}
