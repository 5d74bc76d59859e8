//! How credentials stand, one and many: what operators see of them, which is never a grant.

use super::Broker;
use super::status::{CredentialFilter, CredentialPage, CredentialStatus, IntentStatus};
use crate::model::contract::Rotation;
use crate::model::credential::{CredentialState, Stored};
use crate::model::error::Error;
use crate::model::key::CredentialKey;
use crate::model::time::UnixTime;

/// The most credentials of one page: a third of a megabyte as JSON.
pub const CREDENTIALS_PAGE_MAX: usize = 1_000;
/// The most rows that are looked at for one page: each is read and opened, and whoever filters for what is rare must get an
/// answer before they give up. Then the page says where to go on.
const LOOKED_AT_MAX: usize = 10_000;
/// How many rows are held at once on the way: about a megabyte.
const STRIDE: usize = 500;

// === impl Broker ===

impl Broker {
    /// At most `limit` credentials that match, after the one of a key; at most [`CREDENTIALS_PAGE_MAX`]. A page that names
    /// where to go on may be short, or empty.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn credentials(
        &self,
        filter: &CredentialFilter,
        after: Option<CredentialKey>,
        limit: usize,
    ) -> Result<CredentialPage, Error> {
        let limit = limit.clamp(1, CREDENTIALS_PAGE_MAX);
        let (mut page, mut last) = (CredentialPage::default(), after);
        for _ in 0..LOOKED_AT_MAX / STRIDE {
            let scanned = self.0.store.scan(last.as_ref(), STRIDE).await;
            let scanned = scanned.map_err(|fault| self.unreachable(&fault.0))?;
            page.damaged += scanned.damaged;
            let is_last = scanned.rows.len() < STRIDE;
            for (key, stored) in scanned.rows {
                if page.credentials.len() == limit {
                    page.next = last;
                    return Ok(page);
                }
                if filter.takes(&key, &stored) {
                    let standing = self.standing(&key, &stored);
                    page.credentials.push((key.clone(), standing));
                }
                last = Some(key);
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = last;
        Ok(page)
    }

    /// How a credential stands.
    pub(super) fn standing(&self, key: &CredentialKey, stored: &Stored) -> CredentialStatus {
        let declared = self.0.provider(&key.provider);
        let declared = declared.map_or(Rotation::Unknown, |provider| provider.rotation().0);
        let undurable = self.0.unsaved.holds(key);
        CredentialStatus::of(stored, declared, undurable)
    }
}

// === impl CredentialFilter ===

impl CredentialFilter {
    fn takes(&self, key: &CredentialKey, stored: &Stored) -> bool {
        let CredentialFilter {
            tenant,
            provider,
            state,
        } = self;
        tenant.as_ref().is_none_or(|tenant| *tenant == key.tenant)
            && provider
                .as_ref()
                .is_none_or(|provider| *provider == key.provider)
            && state.is_none_or(|state| state == stored.credential.state.label())
    }
}

// === impl CredentialStatus ===

impl CredentialStatus {
    fn of(stored: &Stored, declared: Rotation, undurable: bool) -> Self {
        let credential = &stored.credential;
        let (cause, since) = match credential.state {
            CredentialState::Live => (None, credential.grant_since),
            CredentialState::Suspended { until } => (
                Some(format!("until {}", until.as_secs())),
                UnixTime::default(),
            ),
            CredentialState::Uncertain { since } => (Some("lost_answer".to_owned()), since),
            CredentialState::ReauthorizationRequired { since, cause } => {
                (Some(cause.label().to_owned()), since)
            }
            CredentialState::Revoked { at } => (Some("operator".to_owned()), at),
        };
        let grant = credential.refresh_token.as_ref();
        Self {
            state: credential.state.label(),
            cause,
            since: since.as_secs(),
            version: stored.version.0,
            grant_since: grant.map(|_| credential.grant_since.as_secs()),
            rotates: credential.seen.rotation(declared),
            undurable,
            intent: credential.intent.map(|intent| IntentStatus {
                since: intent.at.as_secs(),
                until: intent.over_at.as_secs(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::model::credential::{Credential, EndCause, Intent, Seen, Version};
    use crate::model::key::{ProviderName, Subject, Tenant};
    use crate::model::secret::Secret;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    fn status(declared: Rotation, credential: Credential) -> serde_json::Value {
        let stored = Stored {
            version: Version(7),
            credential,
        };
        serde_json::to_value(CredentialStatus::of(&stored, declared, false)).unwrap()
    }

    fn granted() -> Credential {
        Credential {
            refresh_token: Some(Secret::from("hunter2")),
            grant_since: UnixTime::from_secs(100),
            ..Credential::default()
        }
    }

    #[test]
    fn a_status_says_everything_but_the_grant() {
        let at = UnixTime::from_secs(200);
        let intent = Some(Intent {
            owner: [1; 16],
            at,
            over_at: UnixTime::from_secs(215),
        });
        let state = CredentialState::Uncertain { since: at };
        let told = status(
            Rotation::SingleUse,
            Credential {
                intent,
                state,
                ..granted()
            },
        );
        let expected = serde_json::json!({
            "state": "uncertain", "cause": "lost_answer", "since": 200, "version": 7, "grant_since": 100,
            "rotates": "single_use", "undurable": false, "intent": { "since": 200, "until": 215 },
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_seen_of_a_rotation_counts_where_nothing_was_declared() {
        let (rotated, stayed) = (
            Seen {
                rotated: true,
                stayed: true,
            },
            Seen {
                rotated: false,
                stayed: true,
            },
        );
        for (declared, seen, told) in [
            (Rotation::Unknown, Seen::default(), "unknown"),
            (Rotation::Unknown, stayed, "never"),
            (Rotation::Unknown, rotated, "single_use"),
            (Rotation::Never, rotated, "never"),
            (Rotation::Grace, rotated, "grace"),
            (Rotation::SingleUse, stayed, "single_use"),
        ] {
            let told_now = status(declared, Credential { seen, ..granted() });
            assert_eq!(told_now["rotates"], told, "{declared:?} {seen:?}");
        }
    }

    #[test]
    fn an_ended_credential_has_its_cause_and_no_age() {
        let since = UnixTime::from_secs(9);
        let cause = EndCause::Refused;
        let state = CredentialState::ReauthorizationRequired { since, cause };
        let told = status(Rotation::Unknown, Credential { state, ..granted() });
        assert_eq!(
            (&told["cause"], &told["since"]),
            (&"refused".into(), &9.into())
        );
        let state = CredentialState::Revoked { at: since };
        let gone = Credential {
            state,
            ..Credential::default()
        };
        let told = status(Rotation::Unknown, gone);
        assert_eq!(told["state"], "revoked");
        assert!(told["grant_since"].is_null() && told["intent"].is_null());
    }

    fn key(number: usize) -> CredentialKey {
        CredentialKey {
            tenant: Tenant::default(),
            provider: ProviderName::parse("acme").unwrap(),
            subject: Subject::parse(&format!("{number:06}")).ok(),
        }
    }

    #[tokio::test]
    async fn a_rare_one_is_found_in_bounded_steps_and_every_one_once() {
        const MANY: usize = LOOKED_AT_MAX + 2 * STRIDE + 1;
        let store = Arc::new(MemoryStore::new());
        let dead = CredentialState::Revoked {
            at: UnixTime::from_secs(1),
        };
        for number in 0..MANY {
            let mut credential = granted();
            if number + 1 == MANY {
                credential.state = dead;
            }
            store
                .commit(&key(number), Version(0), credential)
                .await
                .unwrap();
        }
        let broker = Broker::builder().store(store).build().await.unwrap();
        let revoked = CredentialFilter {
            state: Some("revoked"),
            ..CredentialFilter::default()
        };
        let first = broker.credentials(&revoked, None, 10).await.unwrap();
        assert_eq!(
            (first.credentials.len(), &first.next),
            (0, &Some(key(LOOKED_AT_MAX - 1)))
        );
        let second = broker.credentials(&revoked, first.next, 10).await.unwrap();
        assert_eq!((second.credentials.len(), second.next), (1, None));

        let (mut seen, mut after) = (0, None);
        loop {
            let page = broker
                .credentials(&CredentialFilter::default(), after, usize::MAX)
                .await;
            let page = page.unwrap();
            assert!(page.credentials.len() <= CREDENTIALS_PAGE_MAX);
            for (at, (found, _)) in page.credentials.iter().enumerate() {
                assert_eq!(*found, key(seen + at));
            }
            seen += page.credentials.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, MANY);
    }
}
