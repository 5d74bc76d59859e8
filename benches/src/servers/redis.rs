//! Redis as it comes, without persistence: nothing it does is slower for a disk.

use std::net::SocketAddr;

use anyhow::Result;

use super::{Address, Server, command, folder, program, version};

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    /// Its process.
    pub server: Server,
    /// Where it listens on loopback.
    pub tcp: SocketAddr,
    /// Where it listens besides.
    pub unix: Address,
    /// As it prints it.
    pub version: String,
}

// === impl Redis ===

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When it is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let program = program("redis-server", "redis-server", &[])?;
        let version = version(&program, "--version")?;
        let folder = folder()?;
        let tcp = Address::free()?;
        let socket = folder.path().join("redis");
        let mut command = command(&program, None);
        command
            .args(["--bind", "127.0.0.1", "--port", &tcp.port().to_string()])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(folder.path())
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        let server = Server::start("redis-server", "TERM", folder, command, |_| {
            Address::Tcp(tcp).answers()
        })?;
        Ok(Self {
            server,
            tcp,
            unix: Address::Unix(socket),
            version,
        })
    }
}
