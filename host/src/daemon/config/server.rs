//! `[server]`, `[log]`, `[audit]` and `[store]`: where the daemon listens, what it tells, what it keeps.

use std::ffi::OsStr;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::callers::KeyAt;
use super::walk::{Item, Section};
use crate::observe::audit;
use crate::settings::SecretSource;

/// Where the data plane listens when nothing is said.
pub const DEFAULT_LISTEN: SocketAddr = loopback(8470);
/// Where the admin plane listens when nothing is said.
pub const DEFAULT_ADMIN_LISTEN: SocketAddr = loopback(8471);

/// The `[server]` table.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Data plane.
    pub listen: Listen,
    /// Admin plane.
    pub admin_listen: Listen,
    /// One operator with every role.
    pub admin_key: Option<KeyAt>,
    /// For both planes, where they listen on TCP.
    pub tls: Option<ServerTls>,
    /// Where a swap by name finds its component.
    pub plugins_dir: Option<PathBuf>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How the planes speak TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// PEM file of the certificate chain.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: SecretSource,
    /// PEM file of authorities whose client certificates are trusted.
    pub client_ca: Option<PathBuf>,
    /// Where it is written.
    pub line: usize,
}

/// The `[log]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// Where spans go: the base URL of an OTLP collector that takes http/protobuf.
    pub otlp: Option<String>,
}

/// The `[audit]` table.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// What it says.
    pub log: audit::Settings,
    /// Where it is written in the configuration.
    pub line: usize,
}

/// The `[store]` table: the embedded store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Its file.
    pub path: PathBuf,
    /// What seals it.
    pub sealing_key: SecretSource,
    /// What is to seal it next.
    pub next_sealing_key: Option<SecretSource>,
    /// Where it is written in the configuration.
    pub line: usize,
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

pub(super) fn server(section: Option<Section<'_>>) -> ServerSettings {
    let mut settings = ServerSettings {
        listen: Listen::Tcp(DEFAULT_LISTEN),
        admin_listen: Listen::Tcp(DEFAULT_ADMIN_LISTEN),
        admin_key: None,
        tls: None,
        plugins_dir: None,
    };
    let Some(section) = section else {
        return settings;
    };
    settings.admin_key = section.take("admin_key").and_then(KeyAt::read);
    settings.plugins_dir = section.take("plugins_dir").and_then(|item| item.path());
    let tls = section.section("tls");
    let has_tls = tls.is_some();
    settings.tls = tls.and_then(server_tls);
    let open = section
        .take("insecure_listen")
        .and_then(|item| item.boolean())
        .unwrap_or(false);
    let listen = |key, default: &Listen| {
        let Some(item) = section.take(key) else {
            return default.clone();
        };
        let Some(listen) = listen_address(&item) else {
            return default.clone();
        };
        if !listen.is_private() && !has_tls && !open {
            item.mistake(
                "would send keys and tokens over the network in the clear",
                "set `server.tls`, listen on 127.0.0.1 or unix:/path, or set `server.insecure_listen = true`",
            );
        }
        listen
    };
    let (data, admin) = (
        listen("listen", &settings.listen),
        listen("admin_listen", &settings.admin_listen),
    );
    if data == admin && !data.takes_any_port() {
        section.mistake(
            "has one address for both planes",
            "give `listen` and `admin_listen` different addresses",
        );
    }
    (settings.listen, settings.admin_listen) = (data, admin);
    section.finish();
    settings
}

fn server_tls(section: Section<'_>) -> Option<ServerTls> {
    let line = section.line();
    let cert = section
        .require("cert", "\"server.pem\"")
        .and_then(|item| item.path());
    let key = section
        .require("key", "{ file = \"server.key\" }")
        .and_then(Item::secret);
    let client_ca = section.take("client_ca").and_then(|item| item.path());
    section.finish();
    Some(ServerTls {
        cert: cert?,
        key: key?,
        client_ca,
        line,
    })
}

fn listen_address(item: &Item<'_>) -> Option<Listen> {
    let written = item.string()?;
    if let Some(path) = written.strip_prefix("unix:") {
        // 108 bytes with the closing zero on Linux, 104 on macOS and the BSDs.
        const UNIX_PATH_MAX_BYTES: usize = 103;
        let path = item.walk().resolve(path);
        // The socket is first bound under a longer, private name beside its own.
        let room = UNIX_PATH_MAX_BYTES - crate::daemon::server::BIND_SUFFIX_MAX_BYTES;
        if path.as_os_str().len() > room || path.file_name().is_none() {
            item.mistake(
                "is no path that a socket can have",
                format!("write \"unix:/path\" with a path of at most {room} bytes"),
            );
            return None;
        }
        return Some(Listen::Unix(path));
    }
    let numeric = match written.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => written.to_owned(),
    };
    let address = numeric.parse().ok().map(Listen::Tcp);
    if address.is_none() {
        item.mistake(
            "is no address to listen on",
            "write \"127.0.0.1:8470\", \"[::1]:8470\" or \"unix:/run/keyfob.sock\"",
        );
    }
    address
}

pub(super) fn log(section: Option<Section<'_>>) -> LogSettings {
    const FORMATS: [(&str, LogFormat); 2] =
        [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    let Some(section) = section else {
        return LogSettings::default();
    };
    let format = section
        .take("format")
        .and_then(|item| item.choice(&FORMATS))
        .unwrap_or_default();
    let otlp = section.take("otlp").and_then(|item| {
        let written = item.string()?;
        let good = url::Url::parse(written)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !good {
            item.mistake(
                "is no URL of a collector",
                "write \"http://127.0.0.1:4318\"",
            );
        }
        good.then(|| written.to_owned())
    });
    section.finish();
    LogSettings { format, otlp }
}

/// Where the audit log is kept; none is nowhere.
pub(super) fn audit(section: Option<Section<'_>>) -> Option<AuditSettings> {
    /// Weeks of an ordinary daemon, and read in a moment.
    const MAX_BYTES: u64 = 64 << 20;
    /// Every entry fits, even with the longest words; and the largest file is still read whole at a start.
    const MAX_BYTES_RANGE: RangeInclusive<i64> = 1 << 20..=1 << 30;
    /// With the default size, 512 MiB and the file that is written to.
    const KEEP: usize = 8;
    /// A folder of more is nobody's to look through.
    const KEEP_RANGE: RangeInclusive<i64> = 1..=10_000;
    let section = section?;
    let line = section.line();
    let path = section
        .require("path", "\"audit.log\"")
        .and_then(|path| path.path());
    if let Some(path) = &path
        && path.file_name().and_then(OsStr::to_str).is_none()
    {
        section.mistake("has a `path` that names no file", "write \"audit.log\"");
    }
    let max_bytes = section
        .take("max_bytes")
        .and_then(|item| item.integer(MAX_BYTES_RANGE))
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or(MAX_BYTES);
    let keep = section
        .take("keep")
        .and_then(|item| item.integer(KEEP_RANGE))
        .and_then(|files| files.try_into().ok())
        .unwrap_or(KEEP);
    section.finish();
    let path = path?;
    let log = audit::Settings {
        path,
        max_bytes,
        keep,
    };
    Some(AuditSettings { log, line })
}

/// Where credentials are kept; none is memory.
pub(super) fn store(section: Option<Section<'_>>) -> Option<StoreSettings> {
    const KINDS: [(&str, bool); 3] = [("embedded", true), ("redis", false), ("postgres", false)];
    let section = section?;
    let line = section.line();
    let kind = section.require("kind", "\"embedded\"");
    let embedded = kind.as_ref().and_then(|kind| kind.choice(&KINDS));
    if let (Some(kind), Some(false)) = (&kind, embedded) {
        // State that an operator believes to be shared and is not would be worse than a daemon that does not start.
        kind.mistake(
            "names a store that this build does not have",
            "write \"embedded\"",
        );
    }
    let path = section
        .require("path", "\"keyfob.redb\"")
        .and_then(|path| path.path());
    let sealing_key = section
        .require(
            "sealing_key",
            "{ env = \"KEYFOB_SEALING_KEY\" }, 32 bytes of base64",
        )
        .and_then(|key| key.secret());
    let next_sealing_key = section.take("next_sealing_key").and_then(Item::secret);
    section.finish();
    embedded.filter(|embedded| *embedded)?;
    Some(StoreSettings {
        path: path?,
        sealing_key: sealing_key?,
        next_sealing_key,
        line,
    })
}

// === impl Listen ===

impl Listen {
    /// Whether what is sent there stays on this machine.
    fn is_private(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    fn takes_any_port(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
