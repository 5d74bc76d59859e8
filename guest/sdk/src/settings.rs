//! Reads a provider's settings: every mistake at once, each with the pointer to it and what to write instead.
//!
//! A plugin asks for its settings one after the other. The same walk, over an empty table, yields the JSON Schema, so
//! that what a plugin documents is what it reads. Mistakes never repeat a value: it may be a secret in the wrong place.

use serde_json::{Map, Value, json};

use crate::bindings::provider::Mistake;

/// Longest URL of the contract.
const URL_MAX_BYTES: usize = 2048;

/// One `settings` table, and what was found wrong with it.
#[derive(Debug)]
pub struct Table {
    members: Map<String, Value>,
    /// Every setting asked for.
    asked: Vec<&'static str>,
    /// What they should be, where that is what is wanted: every step reads the settings, and has no use for it.
    schema: Option<Schema>,
    mistakes: Vec<Mistake>,
}

/// The members of a JSON Schema that differ from table to table.
#[derive(Debug, Default)]
struct Schema {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

/// One setting; say what it should be.
#[derive(Debug)]
pub struct Setting<'t> {
    table: &'t mut Table,
    name: &'static str,
    about: &'static str,
}

/// One setting, read; say what its absence means.
#[derive(Debug)]
pub struct Read<'t, T> {
    table: &'t mut Table,
    name: &'static str,
    /// None where it is missing or wrong; a wrong one has been reported.
    found: Option<T>,
    present: bool,
    /// Stands in for a value that is missing or wrong while the rest is read; the result is then thrown away.
    placeholder: T,
}

/// Reads `settings` with `read`.
///
/// # Errors
///
/// All mistakes, never none.
pub(crate) fn read<T>(
    settings: &str,
    read: impl FnOnce(&mut Table) -> T,
) -> Result<T, Vec<Mistake>> {
    let Ok(Value::Object(members)) = serde_json::from_str(settings) else {
        return Err(vec![mistake(
            "",
            "the settings are no table",
            "write `settings = { … }`",
        )]);
    };
    let mut table = Table::new(members, None);
    let found = read(&mut table);
    table.refuse_unknown();
    if table.mistakes.is_empty() {
        Ok(found)
    } else {
        Err(table.mistakes)
    }
}

/// The JSON Schema (2020-12) of what `read` asks for.
pub(crate) fn schema<T>(read: impl FnOnce(&mut Table) -> T) -> String {
    let mut table = Table::new(Map::new(), Some(Schema::default()));
    read(&mut table);
    let schema = table.schema.unwrap_or_default();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": schema.properties,
        "required": schema.required,
        "additionalProperties": false,
    })
    .to_string()
}

// === impl Table ===

impl Table {
    fn new(members: Map<String, Value>, schema: Option<Schema>) -> Self {
        Self {
            members,
            asked: Vec::new(),
            schema,
            mistakes: Vec::new(),
        }
    }

    /// Begins to read a setting; `about` says in one line what it is for.
    pub fn setting(&mut self, name: &'static str, about: &'static str) -> Setting<'_> {
        Setting {
            table: self,
            name,
            about,
        }
    }

    /// Reports what no single setting can know: two that exclude each other, one that another needs.
    pub fn mistake(&mut self, at: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.mistakes.push(mistake(at, message, fix));
    }

    fn refuse_unknown(&mut self) {
        let unknown = |name: &&String| !self.asked.contains(&name.as_str());
        for name in self.members.keys().filter(unknown) {
            let hidden = ["secret", "password", "key"]
                .iter()
                .any(|word| name.contains(word));
            let fix = if hidden {
                format!(
                    "secrets go beside the settings: `secrets = {{ {name} = {{ env = \"…\" }} }}`"
                )
            } else {
                let mut known = self.asked.clone();
                known.sort_unstable();
                known.dedup();
                format!("remove it; the settings are {}", known.join(", "))
            };
            self.mistakes.push(mistake(
                &pointer(name),
                format!("there is no setting `{name}`"),
                fix,
            ));
        }
    }
}

// === impl Setting ===

impl<'t> Setting<'t> {
    /// Text that is not empty.
    pub fn text(self) -> Read<'t, String> {
        self.read(
            || json!({"type": "string", "minLength": 1}),
            || "write a text between quotes".into(),
            String::new(),
            |value| nonempty(value).map(str::to_owned),
        )
    }

    /// A name that may be written as text or as a whole number.
    pub fn id(self) -> Read<'t, String> {
        let schema = || json!({"type": ["string", "integer"], "minLength": 1});
        let fix = || "write a text between quotes, or a whole number".into();
        self.read(schema, fix, String::new(), |value| {
            let number = || value.as_u64().map(|number| number.to_string());
            nonempty(value).map(str::to_owned).or_else(number)
        })
    }

    /// An absolute `https` or `http` URL without user, query or fragment.
    pub fn url(self) -> Read<'t, String> {
        let schema = || json!({"type": "string", "format": "uri"});
        let fix = || {
            "write an absolute URL without user, query or fragment: \"https://host/path\"".into()
        };
        self.read(schema, fix, String::new(), |value| {
            value.as_str().filter(|url| is_url(url)).map(str::to_owned)
        })
    }

    /// One of a few words.
    ///
    /// # Panics
    ///
    /// Without choices: a plugin's own mistake, found by its first test.
    pub fn choice<T: Copy>(self, choices: &[(&'static str, T)]) -> Read<'t, T> {
        let words = || -> Vec<&str> { choices.iter().map(|(word, _)| *word).collect() };
        let schema = || json!({"enum": words()});
        let fix = || format!("write one of {}", words().join(", "));
        self.read(schema, fix, choices[0].1, |value| {
            choices
                .iter()
                .find(|(word, _)| value == word)
                .map(|(_, choice)| *choice)
        })
    }

    /// A list of texts that are not empty.
    pub fn texts(self) -> Read<'t, Vec<String>> {
        self.read(
            || json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
            || "write a list of texts: [\"…\"]".into(),
            Vec::new(),
            |value| {
                value
                    .as_array()?
                    .iter()
                    .map(|item| nonempty(item).map(str::to_owned))
                    .collect()
            },
        )
    }

    /// A table of texts, in the order of their names.
    pub fn pairs(self) -> Read<'t, Vec<(String, String)>> {
        self.read(
            || json!({"type": "object", "additionalProperties": {"type": "string"}}),
            || "write a table of texts: { name = \"value\" }".into(),
            Vec::new(),
            |value| {
                let texts = value.as_object()?.iter();
                texts
                    .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                    .collect()
            },
        )
    }

    fn read<T>(
        self,
        schema: impl FnOnce() -> Value,
        fix: impl FnOnce() -> String,
        placeholder: T,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Read<'t, T> {
        let Self { table, name, about } = self;
        let found = table.members.get(name).map(parse);
        if let Some(None) = found {
            table.mistakes.push(mistake(
                &pointer(name),
                format!("`{name}` is not what it should be"),
                fix(),
            ));
        }
        table.asked.push(name);
        if let Some(all) = &mut table.schema {
            let mut property = schema();
            property["description"] = about.into();
            all.properties.insert(name.into(), property);
        }
        let present = found.is_some();
        Read {
            table,
            name,
            found: found.flatten(),
            present,
            placeholder,
        }
    }
}

fn nonempty(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.trim().is_empty())
}

/// A coarse look, for a helpful message; the host parses URLs and decides.
fn is_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let plain = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'@' | b'\\' | b'"' | b'<' | b'>')
    };
    url.len() <= URL_MAX_BYTES
        && rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain)
        })
}

// === impl Read ===

impl<T> Read<'_, T> {
    /// The value; its absence is a mistake.
    pub fn required(self) -> T {
        let Self {
            table,
            name,
            found,
            present,
            placeholder,
        } = self;
        if let Some(all) = &mut table.schema {
            all.required.push(name);
        }
        found.unwrap_or_else(|| {
            if !present {
                let (message, fix) = (format!("`{name}` is missing"), format!("add `{name} = …`"));
                table.mistakes.push(mistake(&pointer(name), message, fix));
            }
            placeholder
        })
    }

    /// The value, or `default`.
    pub fn or(self, default: T) -> T {
        self.found.unwrap_or(default)
    }

    /// The value, where there is one.
    pub fn optional(self) -> Option<T> {
        self.found
    }
}

fn mistake(at: &str, message: impl Into<String>, fix: impl Into<String>) -> Mistake {
    Mistake {
        at: at.into(),
        message: message.into(),
        fix: fix.into(),
    }
}

/// A JSON pointer to a member of the settings (RFC 6901, section 3).
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Everything = (
        String,
        String,
        u8,
        Option<Vec<String>>,
        Vec<(String, String)>,
    );

    fn everything(table: &mut Table) -> Everything {
        (
            table.setting("url", "Where").url().required(),
            table.setting("id", "Who").text().required(),
            table
                .setting("kind", "How")
                .choice(&[("one", 1), ("two", 2)])
                .or(1),
            table.setting("names", "Which").texts().optional(),
            table.setting("params", "With what").pairs().or(Vec::new()),
        )
    }

    fn places(settings: &str) -> Vec<String> {
        let mistakes = read(settings, everything).expect_err("there are mistakes");
        mistakes.into_iter().map(|mistake| mistake.at).collect()
    }

    #[test]
    fn right_settings_are_read() {
        let settings = r#"{"url": "https://a.example/t", "id": "me", "kind": "two", "names": ["x"], "params": {"b": "2", "a": "1"}}"#;
        let pairs = vec![("a".into(), "1".into()), ("b".into(), "2".into())];
        let expected = (
            "https://a.example/t".into(),
            "me".into(),
            2,
            Some(vec!["x".into()]),
            pairs,
        );
        assert_eq!(read(settings, everything), Ok(expected));
        let expected = ("http://[::1]:8080/t".into(), "me".into(), 1, None, vec![]);
        assert_eq!(
            read(r#"{"url": "http://[::1]:8080/t", "id": "me"}"#, everything),
            Ok(expected)
        );
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_each_only_once() {
        assert_eq!(places("{}"), ["/url", "/id"]);
        let settings = r#"{"url": "ftp://a", "id": " ", "kind": "three", "names": "x", "params": {"a": 1}, "a/b~": 0}"#;
        assert_eq!(
            places(settings),
            ["/url", "/id", "/kind", "/names", "/params", "/a~1b~0"]
        );
        for settings in ["", "[]", "null", "{", "7"] {
            assert_eq!(places(settings), [""], "{settings}");
        }
    }

    #[test]
    fn urls_with_more_than_origin_and_path_are_mistakes() {
        for url in [
            "",
            "/token",
            "a.example/token",
            "https://",
            "https:///token",
            "https://u:p@a.example/",
            "https://a/?q=1",
            "https://a/#f",
            "https://a/t oken",
            "https://a/\n",
            "HTTPS:/a",
            "https://ä.example/",
        ] {
            let settings = json!({"url": url, "id": "me"}).to_string();
            assert_eq!(places(&settings), ["/url"], "{url}");
        }
    }

    #[test]
    fn a_secret_among_the_settings_is_named_but_never_repeated() {
        let settings = r#"{"url": "https://a.example", "id": "me", "client_secret": "hunter2", "kind": "hunter2"}"#;
        let mistakes = read(settings, everything).expect_err("a secret is no setting");
        assert!(
            mistakes
                .iter()
                .any(|mistake| mistake.fix.contains("secrets = { client_secret =")),
            "{mistakes:?}"
        );
        assert!(!format!("{mistakes:?}").contains("hunter2"), "{mistakes:?}");
    }

    #[test]
    fn an_id_is_a_text_or_a_whole_number() {
        let id = |value: Value| {
            let settings = json!({ "id": value }).to_string();
            read(&settings, |table| {
                table.setting("id", "Who").id().required()
            })
            .ok()
        };
        assert_eq!(id(json!("a1")).as_deref(), Some("a1"));
        assert_eq!(id(json!(17)).as_deref(), Some("17"));
        for wrong in [json!(-1), json!(1.5), json!(""), json!([17]), json!(null)] {
            assert_eq!(id(wrong), None);
        }
    }

    #[test]
    fn the_schema_documents_what_is_read() {
        let schema: Value = serde_json::from_str(&schema(everything)).expect("a schema is JSON");
        assert_eq!(schema["required"], json!(["url", "id"]));
        assert_eq!(
            schema["properties"]["kind"],
            json!({"enum": ["one", "two"], "description": "How"})
        );
        assert_eq!(schema["properties"].as_object().map(Map::len), Some(5));
    }
}
