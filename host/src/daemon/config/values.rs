//! Values that TOML has no type for: durations, shares, secrets, addresses, URLs, and TOML as JSON for plugins.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};
use url::{Host, Url};

use super::walk::{Item, Section};
use crate::model::key::{BadName, NAME_MAX_BYTES, ScopeSet};
use crate::settings::SecretSource;

// === impl Item: scalars ===

impl Item<'_> {
    /// `"10s"`, inside `range`.
    pub(super) fn duration(&self, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let Some(span) = parse_duration(self.string()?) else {
            self.mistake(
                "is no duration",
                "a whole number and a unit: \"500ms\", \"10s\", \"5m\", \"1h\"",
            );
            return None;
        };
        if !range.contains(&span) {
            let (from, to) = (range.start(), range.end());
            self.mistake(
                "is out of range",
                format!("write a duration from {from:?} to {to:?}"),
            );
            return None;
        }
        Some(span)
    }

    /// `"20%"` as 0.2.
    pub(super) fn share(&self) -> Option<f64> {
        let share = parse_share(self.string()?);
        if share.is_none() {
            self.mistake("is no share", "write a percentage from \"0%\" to \"100%\"");
        }
        share
    }

    /// A number, whole or not, inside `range`.
    pub(super) fn number(&self, range: std::ops::RangeInclusive<f64>) -> Option<f64> {
        let number = match self.value() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|number| u32::try_from(number).ok())
                .map(f64::from),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => {
                self.mistake("must be a number", "write it without quotes: 50, or 0.5");
                return None;
            }
        };
        let inside = number.filter(|number| range.contains(number));
        if inside.is_none() {
            let what = format!("must be from {} to {}", range.start(), range.end());
            self.mistake(what, "write a number in that range");
        }
        inside
    }

    /// A path, relative to the file it is written in.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let written = self.string()?;
        if written.is_empty() {
            self.mistake(
                "is empty",
                "write a path, absolute or relative to this file",
            );
            return None;
        }
        Some(self.walk().resolve(written))
    }

    /// A list of scope tokens.
    pub(super) fn scopes(&self) -> Option<ScopeSet> {
        let scopes = self.strings()?;
        self.named(ScopeSet::parse(scopes.iter().map(String::as_str)))
    }

    /// A parsed name, or a note of what is wrong with it.
    pub(super) fn named<T>(&self, parsed: Result<T, BadName>) -> Option<T> {
        parsed
            .map_err(|bad| self.mistake(format!("is no {}", bad.what), bad.fix))
            .ok()
    }

    /// Text that can be a name: of a caller, an operator, a variable.
    pub(super) fn name(&self, what: &str) -> Option<String> {
        let text = self.string()?;
        let good = is_name(text);
        if !good {
            let fix = format!("1 to {NAME_MAX_BYTES} bytes without control characters");
            self.mistake(format!("is no {what}"), fix);
        }
        good.then(|| text.to_owned())
    }

    /// An `https` (or, where allowed, loopback `http`) destination: origin and path, nothing else.
    pub(super) fn destination(&self, insecure_http: bool) -> Option<String> {
        let written = self.string()?;
        match check_destination(written, insecure_http) {
            Ok(()) => Some(written.to_owned()),
            Err((what, fix)) => {
                self.mistake(what, fix);
                None
            }
        }
    }

    /// An address or a block of addresses.
    pub(super) fn address_block(&self) -> Option<String> {
        let written = self.string()?;
        let good = is_address_block(written);
        if !good {
            self.mistake(
                "is no address",
                "write \"10.1.2.3\", \"10.0.0.0/8\" or \"fd00::/8\"",
            );
        }
        good.then(|| written.to_owned())
    }

    // === impl Item: compounds ===

    /// A secret: `{ env = "…" }`, `{ file = "…" }` or `{ value = "…" }`, and nothing else in the table.
    pub(super) fn secret(self) -> Option<SecretSource> {
        let section = secret_section(self)?;
        let source = section.secret_source();
        section.finish();
        source
    }

    /// This value as JSON, for a plugin.
    pub(super) fn json(&self) -> Option<Value> {
        let json = to_json(self.value());
        if json.is_none() {
            self.mistake("holds a number that JSON cannot", "write it as a string");
        }
        json
    }
}

// === impl Section ===

impl Section<'_> {
    /// Exactly one of `env`, `file` and `value`.
    pub(super) fn secret_source(&self) -> Option<SecretSource> {
        let (env, file, value) = (self.take("env"), self.take("file"), self.take("value"));
        if [&env, &file, &value]
            .iter()
            .filter(|source| source.is_some())
            .count()
            != 1
        {
            self.mistake(
                "must say in one way where the secret comes from",
                "{ env = \"NAME\" } or { file = \"path\" }; { value = \"…\" } for development only",
            );
            return None;
        }
        if let Some(item) = env {
            return item.name("name of a variable").map(SecretSource::Env);
        }
        if let Some(item) = file {
            return item.path().map(SecretSource::File);
        }
        let item = value?;
        item.warning(
            "writes a secret into the file; that is for development",
            "move it to { env = \"NAME\" } or { file = \"path\" }",
        );
        item.string().map(|value| SecretSource::Value(value.into()))
    }
}

/// The table of a secret. A bare string gets a fix of its own: it is the mistake that puts secrets into files.
pub(super) fn secret_section(item: Item<'_>) -> Option<Section<'_>> {
    if item.value().is_str() {
        item.mistake(
            "is a secret and must say where it comes from",
            "{ env = \"NAME\" } or { file = \"path\" }",
        );
        return None;
    }
    item.section()
}

/// Whether text can be a name.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn parse_share(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    let plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let share = plain.then(|| number.parse::<f64>().ok())?? / 100.0;
    (0.0..=1.0).contains(&share).then_some(share)
}

fn check_destination(text: &str, insecure_http: bool) -> Result<(), (&'static str, String)> {
    const SHAPE: &str = "write origin and path, such as \"https://login.example/oauth2/token\"";
    let Ok(url) = Url::parse(text) else {
        return Err(("is no URL", SHAPE.to_owned()));
    };
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => return Err(("names no host", SHAPE.to_owned())),
    };
    match url.scheme() {
        "https" => {}
        "http" if insecure_http && loopback => {}
        "http" if loopback => {
            let fix = "set `insecure_http = true` for this provider, or use https";
            return Err(("is plain http", fix.to_owned()));
        }
        _ => return Err(("is not https", SHAPE.to_owned())),
    }
    let bare = url.username().is_empty() && url.password().is_none();
    if !bare || url.query().is_some() || url.fragment().is_some() {
        return Err(("has more than an origin and a path", SHAPE.to_owned()));
    }
    Ok(())
}

fn is_address_block(text: &str) -> bool {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits))
}

fn to_json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => {
            Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok()?;
            Value::Number(serde_json::Number::from_f64(number)?)
        }
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| to_json(item.get_ref()));
            Value::Array(items.collect::<Option<_>>()?)
        }
        DeValue::Table(table) => table_to_json(table)?,
    })
}

/// A TOML table as a JSON object; `None` for numbers that JSON cannot hold.
pub(super) fn table_to_json(table: &DeTable<'_>) -> Option<Value> {
    let mut members = Map::new();
    for (name, value) in table {
        members.insert(
            name.get_ref().clone().into_owned(),
            to_json(value.get_ref())?,
        );
    }
    Some(Value::Object(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let good = [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ];
        for (text, millis) in good {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 s",
            "1m30s",
            "99999999999999999999s",
            "1w",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(parse_share("20%"), Some(0.2));
        assert_eq!(parse_share("0%"), Some(0.0));
        assert_eq!(parse_share("12.5%"), Some(0.125));
        for bad in ["20", "%", "101%", "-1%", "nan%", "inf%", "1e1%"] {
            assert_eq!(parse_share(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_an_origin_and_a_path_is_a_destination() {
        assert!(check_destination("https://a.example/oauth2/token", false).is_ok());
        assert!(check_destination("http://127.0.0.1:9000/t", true).is_ok());
        assert!(check_destination("http://[::1]:9000/t", true).is_ok());
        for bad in [
            "a.example/token",
            "ftp://a.example/",
            "http://a.example/",
            "http://127.0.0.1/",
            "https://u@a.example/",
            "https://u:p@a.example/",
            "https://a.example/?q",
            "https://a.example/#f",
            "unix:/x",
        ] {
            assert!(check_destination(bad, false).is_err(), "{bad}");
        }
        assert!(
            check_destination("http://a.example/", true).is_err(),
            "http off loopback"
        );
    }

    #[test]
    fn address_blocks_have_a_prefix_that_fits() {
        for good in ["10.0.0.1", "10.0.0.0/8", "fd00::/8", "::1"] {
            assert!(is_address_block(good), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "localhost",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(!is_address_block(bad), "{bad}");
        }
    }
}
