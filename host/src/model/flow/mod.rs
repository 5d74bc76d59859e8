//! One refresh as a value: `advance(self, input, now) → (Flow, Effect)`. Whoever drives it performs the effect and comes
//! back with what happened; nothing here waits, sends or asks the time.
//!
//! ```text
//!  Leasing ──Leased──▶ Consulting ◀───────────────┐
//!     │                  │  │  │                  │ reply
//!     │ may not go       │  │  └─Sign: at once────┤
//!     ▼                  │  └─Send─┬─no grant─▶ Sending ──▶ answered
//!   Land                 │         └─grant──▶ Marking ─▶ Sending     │ rotation, intent over
//!     ▲                  │                                           ▼
//!     └──── Recording ◀──Done                                    Recording
//! ```
//!
//! Two orders are the only paths there are: a grant that may be single-use is *marked* before it leaves, and what came
//! back of it is *recorded* before the plugin reads the answer or anybody gets the token.

mod abandoned;
mod admission;
mod answers;
mod failure;
mod records;
#[cfg(test)]
pub(crate) mod tests;
mod words;

use std::sync::Arc;
use std::time::Duration;

use super::contract::{Call, Cause, HttpRequest, PluginFault, Refusal, Reply, Rotation, Step};
use super::credential::{
    AfterLostAnswer, CommitFault, Credential, CredentialState, Stored, Unreachable, Version,
};
use super::key::TokenKey;
use super::seal::{Rules, Vault, Violation};
use super::secret::Secret;
use super::time::UnixTime;
use super::token::ObtainedToken;
use super::transport::{Delivery, OutgoingRequest};
pub use abandoned::abandoned;
use admission::Knowledge;
pub use failure::{Failure, FailureScope};

/// The most replies a plugin gets in one flow: the longest real exchange (sign, send, sign, send) takes four.
pub const STEPS_MAX: usize = 8;
/// How often a commit that the store did not answer is tried again before the flow gives up on it.
const RECORD_TRIES: u32 = 5;
/// The most fingerprints of spent grants kept per credential: replays come from recent backups, not from last year's.
pub const SPENT_MAX: usize = 64;
/// Added to a flow's deadline before its intent counts as over: the slack between two readings of the clock.
const INTENT_SLACK: Duration = Duration::from_secs(5);
/// How long after its sender gave up a request may still be acted on: what an issuer takes to do one that it already has. A
/// grant that is sent again sooner could be overtaken.
const LATE_MAX: Duration = Duration::from_secs(2);

/// What a flow is told once, when it begins.
pub struct Plan {
    /// Which token.
    pub key: TokenKey,
    /// Why.
    pub cause: Cause,
    /// When everything must be over.
    pub deadline: UnixTime,
    /// The provider's settings as JSON.
    pub settings: Arc<str>,
    /// What may go where.
    pub rules: Arc<Rules>,
    /// The secrets' values, read for this flow.
    pub secrets: Vec<(String, Secret<String>)>,
    /// What is declared of the grant's rotation.
    pub rotation: Rotation,
    /// With [`Rotation::Grace`].
    pub grace: Duration,
    /// What to do when an answer was lost; none decides by rotation.
    pub after_lost_answer: Option<AfterLostAnswer>,
    /// Lifetime of a token whose answer states none.
    pub default_lifetime: Duration,
    /// Until when callers can be served the token they have.
    pub served_until: Option<UnixTime>,
    /// 32 random bytes for the plugin.
    pub entropy: [u8; 32],
    /// 32 random bytes that no plugin sees: handles are drawn from them.
    pub seed: Secret<[u8; 32]>,
    /// Names this attempt in an intent.
    pub owner: [u8; 16],
    /// Keys the fingerprints of spent grants.
    pub spent_key: Secret<[u8; 32]>,
}

/// One refresh.
pub struct Flow {
    core: Core,
    state: State,
}

/// What the driver reports.
pub enum Input {
    /// The credential's gate is held and its record was read.
    Leased(Result<Stored, Unreachable>),
    /// The plugin answered.
    Consulted(Result<Result<Step, Refusal>, PluginFault>),
    /// The request went out, or did not.
    Delivered(Delivery),
    /// The record was committed at this version, or was not.
    Recorded(Result<Version, CommitFault>),
    /// The record is kept, as far as there is room.
    Stranded,
}

/// What the driver must do next.
pub enum Effect {
    /// Enter the credential's gate and read its record: answer with [`Input::Leased`].
    Lease,
    /// Commit the intent: answer with [`Input::Recorded`].
    Mark(Record),
    /// Call the plugin with [`Flow::call`] and [`Flow::replies`]: answer with [`Input::Consulted`].
    Consult,
    /// Send it once: answer with [`Input::Delivered`].
    Send(OutgoingRequest),
    /// Commit what came back: answer with [`Input::Recorded`].
    Persist(Record),
    /// Read the record again, somebody committed meanwhile: answer with [`Input::Leased`].
    Reload,
    /// The store does not answer: keep the record in memory, commit it when it does, and present nothing of this
    /// credential before. Answer with [`Input::Stranded`].
    Strand(Record),
    /// Over: publish to everyone who waits.
    Land(Landing),
}

/// A commit to be made.
#[derive(Clone)]
pub struct Record {
    /// What it replaces.
    pub expected: Version,
    /// Who decided it: names the intent that it may clear.
    pub owner: [u8; 16],
    /// The grant of the row that it was decided on: while that is the row's, nobody replaced it.
    pub base: Option<Secret<String>>,
    /// The record.
    pub credential: Credential,
    /// What changed, for whoever watches.
    pub change: Change,
    /// The state that the flow found; a crashed attempt's doubt included once its grant is presented again.
    pub was: CredentialState,
    /// How often this one was tried before.
    pub tries: u32,
}

/// What a commit is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// An intent was set or cleared.
    Intent,
    /// The issuer replaced the grant.
    Rotated,
    /// The state changed.
    State,
    /// What the plugin wants to find again.
    Kept,
}

/// How a flow ended.
pub enum Landing {
    /// With a token.
    Renewed(ObtainedToken),
    /// With a failure.
    Failed(Failure),
    /// Somebody revoked or replaced the credential meanwhile; a grant that came back belongs to nobody.
    Superseded {
        /// The grant, if one came back.
        orphan: Option<Secret<String>>,
        /// Whether it was revoked, rather than replaced.
        revoked: bool,
    },
}

struct Core {
    plan: Plan,
    vault: Vault,
    stored: Stored,
    call: Call,
    replies: Vec<Reply>,
    /// Just before the last request that was answered went out.
    sent_at: Option<UnixTime>,
    /// The grant that the row held when the flow began.
    base: Option<Secret<String>>,
    /// The state of the row when the flow began.
    was: CredentialState,
    /// The grant in hand came back in this flow.
    rotated_here: bool,
    /// This flow presents a grant whose last answer was lost.
    probing: bool,
}

enum State {
    Leasing,
    Consulting,
    Marking(Box<Marked>),
    Remarking(Box<Marked>),
    Sending {
        request: HttpRequest,
        with_grant: bool,
    },
    Recording {
        change: Change,
        tries: u32,
        then: Then,
    },
    Rebasing {
        change: Change,
        tries: u32,
        then: Then,
    },
    Stranding {
        then: Then,
    },
    Landed,
}

/// What leaves once its mark is made.
struct Marked {
    request: HttpRequest,
    outgoing: OutgoingRequest,
    tries: u32,
}

enum Then {
    Consult,
    Land(Landing),
}

type Advanced = (Flow, Effect);

/// Notes a grant as spent; the oldest of too many leaves.
pub(crate) fn spend(spent: &mut Vec<[u8; 32]>, mark: [u8; 32]) {
    spent.push(mark);
    let surplus = spent.len().saturating_sub(SPENT_MAX);
    spent.drain(..surplus);
}

// === impl Flow ===

impl Flow {
    /// Begins a flow; perform [`Effect::Lease`] first.
    pub fn new(mut plan: Plan, now: UnixTime) -> Advanced {
        let secrets = std::mem::take(&mut plan.secrets);
        let vault = Vault::new(plan.rules.clone(), secrets, plan.seed.clone());
        let credential = &plan.key.credential;
        let call = Call {
            now: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            entropy: plan.entropy.to_vec(),
            settings: plan.settings.clone(),
            tenant: credential.tenant.as_str().to_owned(),
            subject: credential.subject.as_ref().map(|s| s.as_str().to_owned()),
            scopes: plan.key.scopes.iter().map(str::to_owned).collect(),
            audience: plan.key.audience.as_ref().map(|a| a.as_str().to_owned()),
            refresh_token: None,
            held: Vec::new(),
            memo: Vec::new(),
            cause: plan.cause,
        };
        let core = Core {
            plan,
            vault,
            stored: Stored::default(),
            call,
            replies: Vec::new(),
            sent_at: None,
            base: None,
            was: CredentialState::default(),
            rotated_here: false,
            probing: false,
        };
        (
            Self {
                core,
                state: State::Leasing,
            },
            Effect::Lease,
        )
    }

    /// What the plugin is asked.
    pub fn call(&self) -> &Call {
        &self.core.call
    }

    /// What it has been told so far.
    pub fn replies(&self) -> &[Reply] {
        &self.core.replies
    }

    /// Takes what happened and says what is next. An input that answers no open effect ends the flow with a failure.
    pub fn advance(self, input: Input, now: UnixTime) -> Advanced {
        let Self { core, state } = self;
        match (state, input) {
            (State::Leasing, Input::Leased(Ok(stored))) => core.begin(stored, now),
            (State::Leasing, Input::Leased(Err(Unreachable(detail)))) => core.fail(
                Failure::unavailable("store", format!("the store: {detail}")),
            ),
            (State::Consulting, Input::Consulted(Ok(Ok(step)))) => core.step(step, now),
            (State::Consulting, Input::Consulted(Ok(Err(refusal)))) => core.refused(refusal, now),
            (State::Consulting, Input::Consulted(Err(fault))) => core.fail(Failure::plugin(&fault)),
            (State::Marking(marked), Input::Recorded(result)) => core.marked(*marked, result),
            (State::Remarking(marked), Input::Leased(theirs)) => core.remarked(*marked, theirs),
            (
                State::Sending {
                    request,
                    with_grant,
                },
                Input::Delivered(delivery),
            ) => core.delivered(request, with_grant, delivery, now),
            (State::Recording { then, .. }, Input::Recorded(Ok(version))) => {
                core.at(version).resume(then)
            }
            (
                State::Recording {
                    change,
                    tries,
                    then,
                },
                Input::Recorded(Err(fault)),
            ) => core.not_recorded(change, tries, then, &fault),
            (
                State::Rebasing {
                    change,
                    tries,
                    then,
                },
                Input::Leased(Ok(theirs)),
            ) => core.rebase(theirs, change, tries, then),
            (State::Rebasing { change, then, .. }, Input::Leased(Err(_))) => {
                core.strand(change, then)
            }
            // The token is good whether or not its grant could be kept: callers get it (and operators are told).
            (State::Stranding { then }, Input::Stranded) => core.resume(then),
            _ => core.fail(Failure::internal("the refresh was driven out of order")),
        }
    }
}

// === impl Core ===

impl Core {
    fn violated(self, violation: &Violation) -> Advanced {
        let failure = self.broken(violation);
        self.fail(failure)
    }

    /// What the plugin did wrong, and the line that would allow it where there is one.
    fn broken(&self, violation: &Violation) -> Failure {
        match violation.fix(&self.plan.key.credential.provider) {
            Some(line) => Failure::broken(format!("{violation}; to grant it: {line}")),
            None => Failure::broken(violation.to_string()),
        }
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::of(
            self.plan.rotation,
            self.plan.grace,
            self.stored.credential.seen,
        )
    }

    fn at(mut self, version: Version) -> Self {
        self.stored.version = version;
        self
    }

    fn resume(self, then: Then) -> Advanced {
        match then {
            Then::Consult => self.consult(),
            Then::Land(landing) => self.land(landing),
        }
    }

    fn fail(self, failure: Failure) -> Advanced {
        self.land(Landing::Failed(failure))
    }

    fn land(self, landing: Landing) -> Advanced {
        (
            Flow {
                core: self,
                state: State::Landed,
            },
            Effect::Land(landing),
        )
    }
}
