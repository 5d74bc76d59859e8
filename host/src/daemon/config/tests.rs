//! Whole files in, typed settings or mistakes out.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::model::contract::Rotation;
use crate::settings::{AfterLostAnswer, PluginSource, ProxySettings, SecretSource, Wasi};

const CANARY: &str = "hunter2-do-not-print";

fn config(text: &str) -> Config {
    let parsed = parse(Path::new("/etc/keyfob/keyfob.toml"), text);
    parsed
        .and_then(Draft::faultless)
        .unwrap_or_else(|mistakes| {
            panic!(
                "{}",
                mistakes
                    .iter()
                    .map(|m| format!("{m}\n"))
                    .collect::<String>()
            )
        })
}

/// Every mistake as `line: what | fix`.
fn mistakes(text: &str) -> Vec<String> {
    let parsed = parse(Path::new("keyfob.toml"), text);
    let Err(mistakes) = parsed.and_then(Draft::faultless) else {
        return Vec::new();
    };
    mistakes
        .iter()
        .map(|m| format!("{}: {} | {}", m.line.unwrap(), m.what, m.fix))
        .collect()
}

#[track_caller]
fn assert_mistake(text: &str, line: usize, words: &[&str]) {
    let all = mistakes(text);
    let start = format!("{line}: ");
    let found = all
        .iter()
        .any(|m| m.starts_with(&start) && words.iter().all(|w| m.contains(w)));
    assert!(found, "line {line} {words:?} is not in {all:#?}");
}

const FULL: &str = r#"
[server]
listen = "0.0.0.0:8470"
admin_listen = "unix:run/admin.sock"
admin_key = { env = "KEYFOB_ADMIN_KEY" }
tls = { cert = "tls/cert.pem", key = { file = "tls/key.pem" }, client_ca = "/ca.pem" }
plugins_dir = "plugins"

[log]
format = "json"
otlp = "http://127.0.0.1:4318"

[audit]
path = "audit.log"
keep = 3

[providers.acme]
plugin = "builtin:oauth2"
allow = ["https://login.acme.example/oauth2/token"]
allow_addresses = ["10.0.0.0/8"]
required = true
settings = { token_url = "https://login.acme.example/oauth2/token", depth = { n = 1, ratio = 0.5 } }
readable = ["token_type"]
expose = ["instance_url"]
scopes = ["b", "a"]
tls = { ca = "ca.pem", cert = "c.pem", key = { env = "K" } }
proxy = "environment"
wasi = "empty"

[providers.acme.secrets]
client_secret = { env = "ACME_SECRET", to = ["https://login.acme.example/"], in = ["auth", "form:client_secret"] }
signing_key = { file = "key.pem", alg = "ES256", key_id = "k1" }

[providers.acme.refresh]
ahead = "30%"
max_ahead = "2m"
timeout = "3s"
concurrency = 4
rate = 2.5
rotation = "grace"
grace = "30s"
default_lifetime = "10m"
after_lost_answer = "probe"

[callers.billing]
tenant = "eu"
key = { file = "billing.key" }
san = "billing.internal"
allow = [{ provider = "acme", subjects = ["*"], scopes = ["a"] }]

[admins.ops]
key = { env = "OPS_KEY" }
role = "operate"
"#;

#[test]
fn a_full_file_becomes_typed_settings() {
    let config = config(FULL);
    assert_eq!(
        config.server.listen,
        Listen::Tcp("0.0.0.0:8470".parse().unwrap())
    );
    assert_eq!(
        config.server.admin_listen,
        Listen::Unix("/etc/keyfob/run/admin.sock".into())
    );
    assert_eq!(
        config.server.plugins_dir.as_deref(),
        Some(Path::new("/etc/keyfob/plugins"))
    );
    let tls = config.server.tls.unwrap();
    assert_eq!(tls.cert, Path::new("/etc/keyfob/tls/cert.pem"));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(config.log.format, LogFormat::Json);

    let audit = config.audit.unwrap().log;
    assert_eq!(audit.path, Path::new("/etc/keyfob/audit.log"));
    assert_eq!((audit.max_bytes, audit.keep), (64 << 20, 3));

    let acme = &config.broker.providers[0];
    assert_eq!(acme.name.as_str(), "acme");
    assert!(matches!(&acme.plugin, PluginSource::Builtin(name) if name == "oauth2"));
    assert_eq!(
        acme.settings["depth"],
        serde_json::json!({ "n": 1, "ratio": 0.5 })
    );
    assert_eq!(acme.scopes.to_string(), "a b");
    assert_eq!(acme.secrets.len(), 2);
    assert_eq!(
        acme.secrets[0].places.as_deref().unwrap(),
        ["auth", "form:client_secret"]
    );
    assert_eq!(acme.secrets[1].alg.as_deref(), Some("ES256"));
    assert!(acme.secrets[1].to.is_none());
    assert!((acme.refresh.ahead - 0.3).abs() < 1e-9);
    assert_eq!(acme.refresh.rate, Some(2.5));
    assert_eq!(acme.refresh.timeout, Duration::from_secs(3));
    assert_eq!(acme.refresh.rotation, Rotation::Grace);
    assert_eq!(acme.refresh.after_lost_answer, Some(AfterLostAnswer::Probe));
    assert!(matches!(acme.proxy, Some(ProxySettings::Environment)));
    assert_eq!(acme.wasi, Wasi::Empty);
    assert!(acme.required);

    assert_eq!(config.callers[0].tenant.as_str(), "eu");
    let rules = &config.broker.callers[0].rules;
    let allow = serde_json::json!([{ "provider": "acme", "subjects": ["*"], "scopes": ["a"] }]);
    assert_eq!(rules, &serde_json::json!({ "allow": allow }));
    assert_eq!(config.admins[0].role, Role::Operate);
    assert_eq!(config.warnings, []);
}

#[test]
fn an_empty_file_is_a_daemon_with_defaults_and_warnings() {
    let config = config("");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8470");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:8471");
    assert_eq!(
        config.warnings.len(),
        3,
        "no provider, no caller, no operator"
    );
}

#[test]
fn all_mistakes_come_at_once_each_with_its_line() {
    let text = r#"[server]
listen = "0.0.0.0:1"
admin_key = "hunter2-do-not-print"
lisen = 1

[log]
format = "prety"

[providers.acme]
plugin = 7
alow = []
required = "yes"
settings = []
refresh = { ahead = "20", timeout = "soon", concurrency = 0, grace = "1s" }

[callers.billing]
allow = [
  { provider = "acne" },
]
"#;
    assert_mistake(text, 2, &["in the clear", "insecure_listen"]);
    assert_mistake(text, 3, &["server.admin_key", "where it comes from", "env"]);
    assert_mistake(
        text,
        4,
        &["unknown key `lisen` in [server]", "did you mean `listen`?"],
    );
    assert_mistake(text, 7, &["log.format", "did you mean \"pretty\"?"]);
    assert_mistake(text, 9, &["[providers.acme] has no `allow`"]);
    assert_mistake(
        text,
        10,
        &[
            "providers.acme.plugin",
            "must be a string, found an integer",
        ],
    );
    assert_mistake(text, 11, &["unknown key `alow`", "did you mean `allow`?"]);
    assert_mistake(
        text,
        12,
        &["required", "must be true or false, found a string"],
    );
    assert_mistake(text, 13, &["settings", "must be a table, found an array"]);
    for words in [
        "refresh.ahead",
        "refresh.timeout",
        "refresh.concurrency",
        "`grace` that nothing",
    ] {
        assert_mistake(text, 14, &[words]);
    }
    assert_mistake(
        text,
        16,
        &["[callers.billing] cannot be recognised", "uid = 1000"],
    );
    assert_mistake(text, 18, &["names no provider", "did you mean \"acme\"?"]);
    assert_eq!(mistakes(text).len(), 15);
    assert!(!mistakes(text).concat().contains(CANARY));
}

#[test]
fn a_secret_is_never_printed_wherever_it_was_put() {
    let spots = [
        "[server]\nadmin_key = \"hunter2-do-not-print\"",
        "[server]\nadmin_key = { env = \"A\", value = \"hunter2-do-not-print\" }",
        "[server]\nadmin_key = { value = [\"hunter2-do-not-print\"] }",
        "[server]\nadmin_key = { vale = \"hunter2-do-not-print\" }",
        "[server]\nadmin_key = hunter2-do-not-print",
        "[server]\nadmin_key = \"hunter2-do-not-print",
        "[server]\nadmin_key = { value = \"hunter2-do-not-print\\q\" }",
        "[callers.x]\nkey = \"hunter2-do-not-print\"",
        "[providers.x]\nsecrets = { s = \"hunter2-do-not-print\" }",
        "[providers.x]\nsecrets = \"hunter2-do-not-print\"",
        "[providers.x]\nproxy = \"ftp://u:hunter2-do-not-print@p\"",
        "[providers.x]\ntls = { cert = \"c\", key = \"hunter2-do-not-print\" }",
        "[store]\nkind = \"embedded\"\nsealing_key = \"hunter2-do-not-print\"",
    ];
    for text in spots {
        let all = mistakes(text);
        assert!(!all.is_empty(), "{text}");
        assert!(!all.concat().contains(CANARY), "{text}: {all:?}");
    }
    let config = config(
        "[server]\nadmin_key = { value = \"hunter2-do-not-print\" }\n\
         [providers.x]\nplugin = \"builtin:oauth2\"\nallow = []\nproxy = \"http://u:hunter2-do-not-print@p:1\"",
    );
    assert!(!format!("{config:?}").contains(CANARY));
    let warned = config
        .warnings
        .iter()
        .any(|w| w.line == Some(2) && w.what.contains("development"));
    assert!(warned, "{:?}", config.warnings);
}

#[test]
fn each_mistake_names_its_line_and_its_fix() {
    #[rustfmt::skip]
    let table: &[(&str, usize, &[&str])] = &[
        ("[sever]", 1, &["unknown key `sever`", "did you mean `server`?"]),
        ("x = 1", 1, &["unknown key `x` in the file", "known keys: server"]),
        ("[server]\nlisten = 1", 2, &["must be a string"]),
        ("[server]\nlisten = \"8470\"", 2, &["no address to listen on", "unix:/run"]),
        ("[server]\nlisten = \"example.com:80\"", 2, &["no address to listen on"]),
        ("[server]\nlisten = \"unix:/\"", 2, &["no path that a socket can have"]),
        ("[server]\nadmin_listen = \"127.0.0.1:8470\"", 1, &["one address for both planes"]),
        ("[server]\nadmin_listen = \"[::]:1\"", 2, &["in the clear"]),
        ("[server]\ntls = { cert = \"c\" }", 2, &["has no `key`"]),
        ("[server]\nadmin_key = {}", 2, &["in one way"]),
        ("[server]\nadmin_key = { env = \"A\", file = \"b\" }", 2, &["in one way"]),
        ("[server]\nadmin_key = { env = \"\" }", 2, &["name of a variable"]),
        ("[log]\notlp = \"4317\"", 2, &["no URL", "4318"]),
        ("[audit]", 1, &["[audit] has no `path`", "audit.log"]),
        ("[audit]\npath = \"\"", 2, &["is empty"]),
        ("[audit]\npath = \"..\"", 1, &["names no file"]),
        ("[audit]\npath = \"a\"\nmax_bytes = 1000", 3, &["must be from 1048576 to 1073741824"]),
        ("[audit]\npath = \"a\"\nkeep = 0", 3, &["must be from 1"]),
        ("[audit]\npath = \"a\"\nkep = 1", 3, &["did you mean `keep`?"]),
        ("[store]\nkind = \"embedded\"", 1, &["has no `path`", "keyfob.redb"]),
        ("[store]\nkind = \"redis\"", 2, &["this build does not have", "embedded"]),
        ("[store]\npath = \"x\"", 1, &["has no `kind`"]),
        ("[store]\nkind = \"redi\"", 2, &["did you mean \"redis\"?"]),
        ("[providers]\nacme = 1", 2, &["must be a table"]),
        ("[providers.\"a\\nb\"]\nplugin = \"builtin:x\"\nallow = []", 1, &["is no provider"]),
        ("[providers.a]\nplugin = \"builtin:\"\nallow = []", 2, &["names no shipped plugin"]),
        ("[providers.a]\nplugin = \"\"\nallow = []", 2, &["is empty"]),
        ("[providers.a]\nplugin = \"x\"\nallow = [\n\"https://a/\",\n\"http://a/\"]", 5, &["allow[1]", "is not https"]),
        ("[providers.a]\nplugin = \"x\"\nallow = [\"http://127.0.0.1/\"]", 3, &["plain http", "insecure_http = true"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nallow_addresses = [\"x\"]", 4, &["is no address"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nscopes = [\"a b\"]", 4, &["is no scope"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nwasi = \"full\"", 4, &["none, empty"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\ntls = { cert = \"c\" }", 4, &["half of a client certificate"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nsettings = { n = inf }", 4, &["JSON cannot"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nsecrets = { A-b = { env = \"X\" } }", 4, &["no name of a secret"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nsecrets = { s = { env = \"X\", in = [\"url\"] } }", 4, &["no place for a secret"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nsecrets = { s = { env = \"X\", alg = \"none\" } }", 4, &["RS256"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nsecrets = { s = { env = \"X\", too = [] } }", 4, &["did you mean `to`?"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nrefresh = { timeout = \"1h\" }", 4, &["out of range"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nrefresh = { rate = 0 }", 4, &["refresh.rate", "must be from 0.1 to 10000"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nrefresh = { rate = \"50/s\" }", 4, &["must be a number", "50, or 0.5"]),
        ("[providers.a]\nplugin = \"x\"\nallow = []\nrefresh = { rate = nan }", 4, &["must be from 0.1"]),
        ("[policy]\nplugin = 1", 2, &["must be a string"]),
        ("[callers.a]\nuid = 1\nallow = []", 2, &["listens on TCP"]),
        ("[callers.a]\nuid = -1\nallow = []", 2, &["must be from 0"]),
        ("[callers.a]\nsan = \"x\"\nallow = []", 2, &["client_ca"]),
        ("[callers.a]\nkey = { env = \"K\" }\ntenant = \"\"", 3, &["is no tenant"]),
        ("[callers.a]\nkey = { env = \"K\" }\nallow = [{}]", 3, &["has no `provider`"]),
        ("[callers.a]\nkey = { env = \"K\" }\nallow = [{ provider = \"x\", scope = [] }]", 3, &["did you mean `scopes`?"]),
        ("[admins.a]\nrole = \"root\"", 1, &["has no `key`"]),
        ("[admins.a]\nrole = \"root\"", 2, &["read, operate, deploy"]),
        ("a = 1\na = 2", 2, &["not TOML", "duplicate key"]),
        ("[server]\nlisten = ", 2, &["not TOML"]),
    ];
    for (text, line, words) in table {
        assert_mistake(text, *line, words);
    }
}

#[test]
fn two_callers_cannot_share_a_certificate_or_a_user() {
    let text = r#"
server = { listen = "unix:/run/k.sock", tls = { cert = "c", key = { env = "K" }, client_ca = "ca" } }
[callers.a]
uid = 7
san = "A.internal"
allow = []
[callers.b]
uid = 7
san = "a.internal"
allow = []
"#;
    assert_mistake(text, 8, &["also that of caller \"a\""]);
    assert_mistake(text, 9, &["also that of caller \"a\""]);
}

#[test]
fn a_policy_of_ones_own_gets_rules_of_ones_own() {
    let config = config(
        "[policy]\nplugin = \"mine.wasm\"\n[callers.a]\nkey = { env = \"K\" }\nallow = { level = 3 }",
    );
    assert!(
        matches!(&config.broker.policy.plugin, PluginSource::File(path) if path.ends_with("mine.wasm"))
    );
    assert_eq!(
        config.broker.callers[0].rules,
        serde_json::json!({ "allow": { "level": 3 } })
    );
}

#[test]
fn a_mistake_of_the_broker_gets_the_line_of_its_provider() {
    let config = config(FULL);
    let line = FULL
        .lines()
        .position(|line| line == "[providers.acme]")
        .unwrap()
        + 1;
    let at = |provider: Option<&str>| {
        let provider = provider.map(str::to_owned);
        config.locate(&SetupMistake {
            provider,
            message: "m".to_owned(),
            fix: "f".to_owned(),
            widens: false,
        })
    };
    assert_eq!(at(Some("acme")).line, Some(line));
    assert_eq!(at(Some("gone")).line, None);
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_a_mistake_too() {
    let dir = tempfile::tempdir().unwrap();
    let missing = read(&dir.path().join("no.toml")).unwrap_err();
    assert!(missing[0].what.contains("cannot be read"), "{missing:?}");
    let binary = dir.path().join("bin.toml");
    std::fs::write(&binary, b"[log]\n\xff\xfe").unwrap();
    assert_eq!(read(&binary).unwrap_err()[0].line, Some(2));
}

#[test]
fn a_secret_source_says_where_and_nothing_else() {
    let config = config("[server]\nadmin_key = { file = \"k\" }");
    let key = config.server.admin_key.unwrap();
    assert!(matches!(&key.source, SecretSource::File(path) if path == Path::new("/etc/keyfob/k")));
    assert_eq!(key.line, 2);
}

#[test]
fn only_the_admin_key_does_everything() {
    use Role::{All, Deploy, Operate, Read};
    for role in [Read, Operate, Deploy, All] {
        assert!(role.covers(Read), "{role:?}");
    }
    assert!(Operate.covers(Operate) && Deploy.covers(Deploy));
    assert!(!Operate.covers(Deploy) && !Deploy.covers(Operate) && !Read.covers(Operate));
    assert!(All.covers(Operate) && All.covers(Deploy));
}

#[test]
fn the_reference_names_every_key() {
    const REFERENCE: &str = include_str!("../../../../docs/configuration.md");
    let tables = [
        "server",
        "log",
        "audit",
        "providers.x",
        "providers.x.refresh",
        "policy",
        "callers.x",
        "admins.x",
    ];
    let mut documented = 0;
    for table in tables {
        let all = mistakes(&format!("[{table}]\nqqqqqqqqqq = 1")).concat();
        let (_, keys) = all.split_once("known keys: ").unwrap();
        let keys = keys.split(|c: char| c.is_ascii_digit()).next().unwrap();
        for key in keys.split(", ") {
            assert!(
                REFERENCE.contains(&format!("| `{key}` |")),
                "[{table}] {key}"
            );
            documented += 1;
        }
    }
    assert_eq!(documented, 42, "a new key needs a line here too");
}
