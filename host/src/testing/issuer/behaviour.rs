//! How the issuer misbehaves, and when.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a request to the token or the revocation endpoint is answered.
///
/// *Processed* means: the request took effect (a token was issued, a single-use refresh token is spent) before the
/// answer went wrong. That is the worst case, and the one worth testing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As the RFCs have it.
    #[default]
    Normal,
    /// Processed on arrival, answered this much later.
    Latency(Duration),
    /// As the inner one, answered this much later.
    After(Duration, Box<Behaviour>),
    /// Processed; tokens live this long instead of what was configured.
    Lifetime(Duration),
    /// Not processed: this status with a plain text.
    Status(u16),
    /// Not processed: 400 with this OAuth error code.
    Refuse(&'static str),
    /// Not processed: 429 with this `Retry-After`.
    RateLimited {
        /// Seconds, an HTTP date, or nonsense.
        retry_after: String,
    },
    /// Processed; a 200 without a body.
    EmptyOk,
    /// Processed; a 200 with a page for humans.
    Html,
    /// Processed; JSON whose members have the wrong types.
    WrongTypes,
    /// Processed; half of the announced body, then the connection ends.
    TruncatedBody,
    /// Processed; the connection is reset without an answer.
    ResetAfterRequest,
    /// Processed; one byte of the body, then a pause of this length, and so on.
    Drip(Duration),
    /// Processed; a body of this many bytes.
    Oversize(usize),
    /// Not processed: 307 to this URL.
    Redirect(String),
    /// Not processed: silence until the client leaves.
    Hang,
    /// Not processed: exactly this.
    Custom {
        /// HTTP status.
        status: u16,
        /// `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// The behaviours to come: some for a number of requests, then the standing one.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    standing: Behaviour,
    next: VecDeque<(usize, Behaviour)>,
}

// === impl Behaviour ===

impl Behaviour {
    /// As the ledger names it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Latency(_) => "latency",
            Self::After(_, inner) => inner.label(),
            Self::Lifetime(_) => "lifetime",
            Self::Status(_) => "status",
            Self::Refuse(_) => "refuse",
            Self::RateLimited { .. } => "rate_limited",
            Self::EmptyOk => "empty_ok",
            Self::Html => "html",
            Self::WrongTypes => "wrong_types",
            Self::TruncatedBody => "truncated_body",
            Self::ResetAfterRequest => "reset_after_request",
            Self::Drip(_) => "drip",
            Self::Oversize(_) => "oversize",
            Self::Redirect(_) => "redirect",
            Self::Hang => "hang",
            Self::Custom { .. } => "custom",
        }
    }

    /// Whether the request takes effect.
    pub(super) fn processes(&self) -> bool {
        if let Self::After(_, inner) = self {
            return inner.processes();
        }
        !matches!(
            self,
            Self::Status(_)
                | Self::Refuse(_)
                | Self::RateLimited { .. }
                | Self::Redirect(_)
                | Self::Hang
                | Self::Custom { .. }
        )
    }
}

// === impl Script ===

impl Script {
    /// From now on; forgets what was planned for the next requests.
    pub(super) fn stand(&self, behaviour: Behaviour) {
        *self.lock() = Lines {
            standing: behaviour,
            next: VecDeque::new(),
        };
    }

    /// For `requests` requests, after those planned already.
    pub(super) fn plan(&self, requests: usize, behaviour: Behaviour) {
        if requests > 0 {
            self.lock().next.push_back((requests, behaviour));
        }
    }

    /// For the request at hand.
    pub(super) fn take(&self) -> Behaviour {
        let mut lines = self.lock();
        let Some((left, behaviour)) = lines.next.front_mut() else {
            return lines.standing.clone();
        };
        let behaviour = behaviour.clone();
        *left -= 1;
        if *left == 0 {
            lines.next.pop_front();
        }
        behaviour
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_run_out_and_the_standing_behaviour_returns() {
        let script = Script::default();
        script.plan(2, Behaviour::Html);
        script.plan(1, Behaviour::Hang);
        let taken: Vec<_> = (0..4).map(|_| script.take().label()).collect();
        assert_eq!(taken, ["html", "html", "hang", "normal"]);
        script.plan(9, Behaviour::Html);
        script.stand(Behaviour::EmptyOk);
        assert_eq!(script.take(), Behaviour::EmptyOk);
    }
}
