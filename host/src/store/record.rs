//! How a credential and a plugin are written as bytes, before they are sealed. Its own layout instead of a serializer, so
//! that no secret passes through a buffer that is not zeroed, and so that the layout changes only where this file does.
//!
//! Numbers are little-endian; a length or count is a LEB128 number; a text is its length and its bytes; an optional value
//! is preceded by 0 or 1.

use zeroize::Zeroizing;

use super::KeptPlugin;
use crate::model::credential::{Credential, CredentialState, EndCause, Intent, Seen};
use crate::model::key::{CredentialKey, ProviderName, Subject, Tenant};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;

/// The layout written here, and the only one read: the first byte of every record.
const LAYOUT: u8 = 1;
/// Room for most records, so that few buffers grow.
const USUAL_BYTES: usize = 2048;

/// The bytes are no record of this layout: another version of Keyfob wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A credential together with whose it is.
pub(super) fn encode_credential(
    key: &CredentialKey,
    credential: &Credential,
) -> Zeroizing<Vec<u8>> {
    // Taken apart by name: a member added to the model does not compile until it is kept.
    let CredentialKey {
        tenant,
        provider,
        subject,
    } = key;
    let Credential {
        refresh_token,
        held,
        memo,
        state,
        intent,
        seen,
        spent,
        grant_since,
    } = credential;
    let mut out = Writing::new();
    out.byte(LAYOUT);
    out.text(tenant.as_str());
    out.text(provider.as_str());
    out.optional(subject.as_ref(), |out, subject| out.text(subject.as_str()));
    out.optional(refresh_token.as_ref(), |out, token| {
        out.text(token.expose())
    });
    out.list(held, |out, (name, value)| {
        out.text(name);
        out.text(value.expose());
    });
    out.list(memo, |out, (name, value)| {
        out.text(name);
        out.text(value);
    });
    out.state(state);
    out.optional(intent.as_ref(), |out, Intent { owner, at, over_at }| {
        out.raw(owner);
        out.time(*at);
        out.time(*over_at);
    });
    let Seen { stayed, rotated } = *seen;
    out.byte(u8::from(stayed) | u8::from(rotated) << 1);
    out.list(spent, |out, fingerprint| out.raw(fingerprint));
    out.time(*grant_since);
    out.0
}

/// What [`encode_credential`] wrote.
pub(super) fn decode_credential(bytes: &[u8]) -> Result<(CredentialKey, Credential), Malformed> {
    let mut from = Reading::new(bytes)?;
    let key = CredentialKey {
        tenant: Tenant::parse(from.text()?).map_err(|_| Malformed)?,
        provider: ProviderName::parse(from.text()?).map_err(|_| Malformed)?,
        subject: from.optional(|from| Subject::parse(from.text()?).map_err(|_| Malformed))?,
    };
    let credential = Credential {
        refresh_token: from.optional(|from| from.text().map(Secret::from))?,
        held: from.list(|from| Ok((from.text()?.to_owned(), Secret::from(from.text()?))))?,
        memo: from.list(|from| Ok((from.text()?.to_owned(), from.text()?.to_owned())))?,
        state: from.state()?,
        intent: from.optional(|from| {
            Ok(Intent {
                owner: from.array()?,
                at: from.time()?,
                over_at: from.time()?,
            })
        })?,
        seen: match from.byte()? {
            bits @ 0..4 => Seen {
                stayed: bits & 1 != 0,
                rotated: bits & 2 != 0,
            },
            _ => return Err(Malformed),
        },
        spent: from.list(Reading::array)?,
        grant_since: from.time()?,
    };
    from.end()?;
    Ok((key, credential))
}

/// A plugin together with its place.
pub(super) fn encode_plugin(place: &str, plugin: &KeptPlugin) -> Zeroizing<Vec<u8>> {
    let KeptPlugin {
        instead_of,
        component,
    } = plugin;
    let mut out = Writing::new();
    out.byte(LAYOUT);
    out.text(place);
    out.text(instead_of);
    out.length(component.len());
    out.raw(component);
    out.0
}

/// What [`encode_plugin`] wrote.
pub(super) fn decode_plugin(bytes: &[u8]) -> Result<(String, KeptPlugin), Malformed> {
    let mut from = Reading::new(bytes)?;
    let place = from.text()?.to_owned();
    let instead_of = from.text()?.to_owned();
    let length = from.length()?;
    let component = from.take(length)?.into();
    from.end()?;
    Ok((
        place,
        KeptPlugin {
            instead_of,
            component,
        },
    ))
}

/// Bytes being written; every buffer it outgrows is zeroed.
struct Writing(Zeroizing<Vec<u8>>);

/// Bytes still to be read.
struct Reading<'a>(&'a [u8]);

// === impl Writing ===

impl Writing {
    fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(USUAL_BYTES)))
    }

    fn raw(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // `Vec` would leave the bytes it moves away from behind in freed memory.
            let mut wider = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity())));
            wider.extend_from_slice(&self.0);
            self.0 = wider;
        }
        self.0.extend_from_slice(bytes);
    }

    fn byte(&mut self, byte: u8) {
        self.raw(&[byte]);
    }

    fn length(&mut self, mut length: usize) {
        while length >= 0x80 {
            self.byte((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.byte(length as u8);
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.raw(text.as_bytes());
    }

    fn time(&mut self, time: UnixTime) {
        self.raw(&time.as_millis().to_le_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.length(items.len());
        items.iter().for_each(|item| write(self, item));
    }

    fn state(&mut self, state: &CredentialState) {
        match *state {
            CredentialState::Live => self.byte(0),
            CredentialState::Suspended { until } => {
                self.byte(1);
                self.time(until);
            }
            CredentialState::Uncertain { since } => {
                self.byte(2);
                self.time(since);
            }
            CredentialState::ReauthorizationRequired { since, cause } => {
                self.byte(match cause {
                    EndCause::Refused => 3,
                    EndCause::LostAnswer => 4,
                });
                self.time(since);
            }
            CredentialState::Revoked { at } => {
                self.byte(5);
                self.time(at);
            }
        }
    }
}

// === impl Reading ===

impl<'a> Reading<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut from = Self(bytes);
        (from.byte()? == LAYOUT).then_some(from).ok_or(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let mut length = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = usize::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            length |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(Malformed)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)
    }

    fn time(&mut self) -> Result<UnixTime, Malformed> {
        self.array()
            .map(|bytes| UnixTime::from_millis(u64::from_le_bytes(bytes)))
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed),
        }
    }

    /// Nothing is reserved for a count that was read: it grows by what is really there.
    fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        (0..self.length()?).map(|_| read(self)).collect()
    }

    fn state(&mut self) -> Result<CredentialState, Malformed> {
        let tag = self.byte()?;
        let ended = |since, cause| CredentialState::ReauthorizationRequired { since, cause };
        Ok(match tag {
            0 => CredentialState::Live,
            1 => CredentialState::Suspended {
                until: self.time()?,
            },
            2 => CredentialState::Uncertain {
                since: self.time()?,
            },
            3 => ended(self.time()?, EndCause::Refused),
            4 => ended(self.time()?, EndCause::LostAnswer),
            5 => CredentialState::Revoked { at: self.time()? },
            _ => return Err(Malformed),
        })
    }

    fn end(&self) -> Result<(), Malformed> {
        self.0.is_empty().then_some(()).ok_or(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subject: Option<&str>) -> CredentialKey {
        CredentialKey {
            tenant: Tenant::default(),
            provider: ProviderName::parse("acme").unwrap(),
            subject: subject.map(|subject| Subject::parse(subject).unwrap()),
        }
    }

    fn full(state: CredentialState) -> Credential {
        let time = UnixTime::from_millis;
        Credential {
            refresh_token: Some(Secret::from("grant".repeat(1000).as_str())),
            held: vec![
                ("session".into(), "held value".into()),
                (String::new(), "".into()),
            ],
            memo: vec![("cursor".into(), "17".into())],
            state,
            intent: Some(Intent {
                owner: [9; 16],
                at: time(1),
                over_at: time(u64::MAX),
            }),
            seen: Seen {
                stayed: false,
                rotated: true,
            },
            spent: vec![[1; 32], [2; 32]],
            grant_since: time(1_700_000_000_123),
        }
    }

    /// The states that there are, each once.
    fn states() -> Vec<CredentialState> {
        let time = UnixTime::from_millis(1_700_000_000_456);
        vec![
            CredentialState::Live,
            CredentialState::Suspended { until: time },
            CredentialState::Uncertain { since: time },
            CredentialState::ReauthorizationRequired {
                since: time,
                cause: EndCause::Refused,
            },
            CredentialState::ReauthorizationRequired {
                since: time,
                cause: EndCause::LostAnswer,
            },
            CredentialState::Revoked { at: time },
        ]
    }

    #[test]
    fn every_member_of_a_credential_comes_back() {
        for state in states() {
            let key = key(Some("ada@example"));
            let bytes = encode_credential(&key, &full(state));
            let (whose, back) = decode_credential(&bytes).unwrap();
            assert_eq!(whose, key);
            assert_eq!(back.state, state);
            assert_eq!(
                back.refresh_token.as_ref().unwrap().expose(),
                &"grant".repeat(1000)
            );
            assert_eq!(back.held[0].1.expose(), "held value");
            assert_eq!(back.memo, [("cursor".into(), "17".into())]);
            assert_eq!(back.intent, full(state).intent);
            assert_eq!(
                (back.seen, back.grant_since),
                (full(state).seen, full(state).grant_since)
            );
            assert_eq!(back.spent, [[1; 32], [2; 32]]);
            // And whatever was not compared above is in the bytes.
            assert_eq!(encode_credential(&key, &back), bytes);
        }
    }

    #[test]
    fn no_subject_is_not_an_empty_one() {
        let bytes = encode_credential(&key(None), &Credential::default());
        assert_eq!(decode_credential(&bytes).unwrap().0, key(None));
    }

    #[test]
    fn a_plugin_comes_back() {
        let plugin = KeptPlugin {
            instead_of: "builtin:oauth2".into(),
            component: [0, 1, 255].into(),
        };
        let (place, back) = decode_plugin(&encode_plugin("provider:acme", &plugin)).unwrap();
        assert_eq!(place, "provider:acme");
        assert_eq!(
            (back.instead_of, back.component),
            (plugin.instead_of, plugin.component)
        );
    }

    #[test]
    fn bytes_that_were_cut_or_changed_are_refused_and_never_a_panic() {
        let bytes = encode_credential(&key(Some("ada")), &full(CredentialState::Live));
        for length in 0..bytes.len() {
            assert!(
                decode_credential(&bytes[..length]).is_err(),
                "{length} bytes"
            );
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] = 0xff;
            // May be a text of other letters; must not panic or take memory for a count that is not there.
            let _ = decode_credential(&changed);
            let _ = decode_plugin(&changed);
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode_credential(&longer).is_err());
    }

    #[test]
    fn a_record_of_another_layout_is_refused() {
        let mut bytes = encode_credential(&key(None), &Credential::default()).to_vec();
        bytes[0] = LAYOUT + 1;
        assert_eq!(decode_credential(&bytes).map(|_| ()), Err(Malformed));
    }
}
