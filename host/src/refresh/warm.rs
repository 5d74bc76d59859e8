//! A token out of the store in place of a request to the issuer: after a restart, or for a key that was evicted and came
//! back. Decides whether a kept token is still good; what does not answer or does not fit is as none.

use std::sync::Arc;

use crate::cache::Slot;
use crate::core::Core;
use crate::model::credential::{Fingerprint, Stored};
use crate::model::event::Event;
use crate::model::key::TokenKey;
use crate::model::token::{AccessToken, TokenRecord};

/// The share of the callers' patience that a look into the store may take: the rest is for the issuer. Not less, for many
/// who come back at once after a restart queue for the disk, and sending them all to the issuer would be no help.
const LOOK_MAX_ONE_IN: u32 = 2;

/// Publishes the token that the store kept for this slot, under its own generation, if it is still good.
pub(super) async fn adopt(core: &Core, slot: &Slot) -> Option<Arc<AccessToken>> {
    if !core.store.durable() {
        return None;
    }
    // Before the record is read, and what it is compared with: a withdrawal from here on keeps the token out.
    let era = slot.era();
    let provider = core.provider(slot.provider())?;
    let patience = provider.settings.refresh.timeout / LOOK_MAX_ONE_IN;
    let key = slot.key();
    let look = find(core, &key, &provider.fingerprint);
    let record = tokio::time::timeout(patience, look).await.ok().flatten()?;
    let token = slot
        .adopt(era, &record.token, record.generation, core.now())
        .ok()?;
    core.watchers.changed(&key);
    core.emit(&Event::TokenAdopted {
        key,
        generation: token.generation(),
        expires: token.expires(),
    });
    Some(token)
}

/// The kept token of a key, if what made it still stands.
async fn find(core: &Core, key: &TokenKey, fingerprint: &Fingerprint) -> Option<TokenRecord> {
    let record = core.store.load_token(key).await.ok().flatten()?;
    // Read last: whoever revokes commits first, and withdraws from memory then.
    let row = core.store.load(&key.credential).await.ok()?;
    is_good(&record, fingerprint, &row).then_some(record)
}

/// Whether a kept token may be served, as far as settings and operators are concerned.
fn is_good(record: &TokenRecord, fingerprint: &Fingerprint, row: &Stored) -> bool {
    record.fingerprint == *fingerprint && record.may_be_kept(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::credential::{Credential, CredentialState, EndCause, Version};
    use crate::model::key::ScopeSet;
    use crate::model::time::UnixTime;
    use crate::model::token::{Generation, ObtainedToken};

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    #[test]
    fn a_kept_token_is_good_while_what_made_it_stands() {
        let record = |obtained_at| TokenRecord {
            token: ObtainedToken {
                value: "t".into(),
                token_type: "Bearer".into(),
                expires: NOW,
                issued: NOW,
                scopes: ScopeSet::default(),
                extra: Vec::new(),
            },
            generation: Generation::first(NOW),
            fingerprint: Fingerprint([1; 32]),
            obtained_at: Version(obtained_at),
        };
        let row = |state, withdrawn| Stored {
            version: Version(9),
            credential: Credential {
                state,
                withdrawn: Version(withdrawn),
                ..Credential::default()
            },
        };
        let live = CredentialState::Live;
        let needs_a_human = CredentialState::ReauthorizationRequired {
            since: NOW,
            cause: EndCause::Refused,
        };
        let table = [
            // Never withdrawn, withdrawn before, at, and after it was obtained.
            (record(0), 1, row(live, 0), true),
            (record(7), 1, row(live, 6), true),
            (record(7), 1, row(live, 7), true),
            (record(7), 1, row(live, 8), false),
            // A grant that failed since, or may be spent, says nothing about the token that it brought.
            (record(7), 1, row(needs_a_human, 6), true),
            (
                record(7),
                1,
                row(CredentialState::Uncertain { since: NOW }, 6),
                true,
            ),
            (
                record(7),
                1,
                row(CredentialState::Revoked { at: NOW }, 6),
                false,
            ),
            (record(7), 2, row(live, 6), false),
            // Its credential began anew: the tenant was shredded.
            (record(10), 1, row(live, 0), false),
        ];
        for (at, (record, fingerprint, row, good)) in table.into_iter().enumerate() {
            let fingerprint = Fingerprint([fingerprint; 32]);
            assert_eq!(is_good(&record, &fingerprint, &row), good, "row {at}");
        }
    }
}
