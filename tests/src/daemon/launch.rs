//! How a daemon is started: its configuration file, its environment, the sockets of its two planes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::bail;
use http::HeaderMap;
use keyfob::testing::Canary;

use super::shell::{BUILD, Shell};
use super::{KeyfobDaemon, Plane, binary};
use crate::leak::LeakCheck;
use crate::oidc::random_secret;
use crate::pki::{Pki, write};
use crate::process::Process;

/// How often other ports are tried when somebody took one between our look and the daemon's.
const PORT_ATTEMPTS: usize = 5;
/// The variable in which the admin key is handed over.
const ADMIN_KEY_VARIABLE: &str = "KEYFOB_ADMIN_KEY";

/// What a daemon is started with. `[server]` is written by the kit; everything else is the test's.
#[derive(Debug)]
pub struct Launch {
    config: String,
    secrets: BTreeMap<String, String>,
    log: String,
    door: Door,
    canary: Canary,
    wrapper: &'static [&'static str],
}

/// How the planes are reached.
#[derive(Debug)]
enum Door {
    Tcp,
    Tls(Box<Pki>),
    Unix,
}

// === impl Launch ===

impl Launch {
    /// With everything after `[server]`.
    pub fn new(config: impl Into<String>) -> Self {
        Self {
            config: config.into(),
            secrets: BTreeMap::new(),
            log: "trace".to_owned(),
            door: Door::Tcp,
            canary: Canary::new(),
            wrapper: &[],
        }
    }

    /// Hands a secret over in an environment variable.
    pub fn secret(mut self, variable: &str, value: &str) -> Self {
        self.secrets.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// Logs as this `KEYFOB_LOG` says instead of everything.
    pub fn log(mut self, filter: &str) -> Self {
        self.log = filter.to_owned();
        self
    }

    /// Starts it through another program, which becomes it: for limits and rights that are inherited.
    pub fn through(mut self, wrapper: &'static [&'static str]) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// Knows these secrets too, those added later included.
    pub fn canary(mut self, canary: &Canary) -> Self {
        self.canary = canary.clone();
        self
    }

    /// Speaks TLS on both planes.
    pub fn tls(mut self, pki: &Pki) -> Self {
        self.door = Door::Tls(Box::new(pki.clone()));
        self
    }

    /// Listens on Unix sockets.
    pub fn unix(mut self) -> Self {
        self.door = Door::Unix;
        self
    }

    /// Starts it and waits for nothing: for a test that ends it before it is up. Over Unix sockets, where nobody else can
    /// take the address.
    ///
    /// # Errors
    ///
    /// When it cannot be built or started.
    pub async fn spawn(self) -> anyhow::Result<KeyfobDaemon> {
        let (binary, admin_key) = (binary().await?, random_secret()?);
        let this = self.unix();
        for secret in this.secrets.values().chain([&admin_key]) {
            this.canary.add(secret);
        }
        this.begin(binary, &admin_key)
    }

    /// Starts it and waits for `/healthz`.
    ///
    /// # Errors
    ///
    /// When it cannot be built or ends instead; the error holds its output.
    pub async fn start(self) -> anyhow::Result<KeyfobDaemon> {
        let binary = binary().await?;
        let admin_key = random_secret()?;
        for secret in self.secrets.values().chain([&admin_key]) {
            self.canary.add(secret);
        }
        let mut failed = String::new();
        for _ in 0..PORT_ATTEMPTS {
            match self.attempt(binary, &admin_key).await? {
                Attempt::Ready(daemon) => return Ok(*daemon),
                Attempt::PortTaken(output) => failed = output,
            }
        }
        bail!("no free port in {PORT_ATTEMPTS} attempts; the last said:\n{failed}")
    }

    async fn attempt(&self, binary: &Path, admin_key: &str) -> anyhow::Result<Attempt> {
        self.begin(binary, admin_key)?.settle().await
    }

    fn begin(&self, binary: &Path, admin_key: &str) -> anyhow::Result<KeyfobDaemon> {
        let dir = tempfile::tempdir()?;
        let (listen, base) = self.door.addresses(dir.path())?;
        let mut server = String::from("[server]\n");
        writeln!(
            server,
            "listen = {:?}\nadmin_listen = {:?}",
            listen[0], listen[1]
        )?;
        writeln!(server, "admin_key = {{ env = {ADMIN_KEY_VARIABLE:?} }}")?;
        if let Door::Tls(pki) = &self.door {
            let (cert, key) = (pki.server_cert.display(), pki.server_key.display());
            writeln!(
                server,
                "tls = {{ cert = \"{cert}\", key = {{ file = \"{key}\" }} }}"
            )?;
        }
        let config = write(
            dir.path(),
            "keyfob.toml",
            &format!("{server}\n{}", self.config),
        )?;
        let [data, admin] = base;
        let mut environment = self.secrets.clone();
        environment.extend([
            ("KEYFOB_CONFIG".to_owned(), config.display().to_string()),
            ("KEYFOB_LOG".to_owned(), self.log.clone()),
            ("KEYFOB_ADMIN".to_owned(), admin.clone()),
            (ADMIN_KEY_VARIABLE.to_owned(), admin_key.to_owned()),
        ]);
        let shell = Shell {
            binary: binary.to_owned(),
            environment,
        };
        let serve = shell.through(self.wrapper, dir.path(), &["serve"]);
        let process = Process::start(serve, BUILD)?;
        let data = Plane {
            client: self.door.client(&listen[0])?.build()?,
            base: data,
        };
        let bearer = http::HeaderValue::try_from(format!("Bearer {admin_key}"))?;
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, bearer)]);
        let client = self
            .door
            .client(&listen[1])?
            .default_headers(headers)
            .build()?;
        let admin = Plane {
            client,
            base: admin,
        };
        let leaks = LeakCheck::new(self.canary.clone());
        Ok(KeyfobDaemon {
            process: Some(process),
            shell,
            dir,
            data,
            admin,
            leaks,
        })
    }
}

/// What became of a start.
pub(super) enum Attempt {
    Ready(Box<KeyfobDaemon>),
    PortTaken(String),
}

// === impl Door ===

impl Door {
    /// For both planes: what the configuration says, and what a client says.
    fn addresses(&self, dir: &Path) -> anyhow::Result<([String; 2], [String; 2])> {
        if let Self::Unix = self {
            let listen =
                ["data", "admin"].map(|plane| format!("unix:{}", dir.join(plane).display()));
            return Ok((
                listen,
                ["data", "admin"].map(|plane| format!("http://{plane}")),
            ));
        }
        // Both are held until both are known, so that they differ.
        let held = [free_port()?, free_port()?];
        let mut listen = [String::new(), String::new()];
        for (listen, held) in listen.iter_mut().zip(&held) {
            *listen = held.local_addr()?.to_string();
        }
        let scheme = if let Self::Tls(_) = self {
            "https"
        } else {
            "http"
        };
        let base = listen
            .clone()
            .map(|address| format!("{scheme}://{address}"));
        Ok((listen, base))
    }

    fn client(&self, listen: &str) -> anyhow::Result<reqwest::ClientBuilder> {
        let plain = || reqwest::Client::builder().no_proxy();
        Ok(match self {
            Self::Tcp => plain(),
            Self::Tls(pki) => pki.trusting()?,
            Self::Unix => plain().unix_socket(PathBuf::from(listen.trim_start_matches("unix:"))),
        })
    }
}

fn free_port() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}
