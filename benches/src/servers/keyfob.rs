//! The daemon as it is released, in front of an issuer of this process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Address, Server, command, folder};
use crate::load::Line;
use crate::load::http::{self, Call};
use crate::record;

/// The key of the one caller.
pub const CALLER_KEY: &str = "the-caller-of-the-suites-0123456789abcdef";
/// The key of the one operator.
const ADMIN_KEY: &str = "the-operator-of-the-suites-0123456789abcd";
/// Names a ready-made daemon, as for the tests.
const BINARY_VARIABLE: &str = "KEYFOB_BIN";

/// How a daemon is set up.
#[derive(Clone, Debug)]
pub struct Setup<'s> {
    /// Listens on a Unix socket, or else on loopback.
    pub unix: bool,
    /// The issuer's token endpoint.
    pub token_url: &'s str,
    /// The client and its secret.
    pub client: (&'s str, &'s str),
    /// What is known of its grants: `never`, `single_use`.
    pub rotation: &'s str,
}

/// A running daemon.
#[derive(Debug)]
pub struct Keyfob {
    /// Its process.
    pub server: Server,
    /// Where callers come.
    pub address: Address,
    admin: SocketAddr,
}

// === impl Keyfob ===

impl Keyfob {
    /// Starts one; its only provider is `acme`.
    ///
    /// # Errors
    ///
    /// When it was not built, or does not start.
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let folder = folder()?;
        let socket = folder.path().join("keyfob");
        let (tcp, admin) = (Address::free()?, Address::free()?);
        let (address, listen) = match setup.unix {
            true => {
                let listen = format!("unix:{}", socket.display());
                (Address::Unix(socket), listen)
            }
            false => (Address::Tcp(tcp), tcp.to_string()),
        };
        let (token_url, rotation) = (setup.token_url, setup.rotation);
        let (client, secret) = setup.client;
        let configuration = format!(
            r#"[server]
listen = "{listen}"
admin_listen = "{admin}"
admin_key = {{ value = "{ADMIN_KEY}" }}

[providers.acme]
plugin = "builtin:oauth2"
allow = ["{token_url}"]
insecure_http = true
settings = {{ token_url = "{token_url}", client_id = "{client}", grant = "refresh_token" }}
secrets = {{ client_secret = {{ value = "{secret}" }} }}
refresh = {{ rotation = "{rotation}" }}
scopes = ["read"]

[callers.service]
key = {{ value = "{CALLER_KEY}" }}
allow = [{{ provider = "acme", subjects = ["*"], scopes = ["*"] }}]
"#
        );
        let file = folder.path().join("keyfob.toml");
        fs::write(&file, configuration).context("its configuration")?;
        let mut command = command(&binary()?, None);
        command.args(["serve", "--config"]).arg(&file);
        let server = Server::start("keyfob", "TERM", folder, command, |_| {
            address.answers() && Address::Tcp(admin).answers()
        })?;
        Ok(Self {
            server,
            address,
            admin,
        })
    }

    /// Hands grants over, by subject.
    ///
    /// # Errors
    ///
    /// When one is refused.
    pub async fn import(&self, grants: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        let mut line = Line::connect(&Address::Tcp(self.admin)).await?;
        for (subject, grant) in grants {
            let body = json!({ "refresh_token": grant }).to_string();
            let call = Call {
                method: "PUT",
                path: &format!("/admin/v1/credentials/acme/{subject}"),
                authorization: Some(&format!("Bearer {ADMIN_KEY}")),
                content_type: "application/json",
                body: &body,
            };
            let (status, said) = http::answer(&mut line, &call).await?;
            let said = String::from_utf8_lossy(&said);
            ensure!(
                matches!(status, 200 | 204),
                "the grant of {subject}: {status} {said}"
            );
        }
        Ok(())
    }
}

/// How a caller asks for somebody's token.
pub fn question(path: &str, body: &str) -> Vec<u8> {
    let call = Call {
        method: "POST",
        path,
        authorization: Some(&format!("Bearer {CALLER_KEY}")),
        content_type: "application/json",
        body,
    };
    call.bytes()
}

/// The daemon's program: the one that `KEYFOB_BIN` names, or the released one of this build directory.
fn binary() -> Result<PathBuf> {
    let path = std::env::var_os(BINARY_VARIABLE)
        .map_or_else(|| record::target().join("release/keyfob"), PathBuf::from);
    ensure!(
        path.is_file(),
        "{} is missing: cargo build --release --workspace --bin keyfob",
        path.display()
    );
    fs::canonicalize(&path).with_context(|| path.display().to_string())
}
