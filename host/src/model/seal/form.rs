//! Form answers (`application/x-www-form-urlencoded`), which a few early OAuth servers still send: the same rules as for
//! JSON, one level deep.

use url::form_urlencoded;

use super::json::{Findings, TOKEN_MEMBERS, holds, is_readable};
use super::read::Found;
use super::vault::Vault;
use crate::model::contract::{Capture, Holds};
use crate::model::secret::Secret;

/// Members in order, duplicates included.
pub(super) type Members = Vec<(String, String)>;

/// Reads a form; none when the text is something else, such as JSON or HTML.
pub(super) fn parse(text: &str) -> Option<Members> {
    let text = text.trim();
    let looks_right = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"<>\"{}".contains(&byte))
        && text.split('&').all(|pair| {
            pair.split_once('=')
                .is_some_and(|(name, _)| !name.is_empty())
        });
    looks_right.then(|| {
        form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect()
    })
}

/// Finds tokens, and what `captures` name.
pub(super) fn find(members: &Members, captures: &[Capture]) -> Findings {
    let wanted = captures
        .iter()
        .map(|capture| (capture.at.as_str(), holds(&capture.at, capture)))
        .chain(
            TOKEN_MEMBERS
                .into_iter()
                .filter(|(name, _)| !captures.iter().any(|capture| capture.at == *name)),
        );
    let mut findings = Findings {
        error: named(members, "error").next().is_some(),
        ..Findings::default()
    };
    for (name, holds) in wanted {
        let mut values = named(members, name);
        let Some(first) = values.next() else { continue };
        findings.duplicate = findings.duplicate.or_else(|| twice(members));
        if values.all(|other| other == first) {
            let value = (!first.is_empty()).then(|| Secret::new(first.to_owned()));
            findings.found.push(Found {
                at: name.to_owned(),
                holds,
                value,
            });
        }
    }
    findings
}

/// Writes a form again, fit for a plugin to read.
pub(super) fn show(
    vault: &mut Vault,
    members: Members,
    found: &[Found],
    success: bool,
) -> Result<String, &'static str> {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (name, value) in members {
        let token = TOKEN_MEMBERS.iter().any(|(token, _)| *token == name);
        let captured = found
            .iter()
            .find(|found| found.at == name)
            .map(|found| found.holds);
        let readable = is_readable(&name) || vault.rules.readable.contains(&name);
        let shown = if value.is_empty() || (captured.is_none() && !token && (readable || !success))
        {
            vault.echo.apply(&value).into_owned()
        } else if vault.is_full() {
            return Err("too_many");
        } else {
            vault
                .seal_member(value, captured.unwrap_or(Holds::Other), success)
                .handle
        };
        out.append_pair(&vault.echo.apply(&name), &shown);
    }
    Ok(out.finish())
}

fn named<'a>(members: &'a Members, name: &'a str) -> impl Iterator<Item = &'a str> {
    members
        .iter()
        .filter(move |(own, _)| own == name)
        .map(|(_, value)| value.as_str())
}

fn twice(members: &Members) -> Option<String> {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].to_owned())
}
