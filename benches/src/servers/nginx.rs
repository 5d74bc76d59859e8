//! nginx answering every request with the same text: what an HTTP server costs that has nothing to look up.

use std::fs;

use anyhow::{Context, Result};

use super::{Address, Server, command, folder, program, version};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// Its process.
    pub server: Server,
    /// HTTP/1.1.
    pub tcp: Address,
    /// HTTP/1.1.
    pub unix: Address,
    /// HTTP/2 without TLS.
    pub h2c: Address,
    /// As it prints it.
    pub version: String,
}

// === impl Nginx ===

impl Nginx {
    /// Starts one with a single worker that answers `body`, and writes no log.
    ///
    /// # Errors
    ///
    /// When it is not installed, or does not start.
    pub fn start(body: &str) -> Result<Self> {
        let program = program("nginx", "nginx-light", &[])?;
        let version = version(&program, "-v")?;
        let folder = folder()?;
        let (tcp, h2c) = (Address::free()?, Address::free()?);
        let at = folder.path().display();
        let scratch: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {at}/{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;
worker_processes 1;
pid {at}/pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
{scratch}    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    default_type application/json;
    server {{
        listen {tcp};
        listen unix:{at}/http;
        listen {h2c} http2;
        location / {{ return 200 '{body}'; }}
    }}
}}
"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration).context("its configuration")?;
        let mut command = command(&program, None);
        command.args(["-e", "stderr", "-c"]).arg(&file);
        command.arg("-p").arg(folder.path());
        let unix = Address::Unix(folder.path().join("http"));
        let tcp = Address::Tcp(tcp);
        let server = Server::start("nginx", "TERM", folder, command, |_| tcp.answers())?;
        Ok(Self {
            server,
            tcp,
            unix,
            h2c: Address::Tcp(h2c),
            version,
        })
    }
}
