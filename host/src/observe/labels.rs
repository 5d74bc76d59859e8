//! Words that events have in common wherever they are written, and the bound on label values.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use crate::model::contract::Cause;
use crate::model::event::RefreshOutcome;
use crate::model::transport::FaultKind;

/// What a label says once too many different values were seen.
pub(super) const OTHER: &str = "other";

/// The label values seen so far, up to a bound. A name that a caller, a plugin or a reload made up must not grow a metric
/// without end.
#[derive(Debug)]
pub(super) struct Bounded {
    max: usize,
    /// Read on every event, written once a value. Never held across `.await`.
    seen: RwLock<HashSet<String>>,
}

// === impl Bounded ===

impl Bounded {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            seen: RwLock::default(),
        }
    }

    /// The value itself, or [`OTHER`] when there is no room for another.
    pub(super) fn value(&self, value: &str) -> String {
        if self
            .seen
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(value)
        {
            return value.to_owned();
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < self.max || seen.contains(value) {
            seen.insert(value.to_owned());
            return value.to_owned();
        }
        OTHER.to_owned()
    }
}

/// Why a flight ran.
pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "first",
        Cause::Expiring => "expiring",
        Cause::Rejected => "rejected",
        Cause::Operator => "operator",
    }
}

/// How a flight ended: `renewed`, or the kind of the failure.
pub(super) fn outcome(outcome: &RefreshOutcome) -> &'static str {
    match outcome {
        RefreshOutcome::Renewed { .. } => "renewed",
        RefreshOutcome::Failed { kind, .. } => kind.label(),
    }
}

/// How a request ended: the class of its status, or the fault.
pub(super) fn answer(result: &Result<u16, FaultKind>) -> &'static str {
    match result {
        Ok(100..=199) => "1xx",
        Ok(200..=299) => "2xx",
        Ok(300..=399) => "3xx",
        Ok(400..=499) => "4xx",
        Ok(500..=599) => "5xx",
        Ok(_) => OTHER,
        Err(fault) => fault.label(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_values_end_up_in_one_label() {
        let bounded = Bounded::new(2);
        assert_eq!(
            ["a", "b", "c", "a", "d"].map(|v| bounded.value(v)),
            ["a", "b", OTHER, "a", OTHER]
        );
    }
}
