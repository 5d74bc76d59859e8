//! What operators do to credentials: hand a grant over, look, revoke.

use std::sync::Arc;

use super::Broker;
use super::status::{CredentialStatus, ImportError, ImportOutcome, OrderError, RevokeOutcome};
use crate::cache::Pin;
use crate::model::contract::{Cause, Holds};
use crate::model::credential::{
    Credential, CredentialState, EndCause, Seen, Stored, Version, fingerprint,
};
use crate::model::error::{Error, ErrorKind, Retry};
use crate::model::event::Event;
use crate::model::flow::SPENT_MAX;
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::policy::Principal;
use crate::model::secret::Secret;
use crate::model::token::AccessToken;
use crate::refresh::{self, Want};
use crate::revoke;
use crate::store::CommitFault;

/// The most access tokens of one credential that an issuer is told of one by one; the rest end by themselves, and all are
/// gone from here.
const TOLD_MAX: usize = 16;
/// How often a change is decided again because a refresh committed in between: each refresh commits a few times.
const CONFLICTS_MAX: usize = 16;

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
            let next = Credential {
                refresh_token: Some(refresh_token.clone()),
                grant_since: core.now(),
                spent: credential.spent,
                // The same grant handed over again is still the one that may be on its way.
                intent: credential
                    .intent
                    .filter(|it| same && it.over_at > core.now()),
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
                            detail: format!("the grant of {key:?} is kept in memory only"),
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
                credential
                    .spent
                    .push(fingerprint(&core.seeds.fingerprints, grant));
                let surplus = credential.spent.len().saturating_sub(SPENT_MAX);
                credential.spent.drain(..surplus);
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

    /// Presents the grant of a credential once more whose last answer was lost, and answers how it stands then. This order is
    /// the only way in which a grant that is good once leaves again by itself.
    ///
    /// # Errors
    ///
    /// [`OrderError::Inapplicable`] where nothing is in doubt; [`OrderError::Failed`] when the store cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn probe_credential(
        &self,
        key: &CredentialKey,
        by: &str,
    ) -> Result<CredentialStatus, OrderError> {
        let (broker, key, by) = (self.clone(), key.clone(), by.to_owned());
        let probe = async move { broker.probe(&key, &by).await };
        let done = self.0.spawn(probe).await;
        done.unwrap_or_else(|_| Err(OrderError::Failed("the process is ending".to_owned())))
    }

    async fn probe(&self, key: &CredentialKey, by: &str) -> Result<CredentialStatus, OrderError> {
        let core = &self.0;
        let failed = |error: Error| OrderError::Failed(error.detail().to_owned());
        let want = |slot: &Pin| Want {
            cause: Cause::Operator,
            seen: slot.current().map(|token| token.generation()),
        };
        let stored = self.load(key).await.map_err(failed)?;
        self.doubt(key, stored, by).await?;
        let slot = self.slot_for(key)?;
        if core.flights.in_air(&slot.id()) {
            // It flies for another reason, and whoever joins it does not probe.
            let other = refresh::join(core, &slot, want(&slot)).map_err(failed)?;
            let _ = other.wait().await;
            let stored = self.load(key).await.map_err(failed)?;
            if !matches!(stored.credential.state, CredentialState::Uncertain { .. }) {
                return Ok(self.standing(key, &stored));
            }
        }
        let probe = refresh::join(core, &slot, want(&slot)).map_err(failed)?;
        // How it stands afterwards says more than how it landed.
        let _ = probe.wait().await;
        for slot in core.cache.slots_of(key) {
            slot.clear_failure();
        }
        let stored = self.load(key).await.map_err(failed)?;
        Ok(self.standing(key, &stored))
    }

    /// Makes sure that a credential is in doubt on record, so that an operator's flight may present its grant.
    async fn doubt(&self, key: &CredentialKey, stored: Stored, by: &str) -> Result<(), OrderError> {
        let now = self.0.now();
        let inapplicable = |words: String| Err(OrderError::Inapplicable(words));
        let credential = stored.credential;
        let was = credential.state;
        match (was, credential.intent) {
            (_, Some(intent)) if intent.over_at > now => {
                let left = intent.over_at.since(now).as_secs() + 1;
                inapplicable(format!(
                    "an attempt may still be under way: again in {left} s"
                ))
            }
            (CredentialState::Uncertain { .. }, _) | (CredentialState::Live, Some(_)) => Ok(()),
            (CredentialState::ReauthorizationRequired { since, cause }, _)
                if cause == EndCause::LostAnswer && credential.refresh_token.is_some() =>
            {
                let next = Credential {
                    state: CredentialState::Uncertain { since },
                    ..credential
                };
                match self.commit(key, stored.version, was, next, by).await {
                    Ok(true) => Ok(()),
                    Ok(false) => inapplicable("the credential changed meanwhile".to_owned()),
                    Err(error) => Err(OrderError::Failed(error.detail().to_owned())),
                }
            }
            (state, _) => inapplicable(format!(
                "no answer about its grant was lost: the credential is {}",
                state.label()
            )),
        }
    }

    /// A slot that tokens of this credential go to: one that callers use, else that of the provider's default scopes.
    fn slot_for(&self, key: &CredentialKey) -> Result<Pin, OrderError> {
        let core = &self.0;
        let provider = core.provider(&key.provider);
        let provider = provider
            .ok_or_else(|| OrderError::Inapplicable("there is no such provider".to_owned()))?;
        let used = core.cache.slots_of(key);
        if let Some(pin) = used.iter().find_map(|slot| slot.pin()) {
            return Ok(pin);
        }
        let of = TokenKey {
            credential: key.clone(),
            audience: None,
            scopes: provider.settings.scopes.clone(),
        };
        let host = Principal::new("keyfob", key.tenant.clone(), Vec::new());
        let slot = core.cache.slot_or_insert(&of, &host, core.now());
        slot.ok()
            .and_then(|slot| slot.pin())
            .ok_or_else(|| OrderError::Failed("there is no room for another token".to_owned()))
    }

    pub(super) async fn load(&self, key: &CredentialKey) -> Result<Stored, Error> {
        self.0
            .load(key)
            .await
            .map_err(|fault| self.unreachable(&fault.0))
    }

    /// True when it was committed, false when somebody else was first.
    async fn commit(
        &self,
        key: &CredentialKey,
        expected: Version,
        was: CredentialState,
        next: Credential,
        by: &str,
    ) -> Result<bool, Error> {
        let state = next.state;
        match self.0.store.commit(key, expected, next).await {
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
            slot.clear_failure();
        }
        tokens
    }

    pub(super) fn unreachable(&self, detail: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            Retry::After(std::time::Duration::from_secs(1)),
            "the store cannot be reached",
            format!("the store: {detail}"),
            self.0.correlation(),
        )
    }

    fn busy(&self) -> Error {
        self.unreachable("the credential changed under every attempt")
    }
}
