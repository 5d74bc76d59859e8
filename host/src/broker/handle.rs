//! A route's handle: one key, resolved once, read in nanoseconds, and able to wait where there is nothing to read.

use std::sync::Arc;

use super::{Broker, nudge};
use crate::cache::{self, NotReady, Nudge, Slot};
use crate::core::Core;
use crate::model::contract::Cause;
use crate::model::error::Error;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::token::AccessToken;
use crate::refresh::Want;

/// One principal's token for one request: clone it for each worker.
#[derive(Clone)]
pub struct TokenHandle {
    broker: Broker,
    principal: Principal,
    request: TokenRequest,
    fast: cache::TokenHandle,
}

// === impl Broker ===

impl Broker {
    /// A handle for a route: policy is asked once now, and again when the decision ends or policy changes.
    ///
    /// # Errors
    ///
    /// When policy says no, or there is no room.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn handle(
        &self,
        principal: &Principal,
        request: &TokenRequest,
    ) -> Result<TokenHandle, Error> {
        Ok(TokenHandle {
            broker: self.clone(),
            principal: principal.clone(),
            request: request.clone(),
            fast: self.fast(principal, request).await?,
        })
    }

    async fn fast(
        &self,
        principal: &Principal,
        request: &TokenRequest,
    ) -> Result<cache::TokenHandle, Error> {
        let core = &self.0;
        let entry = self.entry(None, principal, request, core.now()).await?;
        Ok(cache::TokenHandle::new(
            entry.pin,
            entry.decision,
            core.epoch.clone(),
            core.coarse.clone(),
            core.clone(),
        ))
    }
}

// === impl TokenHandle ===

impl TokenHandle {
    /// The token, if it can be handed out now: no lock, no allocation, no wait.
    ///
    /// # Errors
    ///
    /// Why not; [`TokenHandle::token`] helps.
    #[inline]
    pub fn get(&mut self) -> Result<&Arc<AccessToken>, NotReady> {
        self.fast.get()
    }

    /// The token, waiting for the flight where there is none.
    ///
    /// # Errors
    ///
    /// As [`Broker::token`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn token(&mut self) -> Result<Arc<AccessToken>, Error> {
        match self.fast.get() {
            Ok(token) => return Ok(token.clone()),
            Err(NotReady::Absent | NotReady::Expired) => {}
            Err(NotReady::Denied | NotReady::Closed | NotReady::Foreign) => {
                self.fast = self.broker.fast(&self.principal, &self.request).await?;
            }
        }
        let issued = self.broker.token(&self.principal, &self.request).await?;
        Ok(issued.token)
    }
}

impl std::fmt::Debug for TokenHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenHandle")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

// === impl Core ===

impl Nudge for Core {
    fn nudge(&self, slot: &Arc<Slot>) {
        let Some(core) = self.me.upgrade() else {
            return;
        };
        let Some(pin) = slot.pin() else { return };
        let seen = slot.current().map(|token| token.generation());
        nudge(
            &core,
            &pin,
            Want {
                cause: Cause::Expiring,
                seen,
            },
            core.now(),
        );
    }
}
