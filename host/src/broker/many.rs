//! Many tokens in one call, and a look at one that copies nothing: what a server in front of the broker asks for.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use super::{Broker, Issued, ends, issue};
use crate::cache::{Hit, Slot};
use crate::model::error::Error;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::AccessToken;

/// How many absent tokens of one call are obtained at once: each is a caller of its flight while it waits.
const MISSES_AT_ONCE: usize = 256;
/// How often what fell while others were waited for is asked for again. The call's patience bounds the waits; this bounds the
/// requests to an issuer whose tokens end faster than a batch of them is obtained. What the last pass obtained is handed out
/// as [`Broker::token`] would.
const PASSES_MAX: usize = 4;

// === impl Broker ===

impl Broker {
    /// As [`Broker::token`] for each, answered in the order asked. Those in memory cost no task and no wait; the others are
    /// obtained side by side, each with its provider's `refresh.timeout` counted from the arrival of the call. The same key
    /// twice is one request to the issuer.
    ///
    /// # Errors
    ///
    /// Each as [`Broker::token`]: one that fails does not concern the others.
    ///
    /// # Cancel safety
    ///
    /// Safe: the refreshes belong to the broker and go on.
    pub async fn tokens(
        &self,
        principal: &Principal,
        requests: &[TokenRequest],
    ) -> Vec<Result<Issued, Error>> {
        let arrived = self.0.now();
        let mut answers = Vec::with_capacity(requests.len());
        let mut missing = Vec::new();
        for (at, request) in requests.iter().enumerate() {
            match self.look_up(principal, request, arrived) {
                Some(Hit::Fresh {
                    token,
                    max_lifetime,
                }) => answers.push(Some(Ok(issue(token, max_lifetime, arrived)))),
                _ => {
                    answers.push(None);
                    missing.push(at);
                }
            }
        }
        for _ in 0..PASSES_MAX {
            if missing.is_empty() {
                break;
            }
            let obtain = stream::iter(missing).map(async |at| {
                let request = &requests[at];
                // Its turn may come late: as things stand then.
                let now = self.0.now();
                let known = self.look_up(principal, request, now);
                let answer = self.settle(known, principal, request, [now, arrived]);
                (at, answer.await)
            });
            let mut obtained = obtain.buffer_unordered(MISSES_AT_ONCE);
            while let Some((at, answer)) = obtained.next().await {
                answers[at] = Some(answer);
            }
            missing = self.no_longer_standing(principal, requests, &mut answers);
        }
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.expect("each was in memory, or obtained"))
            .collect()
    }

    /// Which of the answers are to be asked for again: while others were waited for, these were revoked or denied, or have
    /// ended. One that was renewed meanwhile is exchanged here, without a wait.
    fn no_longer_standing(
        &self,
        principal: &Principal,
        requests: &[TokenRequest],
        answers: &mut [Option<Result<Issued, Error>>],
    ) -> Vec<usize> {
        let mut fallen = Vec::new();
        for (at, (answer, request)) in answers.iter_mut().zip(requests).enumerate() {
            let Some(Ok(issued)) = answer else { continue };
            let now = self.0.now();
            match self.look_up(principal, request, now) {
                Some(Hit::Fresh {
                    token,
                    max_lifetime,
                }) => *answer = Some(Ok(issue(token, max_lifetime, now))),
                // It is being renewed, or is the best there is: what was obtained just now.
                Some(Hit::Known { slot, .. }) if stands(&slot, issued, now) => {}
                _ => fallen.push(at),
            }
        }
        fallen
    }

    /// Shows `read` a token that is in memory and needs nothing, with the end that this caller is told and the time that it
    /// is. `None` means: ask [`Broker::token`]. `read` must not wait.
    #[inline]
    pub(crate) fn hit<R>(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        read: impl FnOnce(&Arc<AccessToken>, UnixTime, UnixTime) -> R,
    ) -> Option<R> {
        let core = &self.0;
        let (epoch, now) = (core.epoch.current(), core.coarse.latest());
        core.cache
            .with(principal, request, epoch, now, |token, decision| {
                let expires = ends(token.expires(), decision.max_lifetime, now);
                read(token, expires, now)
            })
    }
}

/// Whether what was issued is still the current token, and may still be handed out.
fn stands(slot: &Slot, issued: &Issued, now: UnixTime) -> bool {
    let current = slot.servable(now);
    current.is_ok_and(|token| token.generation() == issued.token.generation())
        && now < issued.expires
}
