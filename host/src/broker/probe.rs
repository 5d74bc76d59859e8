//! One more presentation of a grant in doubt, when an operator orders it.

use super::Broker;
use super::status::{CredentialStatus, OrderError};
use crate::cache::Pin;
use crate::model::contract::Cause;
use crate::model::credential::{Credential, CredentialState, EndCause, Stored};
use crate::model::error::Error;
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::policy::Principal;
use crate::refresh::{self, Want};

// === impl Broker ===

impl Broker {
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
}
