//! Many tokens in one call, and a look at one that copies nothing: what a server in front of the broker asks for.

use std::pin::pin;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, stream};

use super::{Broker, Issued, ends, issue};
use crate::cache::{Hit, Slot};
use crate::model::error::Error;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::AccessToken;

/// How many absent tokens of one call are obtained at once: each is a caller of its flight while it waits.
const MISSES_AT_ONCE: usize = 256;
/// How often tokens are asked for at most, the absent ones and then those that fell while the others were waited for. The
/// last time waits for nobody. The call's patience bounds the waits; this bounds the requests to an issuer whose tokens end
/// faster than a batch of them is obtained.
const PASSES_MAX: usize = 4;
/// As a time of arrival: the patience of whoever came then is over.
const OUT_OF_PATIENCE: UnixTime = UnixTime::from_secs(0);

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
        let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
        let mut missing = self.look_over(principal, requests, &mut answers, arrived);
        for pass in 1..=PASSES_MAX {
            if missing.is_empty() {
                break;
            }
            let is_last = pass == PASSES_MAX;
            let patient_since = if is_last { OUT_OF_PATIENCE } else { arrived };
            let mut settling = pin!(self.settle_all(principal, requests, missing, patient_since));
            let (settled, waited) = match settling.as_mut().now_or_never() {
                Some(settled) => (settled, false),
                None => (settling.await, true),
            };
            for (at, answer) in settled {
                answers[at] = Some(answer);
            }
            // Where nobody waited, nothing can have happened to the others.
            missing = match waited && !is_last {
                true => self.look_over(principal, requests, &mut answers, self.0.now()),
                false => Vec::new(),
            };
        }
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.expect("each was in memory, or obtained"))
            .collect()
    }

    /// Answers with what is in memory and needs nothing, and says which are to be asked for: those without an answer, and
    /// those whose token was revoked or denied, or has ended, since it was obtained.
    fn look_over(
        &self,
        principal: &Principal,
        requests: &[TokenRequest],
        answers: &mut [Option<Result<Issued, Error>>],
        now: UnixTime,
    ) -> Vec<usize> {
        let mut missing = Vec::new();
        for (at, (answer, request)) in answers.iter_mut().zip(requests).enumerate() {
            if let Some(Err(_)) = answer {
                continue;
            }
            match self.look_up(principal, request, now) {
                Some(Hit::Fresh {
                    token,
                    max_lifetime,
                }) => *answer = Some(Ok(issue(token, max_lifetime, now))),
                // It is being renewed, or is the best there is: what was obtained just now.
                Some(Hit::Known { slot, .. }) if matches!(answer, Some(Ok(issued)) if stands(&slot, issued, now)) =>
                    {}
                _ => missing.push(at),
            }
        }
        missing
    }

    /// The answers to the requests at these places, side by side, each as things stand when its turn comes.
    async fn settle_all(
        &self,
        principal: &Principal,
        requests: &[TokenRequest],
        places: Vec<usize>,
        arrived: UnixTime,
    ) -> Vec<(usize, Result<Issued, Error>)> {
        let settling = stream::iter(places).map(async |at| {
            let request = &requests[at];
            let now = self.0.now();
            let known = self.look_up(principal, request, now);
            let answer = self.settle(known, principal, request, [now, arrived]);
            (at, answer.await)
        });
        settling.buffer_unordered(MISSES_AT_ONCE).collect().await
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
