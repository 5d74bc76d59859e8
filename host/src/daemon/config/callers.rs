//! `[callers.NAME]`, `[admins.NAME]` and `[policy]`: who may ask, and who decides.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::mistake::did_you_mean;
use super::providers::plugin;
use super::server::{Listen, ServerSettings};
use super::walk::{Item, Section};
use crate::broker::PolicySettings;
use crate::model::key::Tenant;
use crate::settings::{CallerSettings, PluginSource, SecretSource};

/// The policy that ships, and the shape of whose rules is known here.
pub(super) const ALLOWLIST: &str = "allowlist";

/// How a caller is recognised; each of the ways is enough alone.
#[derive(Clone, Debug)]
pub struct CallerIdentity {
    /// The caller's name.
    pub name: String,
    /// The caller's tenant.
    pub tenant: Tenant,
    /// By a bearer key.
    pub key: Option<KeyAt>,
    /// By a subject alternative name of a client certificate.
    pub san: Option<String>,
    /// By the user at the other end of a Unix socket.
    pub uid: Option<u32>,
}

/// An operator.
#[derive(Clone, Debug)]
pub struct AdminIdentity {
    /// The operator's name, as audit lines show it.
    pub name: String,
    /// How the operator is recognised.
    pub key: KeyAt,
    /// What the operator may do.
    pub role: Role,
}

/// Where a key is found, and where that is written.
#[derive(Clone, Debug)]
pub struct KeyAt {
    /// Where it is found.
    pub source: SecretSource,
    /// Where that is written.
    pub line: usize,
}

/// What an operator may do. Whoever hands grants over need not be the one who ships plugins, and the other way round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Look.
    Read,
    /// Look, and hand over or revoke credentials.
    Operate,
    /// Look, and swap or roll back plugins.
    Deploy,
    /// Everything: `server.admin_key`.
    All,
}

const ROLES: [(&str, Role); 3] = [
    ("read", Role::Read),
    ("operate", Role::Operate),
    ("deploy", Role::Deploy),
];

pub(super) fn policy(section: Option<Section<'_>>) -> PolicySettings {
    let shipped = PluginSource::Builtin(ALLOWLIST.to_owned());
    let Some(section) = section else {
        return PolicySettings { plugin: shipped };
    };
    let chosen = section.take("plugin").and_then(|item| plugin(&item));
    section.finish();
    PolicySettings {
        plugin: chosen.unwrap_or(shipped),
    }
}

/// Reads callers; `providers` are the names that rules may mention.
pub(super) fn callers(
    section: Option<Section<'_>>,
    policy: &PolicySettings,
    providers: &[&str],
    server: &ServerSettings,
) -> (Vec<CallerIdentity>, Vec<CallerSettings>) {
    let shipped = matches!(&policy.plugin, PluginSource::Builtin(name) if name == ALLOWLIST);
    let mut seen = Seen::default();
    let mut all = (Vec::new(), Vec::new());
    for (name, item) in section.iter().flat_map(Section::entries) {
        let known_name = item.named_entry(name, "caller");
        let Some(section) = item.section() else {
            continue;
        };
        let identity = identity(name, &section, server, &mut seen);
        let rules = if shipped {
            Value::Array(rules(&section, providers))
        } else {
            section
                .take("allow")
                .and_then(|item| item.json())
                .unwrap_or_else(|| json!([]))
        };
        let tenant = identity.tenant.clone();
        section.finish();
        if known_name {
            let rules = json!({ "allow": rules });
            all.1.push(CallerSettings {
                name: name.to_owned(),
                tenant,
                rules,
            });
            all.0.push(identity);
        }
    }
    all
}

/// Who claimed which certificate name or user first.
#[derive(Default)]
struct Seen {
    sans: BTreeMap<String, String>,
    uids: BTreeMap<u32, String>,
}

fn identity(
    name: &str,
    section: &Section<'_>,
    server: &ServerSettings,
    seen: &mut Seen,
) -> CallerIdentity {
    let tenant = section.take("tenant").and_then(|item| {
        let text = item.string()?;
        item.named(Tenant::parse(text))
    });
    let key = section.take("key");
    let (san, uid) = (section.take("san"), section.take("uid"));
    if key.is_none() && san.is_none() && uid.is_none() {
        section.mistake(
            "cannot be recognised",
            "add `key = { env = \"…\" }`, `san = \"…\"` (client certificate) or `uid = 1000` (Unix peer)",
        );
    }
    let san = san.and_then(|item| {
        let san = item.name("name of a certificate")?;
        if server
            .tls
            .as_ref()
            .is_none_or(|tls| tls.client_ca.is_none())
        {
            item.mistake(
                "is never seen: no client certificate is asked for",
                "set `server.tls.client_ca`",
            );
        }
        if let Some(first) = seen.sans.insert(san.to_ascii_lowercase(), name.to_owned()) {
            item.mistake(
                format!("is also that of caller {first:?}"),
                "give each caller its own",
            );
        }
        Some(san)
    });
    let uid = uid.and_then(|item| {
        let uid = u32::try_from(item.integer(0..=i64::from(u32::MAX))?).ok()?;
        if !matches!(server.listen, Listen::Unix(_)) {
            item.mistake(
                "is never seen: the data plane listens on TCP",
                "set `server.listen = \"unix:/path\"`",
            );
        }
        if let Some(first) = seen.uids.insert(uid, name.to_owned()) {
            item.mistake(
                format!("is also that of caller {first:?}"),
                "give each caller its own",
            );
        }
        Some(uid)
    });
    CallerIdentity {
        name: name.to_owned(),
        tenant: tenant.unwrap_or_default(),
        key: key.and_then(KeyAt::read),
        san,
        uid,
    }
}

/// The rules that the shipped allowlist reads: checked here, where they have lines.
fn rules(section: &Section<'_>, providers: &[&str]) -> Vec<Value> {
    let Some(allow) = section.take("allow") else {
        section.warning(
            "is allowed nothing",
            "add `allow = [ { provider = \"…\", subjects = [\"*\"], scopes = [\"*\"], audiences = [\"*\"] } ]`",
        );
        return Vec::new();
    };
    let entries = allow.array().unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| rule(entry, providers))
        .collect()
}

fn rule(entry: Item<'_>, providers: &[&str]) -> Option<Value> {
    let json = entry.json();
    let section = entry.section()?;
    if let Some(item) = section.require("provider", "\"acme\"")
        && let Some(name) = item.string()
        && !providers.contains(&name)
    {
        let fix = match did_you_mean(name, providers.iter().copied()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("add a [providers.{name}] table, or name one that exists"),
        };
        item.mistake("names no provider of this file", fix);
    }
    for key in ["subjects", "scopes", "audiences"] {
        let items = section
            .take(key)
            .and_then(|item| item.array())
            .unwrap_or_default();
        for item in &items {
            item.name("pattern");
        }
    }
    section.finish();
    json
}

pub(super) fn admins(section: Option<Section<'_>>) -> Vec<AdminIdentity> {
    let mut admins = Vec::new();
    for (name, item) in section.iter().flat_map(Section::entries) {
        let known_name = item.named_entry(name, "operator");
        let Some(section) = item.section() else {
            continue;
        };
        let key = section
            .require("key", "{ env = \"OPERATOR_KEY\" }")
            .and_then(KeyAt::read);
        let role = section
            .require("role", "\"read\"")
            .and_then(|item| item.choice(&ROLES));
        section.finish();
        if let (true, Some(key), Some(role)) = (known_name, key, role) {
            admins.push(AdminIdentity {
                name: name.to_owned(),
                key,
                role,
            });
        }
    }
    admins
}

// === impl KeyAt ===

impl KeyAt {
    pub(super) fn read(item: Item<'_>) -> Option<Self> {
        let line = item.line();
        item.secret().map(|source| Self { source, line })
    }
}

// === impl Role ===

impl Role {
    /// Whether whoever has this role may do what asks for `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self == Self::All || self == needed || needed == Self::Read
    }

    /// As configured.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Deploy => "deploy",
            Self::All => "all",
        }
    }
}

// === impl Item ===

impl Item<'_> {
    /// Whether the key of this entry can be the name of a caller or operator.
    fn named_entry(&self, name: &str, what: &str) -> bool {
        let good = super::values::is_name(name);
        if !good {
            self.mistake(
                format!("is no name of a {what}"),
                "1 to 256 bytes without control characters",
            );
        }
        good
    }
}
