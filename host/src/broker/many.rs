//! Many tokens in one call, and a look at one that copies nothing: what a server in front of the broker asks for.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use super::{Broker, Issued, ends, issue};
use crate::cache::Hit;
use crate::model::error::Error;
use crate::model::freshness::Life;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::AccessToken;

/// How many absent tokens of one call are obtained at once: each is a caller of its flight while it waits.
const MISSES_AT_ONCE: usize = 256;

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
                known => {
                    answers.push(None);
                    missing.push((at, known));
                }
            }
        }
        if !missing.is_empty() {
            let obtain = stream::iter(missing).map(async |(at, known)| {
                let request = &requests[at];
                let times = [arrived; 2];
                (at, self.settle(known, principal, request, times).await)
            });
            let mut obtained = obtain.buffer_unordered(MISSES_AT_ONCE);
            while let Some((at, answer)) = obtained.next().await {
                answers[at] = Some(answer);
            }
            // While some were waited for, the end of others may have come.
            let now = self.0.now();
            for (answer, request) in answers.iter_mut().zip(requests) {
                if matches!(answer, Some(Ok(issued)) if is_over(issued, now)) {
                    let known = self.look_up(principal, request, now);
                    let times = [now, arrived];
                    *answer = Some(self.settle(known, principal, request, times).await);
                }
            }
        }
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.expect("each was in memory, or obtained"))
            .collect()
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

fn is_over(issued: &Issued, now: UnixTime) -> bool {
    let life = Life {
        issued: issued.token.issued(),
        expires: issued.token.expires(),
    };
    now >= life.serve_until()
}
