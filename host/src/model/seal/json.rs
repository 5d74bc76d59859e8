//! JSON answers: finds the members a request captures, and writes the document again with every other string behind a
//! handle. Numbers keep their text; nothing is parsed into a number, so nothing is rounded.

use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ANSWER_MAX_DEPTH;
use super::echo::{ANY, REDACTED};
use super::read::Found;
use super::vault::{Origin, Vault};
use crate::model::contract::{Capture, Holds, SealedValue};
use crate::model::secret::Secret;

/// Members of RFC 6749, section 5.1, and OpenID Connect that hold a token wherever they stand.
pub(super) const TOKEN_MEMBERS: [(&str, Holds); 3] = [
    ("access_token", Holds::AccessToken),
    ("refresh_token", Holds::RefreshToken),
    ("id_token", Holds::IdToken),
];

/// Members at the top of a successful answer that stay readable (RFC 6749, section 5.1), and those that begin with
/// [`ERROR_PREFIX`].
const READABLE_MEMBERS: [&str; 3] = ["token_type", "scope", "expires_in"];

/// Servers that report errors in a successful answer name them so (RFC 6749, section 5.2).
const ERROR_PREFIX: &str = "error";

/// What was found in an answer before anything is shown.
#[derive(Default)]
pub(super) struct Findings {
    /// Captured members and tokens.
    pub(super) found: Vec<Found>,
    /// A member named twice beside one of them.
    pub(super) duplicate: Option<String>,
    /// Whether the answer names an error at its top.
    pub(super) error: bool,
}

/// How a value is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    /// As it is, after the echo filter.
    Plain,
    /// Strings as handles.
    Sealed,
    /// Strings and numbers as handles: a token, or something captured.
    Hidden(Holds),
}

/// One pass over a document.
struct Pass<'a> {
    vault: &'a mut Vault,
    found: &'a [Found],
    success: bool,
    /// Where the pass stands: a JSON pointer.
    path: String,
    out: String,
}

/// A value whose members, if it is an object, are read already: the top of a document is looked into many times.
struct Level<'d> {
    raw: &'d RawValue,
    members: Option<Vec<(String, &'d RawValue)>>,
}

/// Why a document cannot be shown; a note of the contract.
type Note = &'static str;

/// Reads a document; none when it is not JSON.
pub(super) fn parse(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// Finds tokens at the top, and what `captures` name.
pub(super) fn find(document: &RawValue, captures: &[Capture]) -> Findings {
    let mut findings = Findings::default();
    let top = Level::new(document);
    for capture in captures {
        let name = capture.at.rsplit('/').next().unwrap_or_default();
        findings.look(&top, &capture.at, holds(name, capture));
    }
    for (name, holds) in TOKEN_MEMBERS {
        let pointer = pointer_of(name);
        if !captures.iter().any(|capture| capture.at == pointer) {
            findings.look(&top, &pointer, holds);
        }
    }
    findings.error = top.names_error();
    findings
}

/// Whether a document names an error at its top, as RFC 6749, section 5.2 does.
pub(super) fn names_error(document: &RawValue) -> bool {
    Level::new(document).names_error()
}

/// Writes a document again, fit for a plugin to read.
pub(super) fn show(
    vault: &mut Vault,
    document: &RawValue,
    found: &[Found],
    success: bool,
) -> Result<String, Note> {
    let out = String::with_capacity(document.get().len());
    let mut pass = Pass {
        vault,
        found,
        success,
        path: String::new(),
        out,
    };
    let show = if success { Show::Sealed } else { Show::Plain };
    let show = pass.granted(show);
    pass.value(document, show, 0)?;
    Ok(pass.out)
}

/// A member's name as a JSON pointer (RFC 6901); what already is one stays.
pub(super) fn pointer_of(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("/{}", escape(name))
    }
}

/// Whether `at` is a JSON pointer.
pub(super) fn is_pointer(at: &str) -> bool {
    let escapes_end_well = at
        .split('~')
        .skip(1)
        .all(|after| after.starts_with('0') || after.starts_with('1'));
    (at.is_empty() || at.starts_with('/')) && escapes_end_well
}

/// What a captured member of this name holds: `refresh_token` is a grant, whatever a plugin calls it.
pub(super) fn holds(name: &str, capture: &Capture) -> Holds {
    if name == "refresh_token" {
        Holds::RefreshToken
    } else {
        capture.holds
    }
}

/// Whether a member at the top of a successful answer is readable in every provider.
pub(super) fn is_readable(name: &str) -> bool {
    READABLE_MEMBERS.contains(&name) || name.starts_with(ERROR_PREFIX)
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

// === impl Level ===

impl<'d> Level<'d> {
    fn new(raw: &'d RawValue) -> Self {
        let members = members(raw);
        Self { raw, members }
    }

    fn names_error(&self) -> bool {
        let mut members = self.members.iter().flatten();
        members.any(|(name, value)| name == "error" && string(value).is_some())
    }
}

// === impl Findings ===

impl Findings {
    fn look(&mut self, top: &Level<'_>, pointer: &str, holds: Holds) {
        let mut duplicate = None;
        let mut deeper;
        let mut at = top;
        for token in pointer.split('/').skip(1) {
            let name = token.replace("~1", "/").replace("~0", "~");
            let step = match &at.members {
                Some(members) => {
                    let mut named = members
                        .iter()
                        .filter(|(own, _)| *own == name)
                        .map(|(_, value)| *value);
                    let first = named.next();
                    // Two members of one name with two values: neither can be trusted to be the one the issuer means.
                    let same =
                        named.all(|other| first.is_some_and(|first| first.get() == other.get()));
                    duplicate = duplicate.or_else(|| twice(members));
                    if !same {
                        self.duplicate = duplicate;
                        return;
                    }
                    first
                }
                None => {
                    elements(at.raw).and_then(|all| all.get(name.parse::<usize>().ok()?).copied())
                }
            };
            let Some(next) = step else { return };
            deeper = Level::new(next);
            at = &deeper;
        }
        self.duplicate = self.duplicate.take().or(duplicate);
        let value = string(at.raw)
            .filter(|text| !text.is_empty())
            .map(Secret::new);
        self.found.push(Found {
            at: pointer.to_owned(),
            holds,
            value,
        });
    }
}

// === impl Pass ===

impl Pass<'_> {
    fn value(&mut self, raw: &RawValue, show: Show, depth: usize) -> Result<(), Note> {
        if depth > ANSWER_MAX_DEPTH {
            return Err("too_deep");
        }
        match raw.get().as_bytes().first() {
            Some(b'{') => self.object(raw, show, depth),
            Some(b'[') => self.array(raw, show, depth),
            Some(b'"') => {
                let text = string(raw).ok_or("not_json")?;
                match show {
                    Show::Plain => self.plain(&text),
                    Show::Sealed => self.handle(text, Holds::Other)?,
                    Show::Hidden(holds) => self.handle(text, holds)?,
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                match show {
                    Show::Hidden(_) => self.handle(raw.get().to_owned(), Holds::Other)?,
                    _ if self.vault.echo.holds(&ANY, raw.get()) => self.string(REDACTED),
                    _ => self.out.push_str(raw.get()),
                }
                Ok(())
            }
            _ => {
                self.out.push_str(raw.get());
                Ok(())
            }
        }
    }

    fn object(&mut self, raw: &RawValue, show: Show, depth: usize) -> Result<(), Note> {
        self.out.push('{');
        for (index, (name, value)) in members(raw).ok_or("not_json")?.into_iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.plain(&name);
            self.out.push(':');
            self.step(&escape(&name), |pass| {
                let show = pass.child(&name, show, depth);
                pass.value(value, show, depth + 1)
            })?;
        }
        self.out.push('}');
        Ok(())
    }

    fn array(&mut self, raw: &RawValue, show: Show, depth: usize) -> Result<(), Note> {
        self.out.push('[');
        for (index, value) in elements(raw).ok_or("not_json")?.into_iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.step(&index.to_string(), |pass| {
                let show = pass.granted(show);
                pass.value(value, show, depth + 1)
            })?;
        }
        self.out.push(']');
        Ok(())
    }

    fn step(
        &mut self,
        token: &str,
        then: impl FnOnce(&mut Self) -> Result<(), Note>,
    ) -> Result<(), Note> {
        let before = self.path.len();
        self.path.push('/');
        self.path.push_str(token);
        then(self)?;
        self.path.truncate(before);
        Ok(())
    }

    /// How a member is shown, given how its object is. A token that nobody captured stays hidden, and what it is decides
    /// where it may go.
    fn child(&self, name: &str, parent: Show, depth: usize) -> Show {
        let token = TOKEN_MEMBERS
            .iter()
            .find(|(token, _)| *token == name)
            .map(|(_, holds)| *holds);
        match (self.granted(parent), token) {
            (Show::Hidden(Holds::Other) | Show::Plain | Show::Sealed, Some(Holds::AccessToken)) => {
                Show::Hidden(Holds::Other)
            }
            (Show::Hidden(Holds::Other) | Show::Plain | Show::Sealed, Some(holds)) => {
                Show::Hidden(holds)
            }
            (Show::Sealed, None) if depth == 0 && is_readable(name) => Show::Plain,
            (show, _) => show,
        }
    }

    /// How the value at `path` is shown, given how what holds it is: captured is hidden, readable is plain.
    fn granted(&self, parent: Show) -> Show {
        if let Some(found) = self.found.iter().find(|found| found.at == self.path) {
            return Show::Hidden(found.holds);
        }
        match parent {
            Show::Sealed
                if self
                    .vault
                    .rules
                    .readable
                    .iter()
                    .any(|one| pointer_of(one) == self.path) =>
            {
                Show::Plain
            }
            Show::Hidden(_) => Show::Hidden(Holds::Other),
            show => show,
        }
    }

    fn plain(&mut self, text: &str) {
        let clean = self.vault.echo.apply(text).into_owned();
        self.string(&clean);
    }

    fn string(&mut self, text: &str) {
        self.out
            .push_str(&serde_json::Value::from(text).to_string());
    }

    /// An empty string stays: it hides nothing, and "no token" must be readable.
    fn handle(&mut self, text: String, holds: Holds) -> Result<(), Note> {
        if text.is_empty() {
            self.out.push_str("\"\"");
            return Ok(());
        }
        if self.vault.is_full() {
            return Err("too_many");
        }
        let sealed = self.vault.seal_member(text, holds, self.success);
        self.string(&sealed.handle);
        Ok(())
    }
}

/// An object's members in order, duplicates included.
fn members(raw: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(member) = map.next_entry()? {
                all.push(member);
            }
            Ok(all)
        }
    }

    if !raw.get().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_map(Members)
        .ok()
}

fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn twice(members: &[(String, &RawValue)]) -> Option<String> {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].to_owned())
}

// === impl Vault ===

impl Vault {
    /// Seals one string of an answer.
    pub(super) fn seal_member(&mut self, text: String, holds: Holds, success: bool) -> SealedValue {
        if holds != Holds::Other {
            self.echo.add(holds.into(), &text);
        }
        let origin = if success {
            Origin::Answer(holds)
        } else {
            Origin::ErrorAnswer
        };
        self.seal(Secret::new(text), origin, holds == Holds::RefreshToken)
    }
}
