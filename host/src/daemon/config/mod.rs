//! The configuration file: TOML in, typed settings out, or every mistake at once with its line.
//!
//! Reading is pure but for the one file: no variable is read, no plugin loaded, no secret fetched. Those come later and
//! report their own mistakes; a [`Mistake`] is the one shape for all of them.

mod callers;
mod mistake;
mod providers;
mod server;
#[cfg(test)]
mod tests;
mod values;
mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::callers::{AdminIdentity, CallerIdentity, KeyAt, Role};
pub use self::mistake::Mistake;
pub(in crate::daemon) use self::mistake::did_you_mean;
pub use self::server::{
    AuditSettings, DEFAULT_ADMIN_LISTEN, DEFAULT_LISTEN, Listen, LogFormat, LogSettings,
    ServerSettings, ServerTls, StoreSettings,
};
use self::walk::{Section, Walk};
use crate::broker::{BrokerSettings, SetupMistake};

/// The largest file that is read: thousands of providers fit, a wrong path to a disk image does not.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// The `[server]` table.
    pub server: ServerSettings,
    /// The `[log]` table.
    pub log: LogSettings,
    /// The `[audit]` table; none keeps no audit log.
    pub audit: Option<AuditSettings>,
    /// The `[store]` table; none keeps everything in memory.
    pub store: Option<StoreSettings>,
    /// What the broker is told.
    pub broker: BrokerSettings,
    /// How callers are recognised.
    pub callers: Vec<CallerIdentity>,
    /// How operators are recognised; `server.admin_key` is `settings.admin_key`.
    pub admins: Vec<AdminIdentity>,
    /// What an operator should reconsider.
    pub warnings: Vec<Mistake>,
    /// Where each provider is written, and where the policy is.
    lines: BTreeMap<Option<String>, usize>,
}

/// What could be read of a configuration in which there are mistakes, for others to be found behind it.
pub struct Draft {
    /// Without the providers, the policy and the rules in which there are mistakes: they would be blamed for what is not there.
    pub config: Config,
    /// Every mistake in the file, in the order of its lines.
    pub mistakes: Vec<Mistake>,
}

/// Reads a configuration file.
///
/// # Errors
///
/// Every mistake in it, in the order of its lines.
pub fn read(file: &Path) -> Result<Config, Vec<Mistake>> {
    draft(file)?.faultless()
}

/// Reads what can be read of a configuration file.
///
/// # Errors
///
/// Why it is no TOML at all.
pub fn draft(file: &Path) -> Result<Draft, Vec<Mistake>> {
    let unreadable = |what: String| {
        let fix = "name the file with --config FILE or KEYFOB_CONFIG".to_owned();
        vec![Mistake {
            file: file.to_owned(),
            line: None,
            what,
            fix,
        }]
    };
    let size = std::fs::metadata(file)
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?
        .len();
    if size > FILE_MAX_BYTES {
        return Err(unreadable(format!("is larger than {FILE_MAX_BYTES} bytes")));
    }
    let bytes =
        std::fs::read(file).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        vec![Mistake {
            file: file.to_owned(),
            line: Some(good.iter().filter(|byte| **byte == b'\n').count() + 1),
            what: "is not UTF-8 here".to_owned(),
            fix: "save the file as UTF-8".to_owned(),
        }]
    })?;
    parse(file, &text)
}

/// Reads configuration text; `file` is what its mistakes and relative paths refer to.
///
/// # Errors
///
/// Where it is not TOML.
pub fn parse(file: &Path, text: &str) -> Result<Draft, Vec<Mistake>> {
    let walk = Walk::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let line = walk.line_of(error.span().map_or(0, |span| span.start));
            walk.mistake(line, format!("not TOML: {}", error.message()), "");
        }
        // What the parser made of the rest would be guesses about guesses.
        return Err(walk.finish().0);
    }
    let config = root(&walk, walk.root(document.get_ref()));
    let (mistakes, warnings) = walk.finish();
    let config = Config { warnings, ..config };
    Ok(Draft { config, mistakes })
}

fn root<'t>(walk: &'t Walk<'t>, root: Section<'t>) -> Config {
    let server = server::server(root.section("server"));
    let log = server::log(root.section("log"));
    let audit = server::audit(root.section("audit"));
    let store = server::store(root.section("store"));
    let mut lines = BTreeMap::new();
    let table = root.section("providers");
    let mut providers = Vec::new();
    let mut names = Vec::new();
    for (name, item) in table.iter().flat_map(Section::entries) {
        lines.insert(Some(name.to_owned()), item.line());
        names.push(name);
        let before = walk.mistakes();
        let provider = providers::provider(name, item);
        providers.extend(provider.filter(|_| walk.mistakes() == before));
    }
    if names.is_empty() {
        walk.warning(1, "there is no provider", "add a [providers.NAME] table");
    }
    let before = walk.mistakes();
    let policy_table = root.section("policy");
    lines.insert(None, policy_table.as_ref().map_or(1, Section::line));
    let policy = callers::policy(policy_table);
    let admins = callers::admins(root.section("admins"));
    let (identities, callers) = callers::callers(root.section("callers"), &policy, &names, &server);
    if identities.is_empty() {
        walk.warning(
            1,
            "there is no caller, so nobody can get a token",
            "add a [callers.NAME] table",
        );
    }
    if admins.is_empty() && server.admin_key.is_none() {
        walk.warning(
            1,
            "there is no operator, so the admin plane and its metrics are off",
            "set `server.admin_key = { env = \"…\" }` or add an [admins.NAME] table",
        );
    }
    let broker = match walk.mistakes() == before {
        true => BrokerSettings {
            providers,
            policy,
            callers,
        },
        false => BrokerSettings {
            providers,
            ..BrokerSettings::default()
        },
    };
    root.finish();
    Config {
        file: walk.file().to_owned(),
        server,
        log,
        audit,
        store,
        broker,
        callers: identities,
        admins,
        warnings: Vec::new(),
        lines,
    }
}

// === impl Draft ===

impl Draft {
    /// The configuration.
    ///
    /// # Errors
    ///
    /// The mistakes in it.
    pub fn faultless(self) -> Result<Config, Vec<Mistake>> {
        match self.mistakes.is_empty() {
            true => Ok(self.config),
            false => Err(self.mistakes),
        }
    }
}

// === impl Config ===

impl Config {
    /// Whether anybody could use the admin plane.
    pub fn has_operators(&self) -> bool {
        !self.admins.is_empty() || self.server.admin_key.is_some()
    }

    /// The folder of the file, where relative paths start.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// A mistake at a line of this file.
    pub fn mistake_at(
        &self,
        line: usize,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Mistake {
        Mistake {
            file: self.file.clone(),
            line: Some(line),
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// A mistake that the broker found, at the line of its provider.
    pub fn locate(&self, mistake: &SetupMistake) -> Mistake {
        let what = match &mistake.provider {
            Some(name) => format!("[providers.{name}]: {}", mistake.message),
            None => mistake.message.clone(),
        };
        Mistake {
            file: self.file.clone(),
            line: self.lines.get(&mistake.provider).copied(),
            what,
            fix: mistake.fix.clone(),
        }
    }
}
