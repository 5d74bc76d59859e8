//! The broker: the story of a token, a screen per verb.
//!
//! Here: what a caller asks (`token`, and beside it `tokens` in `many`, `reject`, `handle`, `watch`). Also beside it: how a
//! broker is set up (`setup`), what operators do (`operate`, `credentials`, `upkeep`) and see (`look`, `listing`).

mod assemble;
mod credentials;
mod handle;
mod listing;
mod look;
mod many;
mod operate;
mod probe;
mod recover;
mod reject;
mod setup;
mod status;
mod transport;
mod upkeep;
mod watch;

use std::sync::Arc;
use std::time::Duration;

pub use handle::TokenHandle;
pub use listing::CREDENTIALS_PAGE_MAX;
pub use operate::{builtin, inspect};
pub use setup::Builder;
pub use status::{
    BrokerSettings, CredentialFilter, CredentialPage, CredentialStatus, Explanation, ImportError,
    ImportOutcome, Inspection, IntentStatus, Issued, KeyRotated, OrderError, PolicySettings,
    ProviderStatus, Readiness, RejectOutcome, RejectReport, RevokeOutcome, SetupMistake, Shredded,
    StartError, SwapError, Swapped,
};
pub use watch::{Watch, WatchEvent};

use crate::authorize::{Denial, authorize};
use crate::cache::{Decision, Full, Hit, Pin};
use crate::core::{Core, Landed};
use crate::model::contract::Cause;
use crate::model::error::{Error, ErrorKind, Retry};
use crate::model::event::Event;
use crate::model::freshness::{Freshness, Life, Validity};
use crate::model::key::TokenKey;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::AccessToken;
use crate::refresh::{self, Want};

/// When a caller whose patience ended may ask again: the refresh it waited for is still under way.
const IMPATIENT_PAUSE: Duration = Duration::from_secs(1);
/// When a caller for whom there was no room may ask again: keys leave when they idle.
const CROWDED_PAUSE: Duration = Duration::from_secs(10);
/// How often a slot that was evicted between two lines is looked up again: more than once means that the cache is far too
/// small.
const PIN_TRIES: usize = 3;

/// Obtains, keeps and renews tokens. Cheap to clone; every clone is the same broker.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Core>);

// === impl Broker ===

impl Broker {
    /// Sets one up.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A valid token: out of memory when there is one, else from the one refresh that everybody waits for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] when the policy says no; the flight's failure when there is no token; and
    /// [`ErrorKind::Unavailable`] when the provider's `refresh.timeout`, counted from arrival, passed.
    ///
    /// # Cancel safety
    ///
    /// Safe: the refresh belongs to the broker and goes on.
    pub async fn token(
        &self,
        principal: &Principal,
        request: &TokenRequest,
    ) -> Result<Issued, Error> {
        let latest = self.0.coarse.latest();
        match self.look_up(principal, request, latest) {
            Some(Hit::Fresh {
                token,
                max_lifetime,
            }) => Ok(issue(token, max_lifetime, latest)),
            known => {
                let arrived = self.0.now();
                self.settle(known, principal, request, [arrived; 2]).await
            }
        }
    }

    /// What a remembered decision leads to.
    fn look_up(&self, principal: &Principal, request: &TokenRequest, now: UnixTime) -> Option<Hit> {
        let core = &self.0;
        core.cache
            .lookup(principal, request, core.epoch.current(), now)
    }

    /// The token of a hit, or else the one that is obtained: as things stand `now`, and with the patience of whoever arrived.
    async fn settle(
        &self,
        known: Option<Hit>,
        principal: &Principal,
        request: &TokenRequest,
        [now, arrived]: [UnixTime; 2],
    ) -> Result<Issued, Error> {
        if let Some(Hit::Fresh {
            token,
            max_lifetime,
        }) = known
        {
            return Ok(issue(token, max_lifetime, now));
        }
        let entry = self.entry(known, principal, request, now).await?;
        let times = [now, arrived];
        let token = self.obtain(&entry, request.min_validity, times).await?;
        Ok(issue(token, entry.decision.max_lifetime, self.0.now()))
    }

    /// Shows `read` a valid token and its end, if one is in memory that needs nothing: the fastest way to a token by key. It
    /// takes no lock, allocates nothing and counts no reference, so any number of threads may read one key.
    ///
    /// `None` says nothing about why: [`Broker::token`] gets one. `read` must not wait: memory that anybody in the process
    /// retires meanwhile is not freed before it returns.
    ///
    /// ```
    /// # use keyfob::{Broker, Principal, TokenRequest};
    /// # async fn example(broker: Broker, caller: Principal, request: TokenRequest, headers: &mut http::HeaderMap)
    /// # -> Result<(), keyfob::Error> {
    /// let header = broker.with_token(&caller, &request, |token, _| token.header().clone());
    /// let header = match header {
    ///     Some(header) => header,
    ///     None => broker.token(&caller, &request).await?.token.header().clone(),
    /// };
    /// headers.insert(http::header::AUTHORIZATION, header);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn with_token<R>(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        read: impl FnOnce(&Arc<AccessToken>, UnixTime) -> R,
    ) -> Option<R> {
        self.hit(principal, request, |token, expires, _| read(token, expires))
    }

    /// The remembered decision, or a new one, with a hold on the key's slot.
    async fn entry(
        &self,
        known: Option<Hit>,
        principal: &Principal,
        request: &TokenRequest,
        now: UnixTime,
    ) -> Result<Entry, Error> {
        let core = &self.0;
        match known {
            Some(Hit::Known { slot, decision }) => {
                if let Some(pin) = slot.pin() {
                    return Ok(Entry { pin, decision });
                }
            }
            Some(Hit::Fresh {
                token: _,
                max_lifetime: _,
            })
            | None => {}
        }
        // Before the snapshot is read: a change from here on ends the decision.
        let epoch = core.epoch.current();
        let snapshot = core.snapshot();
        let permit = authorize(&snapshot, principal, request, now)
            .await
            .map_err(|denial| denied(core, principal, request, denial))?;
        let decision = Decision {
            epoch,
            allowed_until: permit.until(),
            max_lifetime: permit.max_lifetime(),
        };
        for _ in 0..PIN_TRIES {
            let slot = core
                .cache
                .slot_or_insert(permit.key(), principal, now)
                .map_err(|full| crowded(core, permit.key(), principal, full))?;
            if let Some(pin) = slot.pin() {
                core.cache
                    .remember(principal, request, &slot, decision, now);
                return Ok(Entry { pin, decision });
            }
        }
        Err(crowded(core, permit.key(), principal, Full::Cache))
    }

    /// The token in the slot, or the one that comes of its flight.
    async fn obtain(
        &self,
        entry: &Entry,
        min_validity: Duration,
        [now, arrived]: [UnixTime; 2],
    ) -> Landed {
        match look(&self.0, &entry.pin, min_validity, now) {
            Look::Token(token) => Ok(token),
            // The best there is beats an error; looked at again, for much may have happened while it was waited for.
            Look::Better(want) => match self.wait(&entry.pin, want, arrived).await {
                Ok(token) => Ok(token),
                Err(error) => entry.pin.servable(self.0.now()).map_err(|_| error),
            },
            Look::None(want) => self.wait(&entry.pin, want, arrived).await,
        }
    }

    /// Waits for the flight of a slot, at most for the provider's timeout, counted from the caller's arrival.
    async fn wait(&self, slot: &Pin, want: Want, arrived: UnixTime) -> Landed {
        let core = &self.0;
        if let Some(error) = slot.failure(core.now()) {
            return Err(error);
        }
        let follow =
            refresh::join(core, slot, want).map_err(|error| told(core, &slot.key(), error))?;
        let provider = core.provider(slot.provider());
        let patience = provider
            .as_ref()
            .map_or(Duration::ZERO, |p| p.settings.refresh.timeout);
        if let Some(provider) = provider {
            // The flight may have been started when nobody waited.
            core.budget(&provider).hurry(slot.id());
        }
        let left = patience.saturating_sub(core.now().since(arrived));
        match tokio::time::timeout(left, follow.wait()).await {
            Ok(landed) => landed,
            Err(_) => Err(told(
                core,
                &slot.key(),
                Error::new(
                    ErrorKind::Unavailable,
                    Retry::After(IMPATIENT_PAUSE),
                    "no token came in time; the refresh goes on",
                    format!("the caller waited {patience:?}, the provider's refresh.timeout"),
                    core.correlation(),
                ),
            )),
        }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("snapshot", &self.0.snapshot().revision)
            .finish_non_exhaustive()
    }
}

/// Permission to a key, and a hold on its slot.
pub(crate) struct Entry {
    pub(crate) pin: Pin,
    pub(crate) decision: Decision,
}

/// What a look at a slot says.
enum Look {
    /// Here it is.
    Token(Arc<AccessToken>),
    /// Here is one, but a longer-lived one was asked for and may be had.
    Better(Want),
    /// There is none.
    None(Want),
}

/// Looks at a slot and nudges its refresh when that is due.
fn look(core: &Arc<Core>, slot: &Pin, min_validity: Duration, now: UnixTime) -> Look {
    slot.touch(now);
    let Ok(token) = slot.servable(now) else {
        let seen = slot.current().map(|token| token.generation());
        return Look::None(Want {
            cause: Cause::First,
            seen,
        });
    };
    let want = Want {
        cause: Cause::Expiring,
        seen: Some(token.generation()),
    };
    let life = Life {
        issued: token.issued(),
        expires: token.expires(),
    };
    if life.validity(min_validity, now) == Validity::Renew {
        return Look::Better(want);
    }
    if slot.freshness(now) == Freshness::Expiring {
        nudge(core, slot, want, now);
    }
    Look::Token(token)
}

/// Starts a refresh that nobody waits for, unless it failed a moment ago.
pub(crate) fn nudge(core: &Arc<Core>, slot: &Pin, want: Want, now: UnixTime) {
    if slot.failure(now).is_none() {
        // A process that drains, or a flight with too many waiters, needs no nudge.
        let _ = refresh::join(core, slot, want);
    }
}

fn issue(token: Arc<AccessToken>, max_lifetime: Option<Duration>, now: UnixTime) -> Issued {
    Issued {
        expires: ends(token.expires(), max_lifetime, now),
        token,
    }
}

/// The end that a caller is told: the token's, or the permit's when that comes first.
fn ends(expires: UnixTime, max_lifetime: Option<Duration>, now: UnixTime) -> UnixTime {
    max_lifetime.map_or(expires, |max| expires.min(now.plus(max)))
}

fn denied(core: &Core, principal: &Principal, request: &TokenRequest, denial: Denial) -> Error {
    let correlation = core.correlation();
    if let Some((label, detail)) = denial.fault {
        core.emit(&Event::PluginFailed {
            provider: "policy".to_owned(),
            label,
            detail,
        });
    }
    core.emit(&Event::Denied {
        caller: principal.name().to_owned(),
        tenant: principal.tenant().clone(),
        provider: request.provider.as_str().to_owned(),
        code: denial.code.clone(),
        fix: denial.fix.clone(),
        correlation,
    });
    Error::new(
        ErrorKind::Denied,
        Retry::Never,
        "this caller may not have this token",
        format!("{}: {}", denial.code, denial.fix),
        correlation,
    )
}

fn crowded(core: &Core, key: &TokenKey, principal: &Principal, full: Full) -> Error {
    let error = Error::new(
        ErrorKind::Unavailable,
        Retry::After(CROWDED_PAUSE),
        "no room for another token now",
        format!("the cache is full ({full:?}, caller {principal:?}) and every key in it is held"),
        core.correlation(),
    );
    told(core, key, error)
}

/// Makes sure that an operator finds the line of a failure that no flight told.
fn told(core: &Core, key: &TokenKey, error: Error) -> Error {
    core.emit(&Event::RequestFailed {
        key: key.clone(),
        kind: error.kind(),
        detail: error.detail().to_owned(),
        correlation: error.correlation(),
    });
    error
}
