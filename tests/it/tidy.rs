//! The house rules that a machine can check: which room may name what, how long a file is, how it begins.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code in a file before its tests: beyond the ninetieth percentile of trees that are a joy to read. Comments and
/// empty lines are free, so that nobody saves on them.
const FILE_MAX_LINES: usize = 420;

/// Folders that hold no source of ours.
const SKIPPED: [&str; 4] = ["target", "node_modules", ".git", "fixtures"];

/// Something that may not be named everywhere in the host.
struct Rule {
    named: &'static [&'static str],
    rooms: Rooms,
    why: &'static str,
}

/// Where a rule lets something be named.
enum Rooms {
    Only(&'static [&'static str]),
    AllBut(&'static str),
}

const RULES: [Rule; 6] = [
    Rule {
        named: &["wasmtime::", "use wasmtime"],
        rooms: Rooms::Only(&["wasm/"]),
        why: "the sandbox is one room: its types stop at the door",
    },
    Rule {
        named: &["reqwest::", "use reqwest"],
        rooms: Rooms::Only(&["upstream/", "daemon/", "testing/"]),
        why: "upstream is the only way out",
    },
    Rule {
        named: &["axum::", "use axum", "clap::", "use clap"],
        rooms: Rooms::Only(&["daemon/", "testing/"]),
        why: "the library has no server and no command line",
    },
    Rule {
        named: &["SystemTime::now"],
        rooms: Rooms::Only(&["model/time.rs"]),
        why: "ask the Clock",
    },
    Rule {
        named: &["std::env::", "use std::env", " env::var"],
        rooms: Rooms::Only(&["daemon/", "main.rs"]),
        why: "only the daemon reads the environment",
    },
    Rule {
        named: &[
            "tokio::",
            "use tokio",
            "async fn",
            "std::fs",
            "std::net::Tcp",
            "tracing::",
        ],
        rooms: Rooms::AllBut("model/"),
        why: "the model decides and does nothing: no waiting, no files, no sockets, no logs",
    },
];

/// Words that say a thing is not finished. Split, so that this file has none of them.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("db", "g!("),
    concat!("to", "do!("),
];

/// A source file of ours.
struct Source {
    /// From the repository's root, with forward slashes.
    path: String,
    text: String,
}

// === impl Rooms ===

impl Rooms {
    fn allow(&self, file: &str) -> bool {
        match self {
            Self::Only(rooms) => rooms.iter().any(|room| file.starts_with(room)),
            Self::AllBut(room) => !file.starts_with(room),
        }
    }
}

// === impl Source ===

impl Source {
    /// Everything before the tests at the end of the file.
    fn code(&self) -> &str {
        const TESTS: &str = "#[cfg(test)]\nmod ";
        let starts = self.text.match_indices(TESTS).map(|(at, _)| at);
        let inline = |&at: &usize| {
            let declared = self.text[at + TESTS.len()..].lines().next();
            declared.is_some_and(|line| line.ends_with('{'))
        };
        starts
            .into_iter()
            .find(inline)
            .map_or(&self.text, |at| &self.text[..at])
    }

    /// Lines of code with their numbers, comments and empty lines left out.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .code()
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
    }

    /// Whether it holds nothing but tests.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs"
            || name.ends_with("_tests.rs")
            || self.path.starts_with("tests/it/")
            || self.path.contains("/tests/")
    }
}

#[test]
fn every_room_names_only_what_belongs_there() {
    let mut found = Vec::new();
    for source in sources() {
        let Some(room) = source.path.strip_prefix("host/src/") else {
            continue;
        };
        if source.is_test() {
            continue;
        }
        for rule in RULES.iter().filter(|rule| !rule.rooms.allow(room)) {
            for (number, line) in source.lines() {
                if let Some(named) = rule.named.iter().find(|named| line.contains(**named)) {
                    found.push(format!("{}:{number}: `{named}`: {}", source.path, rule.why));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_file_opens_with_what_lives_in_it() {
    let silent = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "));
    let silent: Vec<_> = silent.map(|source| source.path).collect();
    assert!(silent.is_empty(), "no head comment: {silent:#?}");
}

#[test]
fn no_file_is_longer_than_one_likes_to_read() {
    let lengths = sources().into_iter().filter(|source| !source.is_test());
    let lengths = lengths.map(|source| (source.lines().count(), source.path));
    let long: Vec<_> = lengths
        .filter(|(lines, _)| *lines > FILE_MAX_LINES)
        .collect();
    assert!(
        long.is_empty(),
        "over {FILE_MAX_LINES} lines before the tests: {long:#?}"
    );
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            found.extend(
                UNFINISHED
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{}: {word}", source.path, number + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_lint_that_is_silenced_says_why() {
    let mut found = Vec::new();
    for source in sources() {
        for start in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in source.text.match_indices(start) {
                let line_start = source.text[..at]
                    .rfind('\n')
                    .map_or(0, |newline| newline + 1);
                let attribute = source.text[line_start..at].trim().is_empty();
                let whole = source.text[at..].split(")]").next().unwrap_or_default();
                if attribute && !whole.contains("reason") {
                    let number = source.text[..at].matches('\n').count() + 1;
                    found.push(format!("{}:{number}: {whole})]", source.path));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_cut_before_the_tests_is_where_they_begin() {
    let text = "//! x\n#[cfg(test)]\nmod tests;\nfn f() {}\n#[cfg(test)]\nmod more {\n}\n";
    let source = Source {
        path: "x.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(
        source.code(),
        "//! x\n#[cfg(test)]\nmod tests;\nfn f() {}\n"
    );
    assert_eq!(source.lines().count(), 3);
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is a folder of the workspace");
    let mut paths = Vec::new();
    walk(root, &mut paths);
    let found: Vec<_> = paths.iter().map(|path| read(root, path)).collect();
    assert!(found.len() > 20, "the tree has files: {}", found.len());
    found
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree can be listed") {
        let path = entry.expect("an entry of the tree can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&path, paths);
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> Source {
    let below = path.strip_prefix(root).expect("found below the root");
    let text = fs::read_to_string(path).expect("a source file is text");
    Source {
        path: below.to_string_lossy().replace('\\', "/"),
        text,
    }
}
