//! The values of one flow: secrets, the grant, kept values, signatures, and every string of its answers, each behind a
//! handle that means nothing elsewhere.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::echo::{Class, EchoFilter};
use super::rules::Rules;
use super::{HANDLES_MAX, Violation};
use crate::keys::hex;
use crate::model::contract::{Holds, SealedValue};
use crate::model::secret::Secret;

/// Marks a handle, so that one is recognised when it stands where text was expected.
const HANDLE_PREFIX: &str = "sealed:";

/// How many bytes of a handle cannot be guessed.
const HANDLE_BYTES: usize = 16;

/// What ends text that was cut.
const CUT: &str = "…";

/// Everything one flow must not give away. `Debug` prints nothing of it.
pub struct Vault {
    pub(super) rules: Arc<Rules>,
    pub(super) echo: EchoFilter,
    pub(super) grant: Option<Secret<String>>,
    pub(super) captured_grant: Option<Secret<String>>,
    secrets: Vec<(String, Secret<String>)>,
    seed: hmac::Key,
    issued: u64,
    sealed: HashMap<String, Sealed>,
}

/// A value behind a handle.
pub(super) struct Sealed {
    pub(super) value: Secret<String>,
    pub(super) origin: Origin,
    /// Whether it is a grant or was made from one.
    pub(super) of_grant: bool,
}

/// Where a sealed value comes from; decides where it may go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The grant held when the flow began.
    Grant,
    /// Kept from an earlier flow.
    Held,
    /// Signed in this flow, with the key of this name.
    Signature(String),
    /// A string of a successful answer of this flow.
    Answer(Holds),
    /// A string of an error answer: no token, whatever its name.
    ErrorAnswer,
}

// === impl Vault ===

impl Vault {
    /// A vault for one flow. `secrets` are this provider's, by name; `seed` is random and used for no other flow.
    pub fn new(
        rules: Arc<Rules>,
        secrets: Vec<(String, Secret<String>)>,
        seed: Secret<[u8; 32]>,
    ) -> Self {
        let mut echo = EchoFilter::default();
        for (_, value) in &secrets {
            echo.add(Class::Secret, value.expose());
        }
        Self {
            rules,
            echo,
            grant: None,
            captured_grant: None,
            secrets,
            seed: hmac::Key::new(hmac::HMAC_SHA256, seed.expose()),
            issued: 0,
            sealed: HashMap::new(),
        }
    }

    /// Seals the grant that the flow presents, or the refresh token it revokes. It may go into auth and body only, and
    /// a request that it is in says so.
    pub fn seal_grant(&mut self, token: &Secret<String>) -> SealedValue {
        self.echo.add(Class::Grant, token.expose());
        self.grant = Some(token.clone());
        self.seal(token.clone(), Origin::Grant, true)
    }

    /// Seals a value kept from an earlier flow, or an access token to be revoked.
    pub fn seal_held(&mut self, value: &Secret<String>) -> SealedValue {
        self.echo.add(Class::Value, value.expose());
        self.seal(value.clone(), Origin::Held, false)
    }

    /// The last refresh token that a successful answer of this flow held and that is not the grant it began with. It
    /// stands even where [`Vault::read`] found a violation in the same answer: a rotation that was received is never
    /// thrown away.
    pub fn captured_grant(&self) -> Option<&Secret<String>> {
        self.captured_grant.as_ref()
    }

    /// Text for operators: values of the flow and everything unprintable taken out, then cut at `max_bytes`. Cut last:
    /// half a value at the edge would not be recognised.
    pub fn filter(&self, text: &str, max_bytes: usize) -> String {
        let mut clean: String = self
            .echo
            .apply(text)
            .chars()
            .map(|c| {
                if c.is_control() || is_direction_mark(c) {
                    ' '
                } else {
                    c
                }
            })
            .collect();
        if clean.len() > max_bytes {
            let room = max_bytes.saturating_sub(CUT.len());
            let end = (0..=room)
                .rev()
                .find(|at| clean.is_char_boundary(*at))
                .unwrap_or(0);
            clean.truncate(end);
            if max_bytes >= CUT.len() {
                clean.push_str(CUT);
            }
        }
        clean
    }

    pub(super) fn seal(
        &mut self,
        value: Secret<String>,
        origin: Origin,
        of_grant: bool,
    ) -> SealedValue {
        self.issued += 1;
        let tag = hmac::sign(&self.seed, &self.issued.to_be_bytes());
        let handle = format!("{HANDLE_PREFIX}{}", hex(&tag.as_ref()[..HANDLE_BYTES]));
        self.sealed.insert(
            handle.clone(),
            Sealed {
                value,
                origin,
                of_grant,
            },
        );
        SealedValue { handle }
    }

    pub(super) fn open(&self, handle: &SealedValue) -> Result<&Sealed, Violation> {
        self.sealed
            .get(&handle.handle)
            .ok_or(Violation::UnknownHandle)
    }

    pub(super) fn is_full(&self) -> bool {
        self.sealed.len() >= HANDLES_MAX
    }

    pub(super) fn secret(&self, name: &str) -> Option<&Secret<String>> {
        self.secrets
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

// === impl Sealed ===

impl Sealed {
    /// What the answer said it is; none for values that came from no successful answer.
    pub(super) fn holds(&self) -> Option<Holds> {
        match self.origin {
            Origin::Answer(holds) => Some(holds),
            _ => None,
        }
    }
}

/// Marks that make a terminal show text in another order than it is written.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
