//! What `describe` may answer. A plugin that lies about its name or floods the log with a summary is not loaded.

use super::error::{LoadCode, LoadError};
use super::panic_text::printable;
use crate::model::contract::{Description, PluginFault};

const NAME_MAX_BYTES: usize = 64;
const VERSION_MAX_BYTES: usize = 64;
/// A line of a table.
const SUMMARY_MAX_BYTES: usize = 200;
/// Schemas of real plugins are below 4 KiB.
const SCHEMA_MAX_BYTES: usize = 64 << 10;

/// The description, if every field keeps to the contract.
pub(super) fn check(description: Description) -> Result<Description, LoadError> {
    let Description {
        name,
        version,
        summary,
        settings_schema,
    } = &description;
    if !is_name(name) {
        return Err(lie("name", name, "1 to 64 characters of a-z, 0-9 and -"));
    }
    if !is_version(version) {
        return Err(lie(
            "version",
            version,
            "a semantic version such as 1.2.3 or 1.2.3-rc.1",
        ));
    }
    let one_line = !summary.trim().is_empty() && printable(summary, SUMMARY_MAX_BYTES) == *summary;
    if !one_line {
        return Err(lie(
            "summary",
            summary,
            "one line of 1 to 200 bytes of printable text",
        ));
    }
    // An object or a boolean is all that a schema can be (JSON Schema 2020-12, section 4.3).
    let is_schema = settings_schema.len() <= SCHEMA_MAX_BYTES
        && serde_json::from_str::<serde_json::Value>(settings_schema)
            .is_ok_and(|schema| schema.is_object() || schema.is_boolean());
    if !is_schema {
        let asked = "a JSON Schema: one JSON object of at most 64 KiB";
        return Err(lie("settings-schema", settings_schema, asked));
    }
    Ok(description)
}

/// Why a plugin that could not even describe itself is not loaded.
pub(super) fn failed(fault: &PluginFault) -> LoadError {
    let fix = match fault {
        PluginFault::Host(_) => "load it again when the host has room",
        _ => "make it return four constant strings and nothing else",
    };
    let code = match fault {
        PluginFault::Host(_) => LoadCode::Host,
        _ => LoadCode::Describe,
    };
    LoadError::new(code, format!("describe failed: {fault}"), fix)
}

fn lie(field: &str, found: &str, asked: &str) -> LoadError {
    let found = printable(found, 80);
    LoadError::new(
        LoadCode::Describe,
        format!("describe answered a {field} that cannot be: \"{found}\""),
        format!("make it {asked}"),
    )
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Three numbers, then maybe a pre-release and build metadata, as semver.org writes them.
fn is_version(version: &str) -> bool {
    if version.len() > VERSION_MAX_BYTES {
        return false;
    }
    let (rest, build) = split_once(version, '+');
    let (core, pre) = split_once(rest, '-');
    let numbers: Vec<_> = core.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(is_number)
        && pre.is_none_or(|pre| dotted(pre, |part| !all_digits(part) || is_number(part)))
        && build.is_none_or(|build| dotted(build, |_| true))
}

fn split_once(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn dotted(text: &str, also: impl Fn(&str) -> bool) -> bool {
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    text.split('.')
        .all(|part| !part.is_empty() && plain(part) && also(part))
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && all_digits(text) && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn honest() -> Description {
        Description {
            name: "oauth2".into(),
            version: "1.0.0".into(),
            summary: "RFC 6749, and what the field made of it".into(),
            settings_schema: r#"{"type":"object"}"#.into(),
        }
    }

    #[test]
    fn an_honest_description_passes() {
        assert_eq!(check(honest()), Ok(honest()));
    }

    #[test]
    fn each_lie_is_named() {
        let deep = "[".repeat(60_000);
        let lies = [
            (
                "name",
                Description {
                    name: "Acme Corp".into(),
                    ..honest()
                },
            ),
            (
                "name",
                Description {
                    name: String::new(),
                    ..honest()
                },
            ),
            (
                "name",
                Description {
                    name: "a".repeat(65),
                    ..honest()
                },
            ),
            (
                "version",
                Description {
                    version: "latest".into(),
                    ..honest()
                },
            ),
            (
                "summary",
                Description {
                    summary: "two\nlines".into(),
                    ..honest()
                },
            ),
            (
                "summary",
                Description {
                    summary: " ".into(),
                    ..honest()
                },
            ),
            (
                "summary",
                Description {
                    summary: "s".repeat(201),
                    ..honest()
                },
            ),
            (
                "settings-schema",
                Description {
                    settings_schema: "{".into(),
                    ..honest()
                },
            ),
            (
                "settings-schema",
                Description {
                    settings_schema: "7".into(),
                    ..honest()
                },
            ),
            (
                "settings-schema",
                Description {
                    settings_schema: deep,
                    ..honest()
                },
            ),
        ];
        for (field, lie) in lies {
            let error = check(lie).unwrap_err();
            assert_eq!(error.code(), LoadCode::Describe);
            assert!(error.what().contains(&format!("a {field} that")), "{error}");
            assert!(error.to_string().len() < 300);
        }
    }

    #[test]
    fn versions_are_semantic_versions() {
        for good in [
            "0.1.0",
            "1.2.3-rc.1",
            "1.0.0+linux.7",
            "10.20.30-a-b.0+x",
            "1.0.0-0a",
        ] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
        assert!(!is_version(&format!("1.2.3-{}", "a".repeat(64))));
    }
}
