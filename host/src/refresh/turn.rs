//! Waiting for one's turn: a ticket of the provider's budget. Says what to tell those whose turn did not come.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Slot;
use crate::core::Core;
use crate::model::backoff::RETRY_AFTER_MIN;
use crate::model::flow::{Failure, FailureScope};
use crate::schedule::{Bid, Budget, Lane, NoTicket, Ticket};

/// The share of the callers' patience that is kept back: they are to hear why they got nothing and when to come again,
/// which they would not if their patience ended at the same moment.
///
/// It counts from the start of the flight, theirs from their arrival: between the two a policy was asked.
const KEPT_ONE_IN: u32 = 10;

/// Waits for a ticket, for as long as callers wait.
pub(super) async fn ticket(
    core: &Core,
    budget: &Arc<Budget>,
    slot: &Slot,
    lane: Lane,
    patience: Duration,
) -> Result<Ticket, Failure> {
    let now = core.now();
    let ends = slot.current().map_or(now, |token| token.expires());
    let tenant = slot.tenant();
    let turn = budget.wait(tenant, lane);
    let bid = Bid {
        tenant: tenant.clone(),
        slot: slot.id(),
        ends,
        lane,
    };
    let patience = patience - patience / KEPT_ONE_IN;
    let waited = tokio::select! {
        biased;
        // Nothing starts any more: whoever queues is told now, not when the rate would have let it through.
        () = core.stop.cancelled() => return Err(stopping()),
        waited = tokio::time::timeout(patience, budget.ticket(bid, now)) => waited,
    };
    match waited {
        Ok(Ok(ticket)) => Ok(ticket),
        Ok(Err(NoTicket::Paused { until })) => Err(paused(until.since(now))),
        Ok(Err(NoTicket::Full)) => Err(crowded(turn, Duration::ZERO)),
        Err(_) => Err(crowded(turn, patience)),
    }
}

pub(super) fn stopping() -> Failure {
    Failure::unavailable("stopping", "the process is ending")
}

fn paused(after: Duration) -> Failure {
    Failure {
        scope: FailureScope::Client,
        ..Failure::unavailable(
            "rate_limited",
            "the issuer asked this client for fewer requests",
        )
        .after(after)
    }
}

/// The turn did not come. Where the rate is why, it is known when it would have: whoever comes back then finds no queue,
/// and all who were in it come back at the rate.
fn crowded(turn: Duration, waited: Duration) -> Failure {
    if turn <= waited {
        return Failure::unavailable(
            "concurrency",
            "as many refreshes of this provider ran or waited as may",
        );
    }
    Failure::unavailable(
        "rate",
        "more refreshes waited than the provider's refresh.rate lets start in refresh.timeout",
    )
    .after((turn - waited).max(RETRY_AFTER_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_turn_did_not_come_is_told_when_it_would_have() {
        let secs = Duration::from_secs;
        let after = |turn, waited| crowded(secs(turn), secs(waited)).after;
        assert_eq!(after(200, 10), Some(secs(190)));
        assert_eq!(after(300, 0), Some(secs(300)));
        let soon = crowded(Duration::from_millis(10_001), secs(10));
        assert_eq!((soon.label, soon.after), ("rate", Some(RETRY_AFTER_MIN)));
        // Not for the rate: our own back-off applies.
        let busy = crowded(Duration::ZERO, secs(10));
        assert_eq!((busy.label, busy.after), ("concurrency", None));
    }
}
