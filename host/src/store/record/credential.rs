//! A credential, as bytes.

use zeroize::Zeroizing;

use super::bytes::{Malformed, Reading, Writing};
use super::{read_key, write_key};
use crate::model::credential::{Credential, CredentialState, EndCause, Intent, Seen, Version};
use crate::model::key::CredentialKey;
use crate::model::secret::Secret;

/// The layout written here. 1 had no `withdrawn`: there were no tokens to withdraw.
const LAYOUT: u8 = 2;

/// A credential together with whose it is.
pub(in crate::store) fn encode_credential(
    key: &CredentialKey,
    credential: &Credential,
) -> Zeroizing<Vec<u8>> {
    // Taken apart by name: a member added to the model does not compile until it is kept.
    let Credential {
        refresh_token,
        held,
        memo,
        state,
        intent,
        seen,
        spent,
        grant_since,
        withdrawn,
    } = credential;
    let mut out = Writing::new(LAYOUT);
    write_key(&mut out, key);
    out.optional(refresh_token.as_ref(), |out, token| {
        out.text(token.expose())
    });
    out.list(held.iter(), |out, (name, value)| {
        out.text(name);
        out.text(value.expose());
    });
    out.list(memo.iter(), |out, (name, value)| {
        out.text(name);
        out.text(value);
    });
    write_state(&mut out, state);
    out.optional(intent.as_ref(), |out, Intent { owner, at, over_at }| {
        out.raw(owner);
        out.time(*at);
        out.time(*over_at);
    });
    let Seen { stayed, rotated } = *seen;
    out.byte(u8::from(stayed) | u8::from(rotated) << 1);
    out.list(spent.iter(), |out, fingerprint| out.raw(fingerprint));
    out.time(*grant_since);
    out.number(withdrawn.0);
    out.finish()
}

/// What [`encode_credential`] wrote, in this layout or an older one.
pub(in crate::store) fn decode_credential(
    bytes: &[u8],
) -> Result<(CredentialKey, Credential), Malformed> {
    let (layout, mut from) = Reading::new(bytes, LAYOUT)?;
    let key = read_key(&mut from)?;
    let credential = Credential {
        refresh_token: from.optional(|from| from.text().map(Secret::from))?,
        held: from.list(|from| Ok((from.text()?.to_owned(), Secret::from(from.text()?))))?,
        memo: from.list(|from| Ok((from.text()?.to_owned(), from.text()?.to_owned())))?,
        state: read_state(&mut from)?,
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
        withdrawn: match layout {
            1 => Version::default(),
            _ => Version(from.number()?),
        },
    };
    from.end()?;
    Ok((key, credential))
}

fn write_state(out: &mut Writing, state: &CredentialState) {
    match *state {
        CredentialState::Live => out.byte(0),
        CredentialState::Suspended { until } => {
            out.byte(1);
            out.time(until);
        }
        CredentialState::Uncertain { since } => {
            out.byte(2);
            out.time(since);
        }
        CredentialState::ReauthorizationRequired { since, cause } => {
            out.byte(match cause {
                EndCause::Refused => 3,
                EndCause::LostAnswer => 4,
            });
            out.time(since);
        }
        CredentialState::Revoked { at } => {
            out.byte(5);
            out.time(at);
        }
    }
}

fn read_state(from: &mut Reading<'_>) -> Result<CredentialState, Malformed> {
    let tag = from.byte()?;
    let ended = |since, cause| CredentialState::ReauthorizationRequired { since, cause };
    Ok(match tag {
        0 => CredentialState::Live,
        1 => CredentialState::Suspended {
            until: from.time()?,
        },
        2 => CredentialState::Uncertain {
            since: from.time()?,
        },
        3 => ended(from.time()?, EndCause::Refused),
        4 => ended(from.time()?, EndCause::LostAnswer),
        5 => CredentialState::Revoked { at: from.time()? },
        _ => return Err(Malformed),
    })
}
