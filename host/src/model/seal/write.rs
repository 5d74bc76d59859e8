//! From the shape of a request to the request: every value in its place, if it is granted there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::echo::Class;
use super::read::check_captures;
use super::spot::Spot;
use super::vault::Vault;
use super::violation::shown;
use super::{FIELD_NAME_MAX_BYTES, FIELDS_MAX, REQUEST_MAX_BYTES, SEGMENTS_MAX, Violation};
use crate::model::contract::{
    AnswerFormat, Auth, BasicEncoding, Body, Field, HttpRequest, Segment,
};
use crate::model::secret::Secret;
use crate::model::transport::OutgoingRequest;

/// Headers that the host or its HTTP client writes, and those that would change what a connection is.
const HOST_OWNED_HEADERS: [&str; 13] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a header field costs beside its name and value: `: ` and CRLF.
const HEADER_OVERHEAD_BYTES: usize = 4;

/// Writes one request.
struct Writer<'v> {
    vault: &'v Vault,
    url: Url,
    carries_grant: bool,
    /// Values written: from now on the echo filter knows them.
    used: Vec<Secret<String>>,
    /// How many bytes were written so far, so that no value is repeated without end.
    written: usize,
}

/// A value, and whether a secret or sealed one is in it.
struct Written {
    text: Zeroizing<String>,
    sensitive: bool,
}

// === impl Vault ===

impl Vault {
    /// Writes a request. Knows afterwards what was sent, for the echo filter.
    ///
    /// # Errors
    ///
    /// A [`Violation`] for whatever is not granted, cannot be written, or is too large; nothing is to be sent then.
    pub fn write(&mut self, request: &HttpRequest) -> Result<OutgoingRequest, Violation> {
        let method = method(&request.method)?;
        let url = self.rules.allow.check(&request.url)?;
        check_captures(&request.captures, request.answer)?;
        let written = url.as_str().len();
        let mut writer = Writer {
            vault: self,
            url,
            carries_grant: false,
            used: Vec::new(),
            written,
        };
        let mut headers = writer.headers(&request.headers)?;
        if let Some(auth) = &request.auth {
            headers.insert(AUTHORIZATION, writer.authorization(auth)?);
        }
        let (body, content_type) = writer.body(&request.body)?;
        if let Some(content_type) = content_type {
            headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static(content_type));
        }
        if request.answer == AnswerFormat::Json {
            headers
                .entry(ACCEPT)
                .or_insert(HeaderValue::from_static("application/json"));
        }
        writer.query(&request.query)?;

        let Writer {
            url,
            carries_grant,
            used,
            ..
        } = writer;
        let header_bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES)
            .sum();
        if url.as_str().len() + header_bytes + body.expose().len() > REQUEST_MAX_BYTES {
            return Err(Violation::TooLarge {
                what: "the request",
                max: REQUEST_MAX_BYTES,
            });
        }
        for value in used {
            self.echo.add(Class::Value, value.expose());
        }
        Ok(OutgoingRequest {
            method,
            url,
            headers,
            body,
            carries_grant,
        })
    }
}

// === impl Writer ===

impl Writer<'_> {
    fn headers(&mut self, fields: &[Field]) -> Result<HeaderMap, Violation> {
        check_fields("header", fields)?;
        let mut headers = HeaderMap::with_capacity(fields.len() + 3);
        for field in fields {
            let bad = |why| bad_field("header", &field.name, why);
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| bad("is no header name"))?;
            if is_host_owned(name.as_str()) {
                return Err(bad("belongs to the host"));
            }
            let value = self.value(&field.value, Spot::Header(&field.name))?;
            let mut line = header_value(&value.text)
                .ok_or_else(|| bad("holds a line break, a control or a non-ASCII character"))?;
            line.set_sensitive(value.sensitive);
            if headers.insert(name, line).is_some() {
                return Err(bad("is there twice"));
            }
        }
        Ok(headers)
    }

    fn authorization(&mut self, auth: &Auth) -> Result<HeaderValue, Violation> {
        let bad = |why| bad_field("auth", "Authorization", why);
        let line = match auth {
            Auth::Bearer(token) => {
                let token = self.value(token, Spot::Auth)?.text;
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(bad("needs a token of visible ASCII characters"));
                }
                Zeroizing::new(format!("Bearer {}", *token))
            }
            Auth::Basic {
                user,
                password,
                encoding,
            } => {
                let user = self.value(user, Spot::Auth)?.text;
                let password = self.value(password, Spot::Auth)?.text;
                let credentials = match encoding {
                    BasicEncoding::Form => Zeroizing::new(format!(
                        "{}:{}",
                        *form_encoded(&user),
                        *form_encoded(&password)
                    )),
                    BasicEncoding::Raw if user.contains(':') => {
                        return Err(bad(
                            "has a user with a colon, which only encoding `form` can carry",
                        ));
                    }
                    BasicEncoding::Raw => Zeroizing::new(format!("{}:{}", *user, *password)),
                };
                if credentials.chars().any(char::is_control) {
                    return Err(bad("holds a control character"));
                }
                let encoded = STANDARD.encode(credentials.as_bytes());
                let line = Zeroizing::new(format!("Basic {encoded}"));
                self.used.push(Secret::new(encoded));
                line
            }
        };
        let mut line = header_value(&line).ok_or_else(|| bad("cannot be a header"))?;
        line.set_sensitive(true);
        Ok(line)
    }

    fn body(&mut self, body: &Body) -> Result<(Secret<Vec<u8>>, Option<&'static str>), Violation> {
        let (mut text, content_type) = match body {
            Body::None => return Ok((Secret::new(Vec::new()), None)),
            Body::Form(fields) => (self.form(fields)?, "application/x-www-form-urlencoded"),
            Body::Json(segments) => (self.json(segments)?, "application/json"),
            Body::Text(segments) => (
                self.value(segments, Spot::Text)?.text,
                "text/plain; charset=utf-8",
            ),
        };
        Ok((
            Secret::new(std::mem::take(&mut *text).into_bytes()),
            Some(content_type),
        ))
    }

    fn form(&mut self, fields: &[Field]) -> Result<Zeroizing<String>, Violation> {
        check_fields("form", fields)?;
        let mut body = Zeroizing::new(String::new());
        for field in fields {
            let value = self.value(&field.value, Spot::Form(&field.name))?;
            let encoded = form_encoded(&value.text);
            // Exactly as much more as is needed: a growing buffer leaves copies of what it held.
            let mut longer = Zeroizing::new(String::with_capacity(
                body.len() + encoded.len() + 3 * field.name.len() + 2,
            ));
            longer.push_str(&body);
            if !longer.is_empty() {
                longer.push('&');
            }
            longer.extend(form_urlencoded::byte_serialize(field.name.as_bytes()));
            longer.push('=');
            longer.push_str(&encoded);
            body = longer;
        }
        Ok(body)
    }

    /// Literals are source; a value becomes one quoted string, which must stand where a string may.
    fn json(&mut self, segments: &[Segment]) -> Result<Zeroizing<String>, Violation> {
        check_segments(segments)?;
        let bad = |why| Violation::JsonBody { why };
        let mut source = Zeroizing::new(String::new());
        let mut scan = StringScan::default();
        for segment in segments {
            if let Segment::Literal(text) = segment {
                scan.over(text);
                self.count(text.len())?;
                source.push_str(text);
                continue;
            }
            if scan.inside {
                return Err(bad(
                    "has a value inside a quoted string: end the string before it",
                ));
            }
            let value = self.value(std::slice::from_ref(segment), Spot::Json)?;
            let quoted = serde_json::to_string(value.text.as_str())
                .map_err(|_| bad("has a value that cannot be quoted"))?;
            source.push_str(&Zeroizing::new(quoted));
        }
        match serde_json::from_str::<serde::de::IgnoredAny>(&source) {
            Ok(_) => Ok(source),
            Err(_) => Err(bad("is not one JSON document")),
        }
    }

    fn query(&mut self, fields: &[Field]) -> Result<(), Violation> {
        check_fields("query", fields)?;
        for field in fields {
            let spot = Spot::Query(&field.name);
            for segment in &field.value {
                match segment {
                    Segment::Literal(_) => {}
                    Segment::Secret(name) => {
                        return Err(Violation::SecretPlace {
                            secret: shown(name),
                            place: spot.place(),
                        });
                    }
                    Segment::Sealed(_) => {
                        return Err(Violation::SealedPlace {
                            place: spot.place(),
                        });
                    }
                }
            }
            let value = self.value(&field.value, spot)?;
            self.url
                .query_pairs_mut()
                .append_pair(&field.name, &value.text);
        }
        Ok(())
    }

    /// The concatenation of segments.
    fn value(&mut self, segments: &[Segment], spot: Spot<'_>) -> Result<Written, Violation> {
        check_segments(segments)?;
        let mut pieces: Vec<&str> = Vec::with_capacity(segments.len());
        let mut sensitive = false;
        for segment in segments {
            let (piece, used) = match segment {
                Segment::Literal(text) => (text.as_str(), None),
                Segment::Secret(name) => {
                    let value = self.vault.secret_at(name, spot, &self.url)?;
                    (value.expose().as_str(), Some(value))
                }
                Segment::Sealed(handle) => {
                    let (value, of_grant) = self.vault.sealed_at(handle, spot, Some(&self.url))?;
                    self.carries_grant |= of_grant;
                    (value.expose().as_str(), Some(value))
                }
            };
            self.count(piece.len())?;
            sensitive |= used.is_some();
            self.used.extend(used.cloned());
            pieces.push(piece);
        }
        Ok(Written {
            text: Zeroizing::new(pieces.concat()),
            sensitive,
        })
    }

    fn count(&mut self, bytes: usize) -> Result<(), Violation> {
        self.written = self.written.saturating_add(bytes);
        if self.written > REQUEST_MAX_BYTES {
            return Err(Violation::TooLarge {
                what: "the request",
                max: REQUEST_MAX_BYTES,
            });
        }
        Ok(())
    }
}

/// Whether JSON source stands inside a quoted string.
#[derive(Default)]
struct StringScan {
    inside: bool,
    escaped: bool,
}

// === impl StringScan ===

impl StringScan {
    fn over(&mut self, source: &str) {
        for byte in source.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.inside => self.escaped = true,
                b'"' => self.inside = !self.inside,
                _ => {}
            }
        }
    }
}

/// Whether the host writes this header itself; `name` in lower case.
pub(super) fn is_host_owned(name: &str) -> bool {
    HOST_OWNED_HEADERS.contains(&name) || name.starts_with("proxy-")
}

fn method(name: &str) -> Result<Method, Violation> {
    [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ]
    .into_iter()
    .find(|method| method.as_str() == name)
    .ok_or(Violation::Method)
}

/// A header value of printable ASCII, spaces and tabs.
fn header_value(text: &str) -> Option<HeaderValue> {
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
    text.bytes()
        .all(printable)
        .then(|| HeaderValue::from_str(text).ok())?
}

fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    encoded.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    encoded
}

fn check_fields(what: &'static str, fields: &[Field]) -> Result<(), Violation> {
    if fields.len() > FIELDS_MAX {
        return Err(Violation::TooLarge {
            what,
            max: FIELDS_MAX,
        });
    }
    match fields
        .iter()
        .find(|field| !(1..=FIELD_NAME_MAX_BYTES).contains(&field.name.len()))
    {
        Some(field) => Err(bad_field(
            what,
            &field.name,
            "has a name that is empty or longer than 128 bytes",
        )),
        None => Ok(()),
    }
}

fn check_segments(segments: &[Segment]) -> Result<(), Violation> {
    if segments.len() > SEGMENTS_MAX {
        return Err(Violation::TooLarge {
            what: "segments of one value",
            max: SEGMENTS_MAX,
        });
    }
    Ok(())
}

fn bad_field(what: &'static str, name: &str, why: &'static str) -> Violation {
    Violation::Field {
        what,
        name: shown(name),
        why,
    }
}
