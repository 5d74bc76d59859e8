//! Finds leaked secrets: every value that must stay inside is added here, and everything that went outside is searched.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode;

/// A value shorter than this is not searched for: it would be found in innocent text.
pub const SECRET_MIN_BYTES: usize = 8;
/// From this length on, a half of the value is a leak as well.
const HALVES_FROM_BYTES: usize = 2 * SECRET_MIN_BYTES;

/// The secrets of one test, and the search for them. Clones share the list.
#[derive(Clone, Default)]
pub struct Canary(Arc<Mutex<Nest>>);

/// Where a secret was found, without the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leak {
    /// In which form: `raw`, `base64`, `percent`, `hex`, `json`, `bytes`.
    pub form: &'static str,
    /// At which byte of the text (of the decoded text for `percent`).
    pub at: usize,
    /// The how-manieth secret that was added, from 0.
    pub secret: usize,
}

#[derive(Default)]
struct Nest {
    known: HashSet<String>,
    /// Every form of every secret by its first bytes: one pass over a text finds all, however many tokens were issued.
    needles: HashMap<[u8; SECRET_MIN_BYTES], Vec<Needle>>,
}

struct Needle {
    bytes: Vec<u8>,
    form: &'static str,
    secret: usize,
}

// === impl Canary ===

impl Canary {
    /// Knows no secret yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that must never show up; shorter than [`SECRET_MIN_BYTES`] is ignored.
    pub fn add(&self, secret: &str) {
        self.lock().add(secret);
    }

    /// How many secrets are searched for.
    pub fn len(&self) -> usize {
        self.lock().known.len()
    }

    /// Whether there is nothing to search for, and so nothing proven.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first secret in a text: as it is, a half of it, percent-encoded, in base64 at any alignment, in hexadecimal, as
    /// a JSON string, or as a list of bytes.
    pub fn find(&self, text: impl AsRef<[u8]>) -> Option<Leak> {
        let text = text.as_ref();
        let nest = self.lock();
        nest.find(text).or_else(|| {
            let decoded: Vec<u8> = text
                .contains(&b'%')
                .then(|| percent_decode(text).collect())?;
            nest.find(&decoded).map(|leak| Leak {
                form: "percent",
                ..leak
            })
        })
    }

    /// Fails a test whose output holds a secret.
    ///
    /// # Panics
    ///
    /// When one is found; the message names `label`, the form and the place, not the secret.
    #[track_caller]
    pub fn assert_absent(&self, label: &str, text: impl AsRef<[u8]>) {
        if let Some(leak) = self.find(text) {
            panic!(
                "{label} leaks secret number {} ({}, at byte {})",
                leak.secret, leak.form, leak.at
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Nest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canary of {} secrets", self.len())
    }
}

// === impl Nest ===

impl Nest {
    fn add(&mut self, secret: &str) {
        if secret.len() < SECRET_MIN_BYTES || !self.known.insert(secret.to_owned()) {
            return;
        }
        let number = self.known.len() - 1;
        let value = secret.as_bytes();
        let mut add = |form, bytes: Vec<u8>| {
            if let Some(&start) = bytes.first_chunk() {
                self.needles.entry(start).or_default().push(Needle {
                    bytes,
                    form,
                    secret: number,
                });
            }
        };
        add("raw", value.to_vec());
        if value.len() >= HALVES_FROM_BYTES {
            let (first, second) = value.split_at(value.len() / 2);
            add("raw", first.to_vec());
            add("raw", second.to_vec());
        }
        for aligned in 0..3 {
            add("base64", base64_inside(&STANDARD_NO_PAD, value, aligned));
            add("base64", base64_inside(&URL_SAFE_NO_PAD, value, aligned));
        }
        let hex = |upper: bool| -> String {
            value
                .iter()
                .map(|b| {
                    if upper {
                        format!("{b:02X}")
                    } else {
                        format!("{b:02x}")
                    }
                })
                .collect()
        };
        add("hex", hex(false).into_bytes());
        add("hex", hex(true).into_bytes());
        let listed: Vec<String> = value.iter().map(u8::to_string).collect();
        add("bytes", listed.join(", ").into_bytes());
        let escaped = serde_json::Value::from(secret).to_string();
        let escaped = escaped.trim_matches('"');
        if escaped != secret {
            add("json", escaped.as_bytes().to_vec());
        }
    }

    fn find(&self, text: &[u8]) -> Option<Leak> {
        text.windows(SECRET_MIN_BYTES)
            .enumerate()
            .find_map(|(at, window)| {
                let start: &[u8; SECRET_MIN_BYTES] = window.try_into().ok()?;
                let hit = self
                    .needles
                    .get(start)?
                    .iter()
                    .find(|n| text[at..].starts_with(&n.bytes))?;
                Some(Leak {
                    form: hit.form,
                    at,
                    secret: hit.secret,
                })
            })
    }
}

/// The characters that every base64 text shows which holds `value` behind `aligned` other bytes (mod 3).
fn base64_inside(engine: &impl Engine, value: &[u8], aligned: usize) -> Vec<u8> {
    let shifted: Vec<u8> = std::iter::repeat_n(0, aligned)
        .chain(value.iter().copied())
        .collect();
    let text = engine.encode(&shifted).into_bytes();
    // The first and last characters may mix bits of the neighbours.
    let from = [0, 2, 3][aligned];
    let to = text.len() - usize::from(!shifted.len().is_multiple_of(3));
    text[from..to].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SECRET: &str = "s3cr\"et/val+ue=0123456789";

    fn canary() -> Canary {
        let canary = Canary::new();
        canary.add(SECRET);
        canary
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let canary = canary();
        let basic = |user: &str| STANDARD.encode(format!("{user}:{SECRET}"));
        let percent: String = SECRET.bytes().map(|b| format!("%{b:02x}")).collect();
        for (form, text) in [
            ("raw", format!("token={SECRET}&x")),
            ("raw", format!("{}…", &SECRET[..SECRET.len() / 2])),
            ("base64", basic("a")),
            ("base64", basic("ab")),
            ("base64", basic("abc")),
            ("percent", percent),
            ("bytes", format!("{:?}", SECRET.as_bytes())),
            ("json", serde_json::json!({ "k": SECRET }).to_string()),
        ] {
            let found = canary.find(&text);
            assert!(
                found.is_some_and(|leak| leak.form == form || form == "json"),
                "{form}: {found:?}"
            );
        }
    }

    #[test]
    fn innocent_text_is_no_leak() {
        canary().assert_absent("log", "nothing to see: s3cr, dGVzdA==, %73%33");
        assert!(Canary::new().is_empty());
    }

    #[test]
    #[should_panic(expected = "log leaks secret number 0 (raw, at byte 2)")]
    fn a_leak_fails_the_test_without_repeating_it() {
        canary().assert_absent("log", format!("x {SECRET}"));
    }
}
