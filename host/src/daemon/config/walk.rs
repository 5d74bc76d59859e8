//! A walk over parsed TOML that never stops at a mistake: every accessor notes what is wrong, with its line, and goes
//! on. A section knows which keys were asked for, so that the list of known keys is never written twice.
//!
//! Messages name keys, types and positions, and values only of keys that hold no secret.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, did_you_mean};

/// The file, and everything found wrong with it so far.
pub(super) struct Walk<'t> {
    file: &'t Path,
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

/// A table under a name.
pub(super) struct Section<'t> {
    walk: &'t Walk<'t>,
    table: &'t DeTable<'t>,
    path: String,
    line: usize,
    asked: RefCell<Vec<&'static str>>,
}

/// A value under a name.
pub(super) struct Item<'t> {
    walk: &'t Walk<'t>,
    value: &'t DeValue<'t>,
    path: String,
    line: usize,
}

// === impl Walk ===

impl<'t> Walk<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self {
            file,
            text,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn file(&self) -> &'t Path {
        self.file
    }

    /// The whole document as a section.
    pub(super) fn root(&'t self, table: &'t DeTable<'t>) -> Section<'t> {
        Section {
            walk: self,
            table,
            path: String::new(),
            line: 1,
            asked: RefCell::default(),
        }
    }

    /// The line that holds this byte, from 1.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Notes a mistake.
    pub(super) fn mistake(&self, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.mistakes
            .borrow_mut()
            .push(self.note(line, what.into(), fix.into()));
    }

    /// Notes a warning.
    pub(super) fn warning(&self, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.warnings
            .borrow_mut()
            .push(self.note(line, what.into(), fix.into()));
    }

    /// A path as written, relative to the file it is written in.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// How many mistakes there are so far.
    pub(super) fn mistakes(&self) -> usize {
        self.mistakes.borrow().len()
    }

    /// Mistakes and warnings, each in the order of the file.
    pub(super) fn finish(&self) -> (Vec<Mistake>, Vec<Mistake>) {
        let sorted = |notes: &RefCell<Vec<Mistake>>| {
            let mut notes = notes.take();
            notes.sort_by_key(|note| note.line);
            notes
        };
        (sorted(&self.mistakes), sorted(&self.warnings))
    }

    fn note(&self, line: usize, what: String, fix: String) -> Mistake {
        Mistake {
            file: self.file.to_owned(),
            line: Some(line),
            what,
            fix,
        }
    }
}

// === impl Section ===

impl<'t> Section<'t> {
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The value under this key, if it is written.
    pub(super) fn take(&self, key: &'static str) -> Option<Item<'t>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some(self.item(name, value))
    }

    /// The value under this key; a mistake that shows `example` if it is missing.
    pub(super) fn require(&self, key: &'static str, example: &str) -> Option<Item<'t>> {
        let item = self.take(key);
        if item.is_none() {
            let what = format!("{} has no `{key}`", self.name());
            self.walk
                .mistake(self.line, what, format!("add `{key} = {example}`"));
        }
        item
    }

    /// The whole table as JSON, for a plugin.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        super::values::table_to_json(self.table).or_else(|| {
            self.mistake("holds a number that JSON cannot", "write it as a string");
            None
        })
    }

    /// Every entry: for tables whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, Item<'t>)> {
        self.table
            .iter()
            .map(|(name, value)| (name.get_ref().as_ref(), self.item(name, value)))
    }

    /// The subtable under this key, if it is written and a table.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'t>> {
        self.take(key)?.section()
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table {
            let written = name.get_ref().as_ref();
            if asked.contains(&written) {
                continue;
            }
            let fix = match did_you_mean(written, asked.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known keys: {}", asked.join(", ")),
            };
            let what = format!("unknown key `{}` in {}", shown(written), self.name());
            self.walk
                .mistake(self.walk.line_of(name.span().start), what, fix);
        }
    }

    /// Notes a mistake of the table as a whole.
    pub(super) fn mistake(&self, what: impl Into<String>, fix: impl Into<String>) {
        self.walk
            .mistake(self.line, format!("{} {}", self.name(), what.into()), fix);
    }

    /// Notes a warning about the table as a whole.
    pub(super) fn warning(&self, what: impl Into<String>, fix: impl Into<String>) {
        self.walk
            .warning(self.line, format!("{} {}", self.name(), what.into()), fix);
    }

    fn name(&self) -> String {
        if self.path.is_empty() {
            "the file".to_owned()
        } else {
            format!("[{}]", self.path)
        }
    }

    fn item(
        &self,
        name: &'t Spanned<std::borrow::Cow<'t, str>>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Item<'t> {
        let dot = if self.path.is_empty() { "" } else { "." };
        Item {
            walk: self.walk,
            value: value.get_ref(),
            path: format!("{}{dot}{}", self.path, shown(name.get_ref())),
            line: self.walk.line_of(name.span().start),
        }
    }
}

// === impl Item ===

impl<'t> Item<'t> {
    pub(super) fn walk(&self) -> &'t Walk<'t> {
        self.walk
    }

    pub(super) fn value(&self) -> &'t DeValue<'t> {
        self.value
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Notes that this value is wrong; the message does not repeat the value.
    pub(super) fn mistake(&self, what: impl AsRef<str>, fix: impl Into<String>) {
        self.walk
            .mistake(self.line, format!("`{}` {}", self.path, what.as_ref()), fix);
    }

    /// Notes a warning about this value.
    pub(super) fn warning(&self, what: impl AsRef<str>, fix: impl Into<String>) {
        self.walk
            .warning(self.line, format!("`{}` {}", self.path, what.as_ref()), fix);
    }

    pub(super) fn string(&self) -> Option<&'t str> {
        let text = self.value.as_str();
        self.or_wrong(text, "a string", "\"…\"")
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.or_wrong(self.value.as_bool(), "true or false", "true")
    }

    /// A whole number inside `range`.
    pub(super) fn integer(&self, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let written = self.or_wrong(self.value.as_integer(), "a whole number", "1")?;
        let number = i64::from_str_radix(written.as_str(), written.radix()).ok();
        let inside = number.filter(|number| range.contains(number));
        if inside.is_none() {
            let what = format!("must be from {} to {}", range.start(), range.end());
            self.mistake(what, "write a number in that range");
        }
        inside
    }

    pub(super) fn section(self) -> Option<Section<'t>> {
        let table = self.or_wrong(self.value.as_table(), "a table", "{ … }")?;
        let Self {
            walk, path, line, ..
        } = self;
        Some(Section {
            walk,
            table,
            path,
            line,
            asked: RefCell::default(),
        })
    }

    /// The elements of an array, each with its own line.
    pub(super) fn array(&self) -> Option<Vec<Item<'t>>> {
        let array = self.or_wrong(self.value.as_array(), "a list", "[…]")?;
        let element = |(at, value): (usize, &'t Spanned<DeValue<'t>>)| Item {
            walk: self.walk,
            value: value.get_ref(),
            path: format!("{}[{at}]", self.path),
            line: self.walk.line_of(value.span().start),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A list of strings; elements that are none are noted and left out.
    pub(super) fn strings(&self) -> Option<Vec<String>> {
        let items = self.array()?;
        Some(
            items
                .iter()
                .filter_map(Item::string)
                .map(str::to_owned)
                .collect(),
        )
    }

    /// One word of a closed set.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let written = self.string()?;
        let found = words.iter().find(|(word, _)| *word == written);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let fix = match did_you_mean(written, known.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("write one of: {}", known.join(", ")),
            };
            self.mistake("is none of the known words", fix);
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// `value`, or a note that something else was expected.
    fn or_wrong<T>(&self, value: Option<T>, expected: &str, example: &str) -> Option<T> {
        if value.is_none() {
            let found = self.value.type_str();
            let article = if found.starts_with(['a', 'i', 'o']) {
                "an"
            } else {
                "a"
            };
            self.mistake(
                format!("must be {expected}, found {article} {found}"),
                format!("write it as {example}"),
            );
        }
        value
    }
}

/// A key as it is shown: bare where TOML allows it, else quoted, and never longer than a line.
fn shown(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(bare) {
        return key.to_owned();
    }
    format!("{:?}", key.chars().take(64).collect::<String>())
}
