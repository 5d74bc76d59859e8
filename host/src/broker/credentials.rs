//! What operators do to credentials: hand a grant over, look, revoke.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::status::{CredentialStatus, ImportError, ImportOutcome, RevokeOutcome};
use crate::model::contract::Holds;
use crate::model::credential::{
    Credential, CredentialState, EndCause, Seen, Stored, Version, fingerprint,
};
use crate::model::error::{Error, ErrorKind, Retry};
use crate::model::event::Event;
use crate::model::flow::spend;
use crate::model::key::CredentialKey;
use crate::model::secret::Secret;
use crate::model::token::AccessToken;
use crate::revoke;
use crate::store::CommitFault;

/// The most access tokens of one credential that an issuer is told of one by one; the rest end by themselves, and all are
/// gone from here.
const TOLD_MAX: usize = 16;
/// How often a change is decided again because a refresh committed in between: each refresh commits a few times.
const CONFLICTS_MAX: usize = 16;
/// How often it is looked whether a commit that was not answered happened, before an operator is told that nobody knows.
const UNANSWERED_LOOKS: usize = 4;
/// Before each of these looks: together as long as a flow tries.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(150);
/// The longest that handing the same grant over again waits for the end of the attempt before it. A longer one is a flow's own.
const LATE_WAIT_MAX: Duration = Duration::from_secs(3);

// === impl Broker ===

impl Broker {
    /// Hands a grant over. Takes effect at once, from every state. Idempotent: the grant in force is a no-op.
    ///
    /// # Errors
    ///
    /// [`ImportError::AlreadySpent`] for a grant that was replaced here before.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn import_credential(
        &self,
        key: CredentialKey,
        refresh_token: Secret<String>,
        by: &str,
    ) -> Result<ImportOutcome, ImportError> {
        let (broker, by) = (self.clone(), by.to_owned());
        let import = async move { broker.import(key, refresh_token, &by).await };
        let done = self.0.spawn(import).await;
        done.unwrap_or_else(|_| Err(ImportError::Failed(self.busy())))
    }

    async fn import(
        &self,
        key: CredentialKey,
        refresh_token: Secret<String>,
        by: &str,
    ) -> Result<ImportOutcome, ImportError> {
        let core = &self.0;
        if core.provider(&key.provider).is_none() {
            return Err(ImportError::UnknownProvider);
        }
        let mark = fingerprint(&core.seeds.fingerprints, &refresh_token);
        let outcome = ImportOutcome {
            durable: core.store.durable(),
            unchanged: false,
        };
        for _ in 0..CONFLICTS_MAX {
            let Stored {
                version,
                credential,
            } = self.load(&key).await.map_err(ImportError::Failed)?;
            let same = credential
                .refresh_token
                .as_ref()
                .is_some_and(|held| held.same_as(&refresh_token));
            if same && credential.state == CredentialState::Live {
                return Ok(ImportOutcome {
                    unchanged: true,
                    ..outcome
                });
            }
            if !same && credential.spent.contains(&mark) {
                return Err(ImportError::AlreadySpent);
            }
            let mut spent = credential.spent;
            if same {
                // It is presented anew, and its last request may still arrive.
                let left = credential
                    .intent
                    .map_or(Duration::ZERO, |intent| intent.over_at.since(core.now()));
                if left > LATE_WAIT_MAX {
                    return Err(ImportError::Failed(self.under_way(left)));
                }
                tokio::time::sleep(left).await;
            } else if let Some(replaced) = &credential.refresh_token
                && (credential.intent.is_some() || in_doubt(credential.state))
            {
                // It may have been spent: handed over again later, it is not to pass for a new one.
                spend(&mut spent, fingerprint(&core.seeds.fingerprints, replaced));
            }
            let next = Credential {
                refresh_token: Some(refresh_token.clone()),
                grant_since: core.now(),
                spent,
                seen: if same {
                    credential.seen
                } else {
                    Seen::default()
                },
                withdrawn: Version(version.0 + 1),
                ..Credential::default()
            };
            match self.commit(&key, version, credential.state, next, by).await {
                Ok(true) => {
                    self.withdraw(&key);
                    if !outcome.durable {
                        core.emit(&Event::Notice {
                            code: "not_durable",
                            detail: format!(
                                "the grant of {}, {} (tenant {}) is kept in memory only: a restart forgets it",
                                key.provider,
                                key.subject.as_ref().map_or("its own account", |it| it.as_str()),
                                key.tenant
                            ),
                        });
                    }
                    return Ok(outcome);
                }
                Ok(false) => {}
                Err(error) => return Err(ImportError::Failed(error)),
            }
        }
        Err(ImportError::Failed(self.busy()))
    }

    /// The state of a credential; `None` when it was never seen.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn credential(&self, key: &CredentialKey) -> Result<Option<CredentialStatus>, Error> {
        let stored = self.load(key).await?;
        let known = stored.version > Version::default();
        Ok(known.then(|| self.standing(key, &stored)))
    }

    /// Ends a credential: its tokens are gone from memory at once, then the issuer is told.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached: nothing was revoked then.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn revoke_credential(
        &self,
        key: &CredentialKey,
        by: &str,
    ) -> Result<RevokeOutcome, Error> {
        let (broker, key, by) = (self.clone(), key.clone(), by.to_owned());
        let revoke = async move { broker.revoke(&key, &by).await };
        self.0
            .spawn(revoke)
            .await
            .unwrap_or_else(|_| Err(self.busy()))
    }

    async fn revoke(&self, key: &CredentialKey, by: &str) -> Result<RevokeOutcome, Error> {
        let core = &self.0;
        for _ in 0..CONFLICTS_MAX {
            let Stored {
                version,
                mut credential,
            } = self.load(key).await?;
            let was = credential.state;
            let grant = credential.refresh_token.take();
            if let Some(grant) = &grant {
                let mark = fingerprint(&core.seeds.fingerprints, grant);
                spend(&mut credential.spent, mark);
            }
            let next = Credential {
                state: CredentialState::Revoked { at: core.now() },
                spent: credential.spent,
                withdrawn: Version(version.0 + 1),
                ..Credential::default()
            };
            if self.commit(key, version, was, next, by).await? {
                let tokens = self.withdraw(key);
                let Some(provider) = core.provider(&key.provider) else {
                    return Ok(RevokeOutcome { upstream: false });
                };
                let raw: Vec<_> = tokens
                    .iter()
                    .map(|token| Secret::from(token.raw()))
                    .collect();
                let mut doomed: Vec<_> = raw
                    .iter()
                    .map(|token| (token, Holds::AccessToken))
                    .take(TOLD_MAX)
                    .collect();
                // The grant first: at most issuers that ends its access tokens too.
                doomed.splice(0..0, grant.iter().map(|grant| (grant, Holds::RefreshToken)));
                let mut told = !doomed.is_empty();
                for (token, holds) in doomed {
                    told &= revoke::upstream(core, &provider, key, token, holds).await;
                }
                return Ok(RevokeOutcome { upstream: told });
            }
        }
        Err(self.busy())
    }

    pub(super) async fn load(&self, key: &CredentialKey) -> Result<Stored, Error> {
        self.0
            .load(key)
            .await
            .map_err(|fault| self.unreachable(&fault.0))
    }

    /// True when it was committed, false when somebody else was first.
    pub(super) async fn commit(
        &self,
        key: &CredentialKey,
        expected: Version,
        was: CredentialState,
        next: Credential,
        by: &str,
    ) -> Result<bool, Error> {
        let state = next.state;
        let mut committed = self.0.store.commit(key, expected, next.clone()).await;
        // One that was not answered may have happened all the same, and then is not to be given up for one that did not.
        for _ in 0..UNANSWERED_LOOKS {
            if !matches!(committed, Err(CommitFault::Unreachable(_))) {
                break;
            }
            tokio::time::sleep(UNANSWERED_PAUSE).await;
            if let Ok(row) = self.0.store.load(key).await {
                committed = match row.is_made_of(expected, &next) {
                    true => Ok(row.version),
                    false if row.version == expected => {
                        self.0.store.commit(key, expected, next.clone()).await
                    }
                    false => Err(CommitFault::Conflict),
                };
            }
        }
        match committed {
            Ok(version) => {
                self.0.emit(&Event::CredentialChanged {
                    key: key.clone(),
                    was,
                    state,
                    version,
                    by: by.to_owned(),
                });
                Ok(true)
            }
            Err(CommitFault::Conflict) => Ok(false),
            Err(CommitFault::Unreachable(detail)) => Err(self.unreachable(&detail)),
        }
    }

    /// Takes every token of a credential out of callers' hands, and lets nobody join the flights that were obtaining one
    /// with the grant that no longer counts. Returns the tokens.
    fn withdraw(&self, key: &CredentialKey) -> Vec<Arc<AccessToken>> {
        let core = &self.0;
        core.unsaved.hurry();
        let slots = core.cache.slots_of(key);
        let tokens = slots.iter().filter_map(|slot| slot.current()).collect();
        for slot in slots {
            core.flights.disown(&slot.id());
            slot.withdraw();
            core.watchers.changed(&slot.key());
            slot.clear_failure();
        }
        tokens
    }

    pub(super) fn unreachable(&self, detail: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            Retry::After(Duration::from_secs(1)),
            "the store cannot be reached",
            format!("the store: {detail}"),
            self.0.correlation(),
        )
    }

    fn under_way(&self, left: Duration) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            Retry::After(left),
            "another attempt with this grant may still be under way",
            "its last presentation is not over yet",
            self.0.correlation(),
        )
    }

    fn busy(&self) -> Error {
        self.unreachable("the credential changed under every attempt")
    }
}

/// Whether the last presentation of its grant got no answer.
fn in_doubt(state: CredentialState) -> bool {
    matches!(
        state,
        CredentialState::Uncertain { .. }
            | CredentialState::ReauthorizationRequired {
                cause: EndCause::LostAnswer,
                ..
            }
    )
}
