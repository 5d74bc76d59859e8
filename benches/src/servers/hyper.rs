//! hyper answering every request with as many bytes: what our own HTTP library costs with nothing behind it.

use std::path::Path;

use anyhow::Result;

use super::{Address, Server, command, folder};

/// A running `constant`, the program in `benches/front`.
#[derive(Debug)]
pub struct Constant {
    /// Its process.
    pub server: Server,
    /// HTTP/1.1.
    pub tcp: Address,
    /// HTTP/1.1.
    pub unix: Address,
}

// === impl Constant ===

impl Constant {
    /// Starts `program`, to answer with this many bytes.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(program: &Path, bytes: usize) -> Result<Self> {
        let folder = folder()?;
        let tcp = Address::free()?;
        let socket = folder.path().join("http");
        let mut command = command(program, None);
        command.arg(tcp.to_string()).arg(&socket);
        command.arg(bytes.to_string());
        let (tcp, unix) = (Address::Tcp(tcp), Address::Unix(socket));
        let server = Server::start("constant", "TERM", folder, command, |_| {
            tcp.answers() && unix.answers()
        })?;
        Ok(Self { server, tcp, unix })
    }
}
