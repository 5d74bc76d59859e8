//! `[providers.NAME]`: a plugin, what it may reach, what it may know.

use std::time::Duration;

use super::values::secret_section;
use super::walk::{Item, Section};
use crate::model::contract::Rotation;
use crate::model::key::ProviderName;
use crate::model::secret::Secret;
use crate::settings::{
    AfterLostAnswer, ClientTls, PluginSource, ProviderSettings, ProxySettings, RefreshSettings,
    SecretSettings, Wasi,
};

/// The longest name of a secret, in bytes: plugins declare them and operators write them.
const SECRET_NAME_MAX_BYTES: usize = 64;
/// Below this no TLS handshake with an issuer is sure to finish.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Callers wait this long at most; longer is an issuer that is down.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// A token for longer than a month is no access token.
const LIFETIME_MAX: Duration = Duration::from_secs(31 * 86_400);
/// More refreshes of one provider at once than issuers answer.
const CONCURRENCY_MAX: i64 = 1024;
/// Slower than one refresh in ten seconds, nobody who waits for [`TIMEOUT_MAX`] would see the end of a short queue.
const RATE_MIN: f64 = 0.1;
/// More refreshes a second of one provider than this process can do.
const RATE_MAX: f64 = 10_000.0;

const ROTATIONS: [(&str, Rotation); 4] = [
    ("unknown", Rotation::Unknown),
    ("never", Rotation::Never),
    ("single_use", Rotation::SingleUse),
    ("grace", Rotation::Grace),
];
const LOST_ANSWERS: [(&str, AfterLostAnswer); 2] = [
    ("probe", AfterLostAnswer::Probe),
    ("stop", AfterLostAnswer::Stop),
];
const WASIS: [(&str, Wasi); 2] = [("none", Wasi::None), ("empty", Wasi::Empty)];
const ALGORITHMS: [(&str, &str); 4] = [
    ("RS256", "RS256"),
    ("ES256", "ES256"),
    ("EdDSA", "EdDSA"),
    ("HS256", "HS256"),
];

pub(super) fn provider(name: &str, item: Item<'_>) -> Option<ProviderSettings> {
    let parsed_name = item.named(ProviderName::parse(name));
    let section = item.section()?;
    let plugin = section
        .require("plugin", "\"builtin:oauth2\"")
        .and_then(|item| plugin(&item));
    let insecure_http = flag(&section, "insecure_http");
    let destinations = |item: Item<'_>| destinations(&item, insecure_http);
    let allow = section
        .require("allow", "[\"https://login.example/oauth2/token\"]")
        .and_then(destinations)
        .unwrap_or_default();
    let allow_addresses = section
        .take("allow_addresses")
        .and_then(|item| item.array());
    let settings = ProviderSettings {
        name: parsed_name?,
        plugin: plugin.unwrap_or(PluginSource::Builtin(String::new())),
        allow,
        insecure_http,
        allow_addresses: allow_addresses
            .iter()
            .flatten()
            .filter_map(Item::address_block)
            .collect(),
        required: flag(&section, "required"),
        settings: section
            .section("settings")
            .and_then(|settings| settings.json())
            .unwrap_or_else(|| serde_json::json!({})),
        secrets: section
            .section("secrets")
            .map(|secrets| {
                secrets
                    .entries()
                    .filter_map(|(name, item)| secret(name, item, insecure_http))
                    .collect()
            })
            .unwrap_or_default(),
        refresh: section.section("refresh").map(refresh).unwrap_or_default(),
        readable: names(&section, "readable"),
        expose: names(&section, "expose"),
        scopes: section
            .take("scopes")
            .and_then(|item| item.scopes())
            .unwrap_or_default(),
        tls: section.section("tls").and_then(client_tls),
        proxy: section.take("proxy").and_then(|item| proxy(&item)),
        wasi: section
            .take("wasi")
            .and_then(|item| item.choice(&WASIS))
            .unwrap_or_default(),
    };
    section.finish();
    Some(settings)
}

/// A plugin by name or by file.
pub(super) fn plugin(item: &Item<'_>) -> Option<PluginSource> {
    match item.string()?.strip_prefix("builtin:") {
        Some(name) => {
            let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let good = !name.is_empty() && name.bytes().all(kebab);
            if !good {
                item.mistake(
                    "names no shipped plugin",
                    "write \"builtin:oauth2\", or a file",
                );
            }
            good.then(|| PluginSource::Builtin(name.to_owned()))
        }
        None => item.path().map(PluginSource::File),
    }
}

fn destinations(item: &Item<'_>, insecure_http: bool) -> Option<Vec<String>> {
    Some(
        item.array()?
            .iter()
            .filter_map(|item| item.destination(insecure_http))
            .collect(),
    )
}

fn flag(section: &Section<'_>, key: &'static str) -> bool {
    section
        .take(key)
        .and_then(|item| item.boolean())
        .unwrap_or(false)
}

fn names(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let items = section
        .take(key)
        .and_then(|item| item.array())
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.name("member of an answer"))
        .collect()
}

fn secret(name: &str, item: Item<'_>, insecure_http: bool) -> Option<SecretSettings> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let good = (1..=SECRET_NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(word);
    if !good {
        item.mistake("is no name of a secret", "1 to 64 of a-z, 0-9 and _");
    }
    let section = secret_section(item)?;
    let source = section.secret_source();
    let to = section
        .take("to")
        .and_then(|item| destinations(&item, insecure_http));
    let places = section.take("in").and_then(|item| item.array());
    let places = places.map(|items| items.iter().filter_map(place).collect());
    let alg = section
        .take("alg")
        .and_then(|item| item.choice(&ALGORITHMS))
        .map(str::to_owned);
    let key_id = section.take("key_id").and_then(|item| item.name("key id"));
    let audiences = section.take("audiences").and_then(|item| item.strings());
    section.finish();
    if !good {
        return None;
    }
    let name = name.to_owned();
    Some(SecretSettings {
        name,
        source: source?,
        to,
        places,
        alg,
        key_id,
        audiences,
    })
}

fn place(item: &Item<'_>) -> Option<String> {
    let written = item.string()?;
    let (kind, member) = match written.split_once(':') {
        Some((kind, member)) => (kind, Some(member)),
        None => (written, None),
    };
    let good = match (kind, member) {
        ("auth" | "form" | "json" | "text", None) => true,
        ("form", Some(member)) => !member.is_empty(),
        ("header", Some(name)) => http::HeaderName::from_bytes(name.as_bytes()).is_ok(),
        _ => false,
    };
    if !good {
        item.mistake(
            "is no place for a secret",
            "write \"auth\", \"form\", \"form:MEMBER\", \"json\", \"text\" or \"header:NAME\"",
        );
    }
    good.then(|| written.to_owned())
}

fn refresh(section: Section<'_>) -> RefreshSettings {
    let default = RefreshSettings::default();
    let span = |key, from, to| section.take(key).and_then(|item| item.duration(from..=to));
    let settings = RefreshSettings {
        ahead: section
            .take("ahead")
            .and_then(|item| item.share())
            .unwrap_or(default.ahead),
        max_ahead: span("max_ahead", Duration::ZERO, LIFETIME_MAX).unwrap_or(default.max_ahead),
        timeout: span("timeout", TIMEOUT_MIN, TIMEOUT_MAX).unwrap_or(default.timeout),
        concurrency: section
            .take("concurrency")
            .and_then(|item| item.integer(1..=CONCURRENCY_MAX))
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default.concurrency),
        rate: section
            .take("rate")
            .and_then(|item| item.number(RATE_MIN..=RATE_MAX)),
        rotation: section
            .take("rotation")
            .and_then(|item| item.choice(&ROTATIONS))
            .unwrap_or(default.rotation),
        grace: span("grace", Duration::ZERO, LIFETIME_MAX).unwrap_or(default.grace),
        default_lifetime: span("default_lifetime", Duration::from_secs(1), LIFETIME_MAX)
            .unwrap_or(default.default_lifetime),
        after_lost_answer: section
            .take("after_lost_answer")
            .and_then(|item| item.choice(&LOST_ANSWERS)),
    };
    if settings.rotation != Rotation::Grace && !settings.grace.is_zero() {
        section.mistake(
            "has a `grace` that nothing uses",
            "set `rotation = \"grace\"`, or remove `grace`",
        );
    }
    section.finish();
    settings
}

fn client_tls(section: Section<'_>) -> Option<ClientTls> {
    let path = |key| section.take(key).and_then(|item| item.path());
    let (ca, cert) = (path("ca"), path("cert"));
    let key = section.take("key");
    if cert.is_some() != key.is_some() {
        section.mistake(
            "has half of a client certificate",
            "write both `cert = \"…\"` and `key = { file = \"…\" }`",
        );
    }
    let tls = ClientTls {
        ca,
        cert,
        key: key.and_then(Item::secret),
    };
    section.finish();
    Some(tls)
}

fn proxy(item: &Item<'_>) -> Option<ProxySettings> {
    let written = item.string()?;
    if written == "environment" {
        return Some(ProxySettings::Environment);
    }
    let good = url::Url::parse(written)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good {
        item.mistake(
            "is no proxy",
            "write \"http://proxy.example:3128\" or \"environment\"",
        );
    }
    good.then(|| ProxySettings::Url(Secret::from(written)))
}
