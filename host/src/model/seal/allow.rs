//! Where a plugin may send requests: origins with paths, parsed once and then compared by whole segments.
//!
//! A URL is refused unless its raw text already is its normal form, so that no two readers of it (this list, the HTTP
//! client, a proxy, the server) can disagree about where it leads. Which address a name resolves to is `upstream`'s.

use url::{Host, Url};

use super::Violation;

/// The longest URL, in bytes.
pub const URL_MAX_BYTES: usize = 2048;

/// Origins with paths that may be reached.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    written: String,
    url: Url,
    segments: Vec<String>,
}

/// An entry that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// Which one, counted from 0.
    pub index: usize,
    /// As it was written.
    pub entry: String,
    /// What is wrong.
    pub message: &'static str,
    /// What to write.
    pub fix: String,
}

// === impl AllowList ===

impl AllowList {
    /// Reads entries such as `https://login.acme.example/oauth2/token`: that path and everything below it.
    ///
    /// # Errors
    ///
    /// Every entry that is not https (http to loopback only where `insecure_http` says so) or not in normal form.
    pub fn parse(entries: &[String], insecure_http: bool) -> Result<Self, Vec<BadEntry>> {
        let mut parsed = Vec::with_capacity(entries.len());
        let mut bad = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match Entry::parse(entry, insecure_http) {
                Ok(entry) => parsed.push(entry),
                Err((message, fix)) => {
                    bad.push(BadEntry {
                        index,
                        entry: entry.clone(),
                        message,
                        fix,
                    });
                }
            }
        }
        if bad.is_empty() {
            Ok(Self { entries: parsed })
        } else {
            Err(bad)
        }
    }

    /// Whether a parsed URL leads to one of the entries. Its query does not matter.
    pub fn admits(&self, url: &Url) -> bool {
        let plain =
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let Ok(segments) = segments(url.path()) else {
            return false;
        };
        plain
            && self
                .entries
                .iter()
                .any(|entry| entry.covers(url, &segments))
    }

    /// Parses a URL that a plugin wrote, and compares it.
    ///
    /// # Errors
    ///
    /// [`Violation::BadUrl`] when it is not in normal form, [`Violation::Destination`] when it is not granted.
    pub fn check(&self, raw: &str) -> Result<Url, Violation> {
        let url = strict(raw).map_err(|why| Violation::BadUrl { why })?;
        if self.admits(&url) {
            Ok(url)
        } else {
            Err(Violation::Destination { url: url.into() })
        }
    }

    /// The entries as they were written.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| entry.written.as_str())
    }

    /// Whether some URL is admitted by both lists.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.entries.iter().any(|one| other.admits(&one.url))
            || other.entries.iter().any(|one| self.admits(&one.url))
    }

    /// Every entry, its origin, and the paths between: what a token server may call itself.
    pub(super) fn identifiers(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .entries
            .iter()
            .flat_map(|entry| {
                let mut name = entry.url.origin().ascii_serialization();
                std::iter::once(name.clone())
                    .chain(entry.segments.iter().map(move |segment| {
                        name.push('/');
                        name.push_str(segment);
                        name.clone()
                    }))
                    .collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

// === impl Entry ===

impl Entry {
    fn parse(written: &str, insecure_http: bool) -> Result<Self, (&'static str, String)> {
        let url = strict(written).map_err(|why| {
            (
                why,
                "https://HOST/PATH, exactly as the server documents it".to_owned(),
            )
        })?;
        if url.scheme() == "http" && !(insecure_http && is_loopback(&url)) {
            let secure = written.replacen("http:", "https:", 1);
            return Err(if is_loopback(&url) {
                (
                    "plain http",
                    format!("{secure}, or set insecure_http = true"),
                )
            } else {
                ("plain http, which is allowed to loopback only", secure)
            });
        }
        let segments = segments(url.path())
            .map_err(|why| (why, "a path in normal form".to_owned()))?
            .into_iter()
            .map(str::to_owned)
            .collect();
        Ok(Self {
            written: written.to_owned(),
            url,
            segments,
        })
    }

    fn covers(&self, url: &Url, segments: &[&str]) -> bool {
        self.url.scheme() == url.scheme()
            && self.url.host_str() == url.host_str()
            && self.url.port_or_known_default() == url.port_or_known_default()
            && segments.len() >= self.segments.len()
            && self
                .segments
                .iter()
                .zip(segments)
                .all(|(mine, theirs)| mine == theirs)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Parses a URL whose text is its normal form. Only the case of scheme and host, an explicit default port and a missing
/// root path may differ from it.
fn strict(raw: &str) -> Result<Url, &'static str> {
    if raw.len() > URL_MAX_BYTES {
        return Err("it is longer than 2048 bytes");
    }
    if !raw.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "it holds spaces, control or non-ASCII characters (write such a host as xn--…)",
        );
    }
    if raw.contains('\\') {
        return Err("it holds a backslash");
    }
    if raw.contains('#') {
        return Err("it holds a fragment");
    }
    if raw.contains('?') {
        return Err("it holds a query (parameters belong into `query`)");
    }
    let (scheme, rest) = raw.split_once("://").ok_or("it is not absolute")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return Err("it is neither https nor http"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("it holds a user or password");
    }
    segments(path)?;

    let url = Url::parse(raw).map_err(|_| "it is not a URL")?;
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    let path = if path.is_empty() { "/" } else { path };
    if url.as_str() != format!("{scheme}://{authority}{path}") {
        return Err("its host, port or path is not in normal form");
    }
    if url.host_str().is_none_or(|host| host.ends_with('.')) {
        return Err("its host ends with a dot");
    }
    Ok(url)
}

/// The segments of a path in normal form; one slash at the end does not matter.
fn segments(path: &str) -> Result<Vec<&str>, &'static str> {
    if path.contains("//") {
        return Err("its path has an empty segment");
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/')
        .map(|segment| check_segment(segment).map(|()| segment))
        .collect()
}

/// Refuses what some reader would take for a step up, a separator or another spelling.
fn check_segment(segment: &str) -> Result<(), &'static str> {
    // Servlet containers drop what follows a semicolon before they resolve dots.
    let bare = segment.split(';').next().unwrap_or_default();
    if bare == "." || bare == ".." {
        return Err("its path has a dot segment");
    }
    let mut rest = segment.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let digit = |offset: usize| {
            rest.get(at + offset)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        let (Some(high), Some(low)) = (digit(1), digit(2)) else {
            return Err("its path has a broken percent-encoding");
        };
        let byte = high * 16 + low;
        match u8::try_from(byte) {
            Ok(b'/' | b'\\') => return Err("its path has an encoded slash"),
            Ok(b'.') => return Err("its path has an encoded dot"),
            Ok(b'%' | b';') => return Err("its path has an encoded percent sign or semicolon"),
            Ok(byte) if byte.is_ascii_control() => {
                return Err("its path has an encoded control character");
            }
            Ok(byte) if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) => {
                return Err("its path encodes a character that needs none");
            }
            _ => rest = &rest[at + 3..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        AllowList::parse(&entries, true).unwrap()
    }

    #[test]
    fn the_entry_and_what_lies_below_it_is_reached() {
        let list = list(&[
            "https://login.acme.example/token",
            "https://api.example:8443",
            "https://[::1]/x/",
        ]);
        for good in [
            "https://login.acme.example/token",
            "https://login.acme.example/token/",
            "https://login.acme.example/token/sub",
            "HTTPS://LOGIN.acme.example:443/token",
            "https://login.acme.example/token/caf%C3%A9",
            "https://api.example:8443",
            "https://api.example:8443/any/thing",
            "https://[::1]/x",
        ] {
            assert!(list.check(good).is_ok(), "{good}: {:?}", list.check(good));
        }
    }

    #[test]
    fn nothing_else_is() {
        let list = list(&["https://login.acme.example/token"]);
        for bad in [
            "https://login.acme.example/",
            "https://login.acme.example/token2",
            "https://login.acme.example/toke",
            "https://login.acme.example/other",
            "https://login.acme.example:8443/token",
            "http://login.acme.example/token",
            "https://acme.example/token",
            "https://login.acme.example.evil.example/token",
            "https://127.0.0.1/token",
            "https://[::1]/token",
            "https://169.254.169.254/token",
        ] {
            assert!(
                matches!(list.check(bad), Err(Violation::Destination { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_url_that_two_readers_could_read_differently_is_refused_before_it_is_compared() {
        let list = list(&["https://login.acme.example/token"]);
        for bad in [
            "https://login.acme.example/token/../x",
            "https://login.acme.example/token/./x",
            "https://login.acme.example/token/%2e%2e/x",
            "https://login.acme.example/token/%2E/x",
            "https://login.acme.example/token/.%2e/x",
            "https://login.acme.example/token/..;a=b/x",
            "https://login.acme.example/token/..%3b/x",
            "https://login.acme.example/token%2fx",
            "https://login.acme.example/token%5c..%5cx",
            "https://login.acme.example/token/%252e%252e/x",
            "https://login.acme.example/%74oken",
            "https://login.acme.example/token/%00",
            "https://login.acme.example/token/%0d%0a",
            "https://login.acme.example/token/%zz",
            "https://login.acme.example/token/%2",
            "https://login.acme.example/token\\..\\x",
            "https:\\\\login.acme.example\\token",
            "https://login.acme.example//token",
            "https://login.acme.example/token//",
            "https://user@login.acme.example/token",
            "https://user:pass@login.acme.example/token",
            "https://login.acme.example@evil.example/token",
            "https://login.acme.example/token?x=1",
            "https://login.acme.example/token#x",
            "https://login.acme.example./token",
            "https://login.acme.example:/token",
            "https://login.acme.example:0443/token",
            "https://login.%61cme.example/token",
            "https://lögin.acme.example/token",
            "https://login.acme。example/token",
            "https://2130706433/token",
            "https://0x7f.1/token",
            "https://127.1/token",
            "https://[0:0:0:0:0:0:0:1]/token",
            "https:login.acme.example/token",
            "https:///login.acme.example/token",
            "//login.acme.example/token",
            "login.acme.example/token",
            "ftp://login.acme.example/token",
            "file:///etc/passwd",
            "https://login.acme.example/token\r\nX: y",
            " https://login.acme.example/token",
            "https://login.acme.example/to\tken",
            "",
        ] {
            assert!(
                matches!(list.check(bad), Err(Violation::BadUrl { .. })),
                "{bad}: {:?}",
                list.check(bad)
            );
        }
        let long = format!(
            "https://login.acme.example/token/{}",
            "x".repeat(URL_MAX_BYTES)
        );
        assert!(matches!(list.check(&long), Err(Violation::BadUrl { .. })));
    }

    #[test]
    fn plain_http_is_for_loopback_and_only_when_said() {
        let parse = |entry: &str, insecure| AllowList::parse(&[entry.to_owned()], insecure);
        assert!(parse("http://127.0.0.1:9/token", true).is_ok());
        assert!(parse("http://localhost/token", true).is_ok());
        assert!(parse("http://[::1]/token", true).is_ok());
        let fix = |entry, insecure| parse(entry, insecure).unwrap_err().remove(0).fix;
        assert!(fix("http://127.0.0.1/token", false).contains("insecure_http = true"));
        assert_eq!(
            fix("http://acme.example/token", true),
            "https://acme.example/token"
        );
    }

    #[test]
    fn every_bad_entry_is_named() {
        let entries =
            ["https://a.example/x", "nonsense", "https://a.example/../y"].map(str::to_owned);
        let bad = AllowList::parse(&entries, false).unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.index).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_server_may_call_itself_by_any_path_above_its_endpoint() {
        let names = list(&["https://kc.example/realms/x/token"]).identifiers();
        let all = [
            "https://kc.example",
            "https://kc.example/realms",
            "https://kc.example/realms/x",
        ];
        assert!(
            all.iter().all(|name| names.contains(&(*name).to_owned())),
            "{names:?}"
        );
        assert!(!names.contains(&"https://kc.example/realms/y".to_owned()));
    }
}
