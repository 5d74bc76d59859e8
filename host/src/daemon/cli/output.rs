//! What commands print: answers on standard output, failures on standard error, each for people or as JSON.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

use super::exit::Failure;

/// How deep a tree is printed for people; answers of the daemon are three deep.
const DEPTH_MAX: usize = 16;

/// Where and how to print.
pub(super) struct Output {
    json: bool,
}

// === impl Output ===

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// An answer: `value` for machines, `text` for people.
    pub(super) fn answer(
        &self,
        value: &Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut line = if self.json { value.to_string() } else { text() };
        line.push('\n');
        self.bytes(line.as_bytes())
    }

    /// Bytes as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // Whoever reads has seen enough, as with `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }

    /// Remarks for people: a machine reads the answer only.
    pub(super) fn remark(&self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// A failure.
    pub(super) fn failure(&self, failure: &Failure) {
        let mut err = io::stderr().lock();
        // Nobody is left to be told when this fails.
        let _ = match self.json {
            true => writeln!(err, "{}", failure.details),
            false => writeln!(err, "{}", failure.message),
        };
    }
}

/// Rows under a heading, aligned.
pub(super) fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(heading.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A JSON tree as indented lines.
pub(super) fn tree(value: &Value) -> String {
    let mut text = String::new();
    grow(&mut text, value, 0);
    text.trim_end().to_owned()
}

fn grow(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut branch = |label: &str, value: &Value| {
        if is_leaf(value) || depth == DEPTH_MAX {
            text.push_str(&format!("{indent}{label} {}\n", leaf(value)));
        } else {
            text.push_str(&format!("{indent}{label}\n"));
            grow(text, value, depth + 1);
        }
    };
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, value)| branch(&format!("{name}:"), value));
        }
        Value::Array(items) => items.iter().for_each(|value| branch("-", value)),
        _ => text.push_str(&leaf(value)),
    }
}

fn is_leaf(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items
            .iter()
            .all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

/// A value on one line; control characters of a string stay escaped, so that no answer can steer a terminal.
pub(super) fn leaf(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(leaf).collect::<Vec<_>>().join(", ")
        }
        Value::Array(_) | Value::Object(_) => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_indented_and_cannot_steer_a_terminal() {
        let value = json!({ "a": 1, "b": { "c": ["x", "y"], "d": "\u{1b}[2J" }, "e": [{ "f": null }], "g": [] });
        let text = tree(&value);
        assert_eq!(
            text,
            "a: 1\nb:\n  c: x, y\n  d: \"\\u001b[2J\"\ne:\n  -\n    f: -\ng: -"
        );
    }

    #[test]
    fn a_table_is_aligned() {
        let text = table(
            &["name", "n"],
            [vec!["a-long-name".to_owned(), "1".to_owned()]],
        );
        assert!(
            text.lines().count() == 2 && text.contains("a-long-name"),
            "{text}"
        );
    }
}
