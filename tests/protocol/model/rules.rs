//! What a variant of the protocol does where variants differ, and how often what may go wrong does go wrong. The rules as
//! they are meant to be are [`Rules::single_use`] and [`Rules::grace`]; every other variant is one of these with a line changed.

/// What a spent grant is to the issuer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Issuer {
    /// A theft: the family of the grant ends.
    Strict,
    /// For a while another rotation, which spends the one that came before; then a theft.
    Grace,
}

/// What is noted before a grant leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Nothing: the lease alone decides.
    None,
    /// An intent that whoever has the lease may pass.
    Passable,
    /// An intent that stops everybody until the attempt is over.
    Blocking,
}

/// What the store compares before it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// The version of the row.
    Version,
    /// The owner of the lease, by nonce.
    Owner,
    /// The number of the lease, which only counts.
    Number,
}

/// What becomes of a commit that is refused because the row moved on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// Decided again by the grant: written onto a row whose grant nobody replaced, except where it stands there already or
    /// somebody else's intent does.
    Rebase,
    /// The same without the exceptions.
    Overwrite,
    /// Written onto whatever is there.
    Blind,
    /// Dropped.
    GiveUp,
}

/// What becomes of a commit that the store did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// It may have happened: tried again, then kept in memory.
    Retry,
    /// It is taken for one that did not happen, and its record for worthless.
    GiveUp,
}

/// What a node does while it keeps a record that the store did not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undurable {
    /// It presents nothing of that credential.
    Waits,
    /// It goes on by what the store has.
    Presents,
}

/// When callers get the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Publish {
    AfterCommit,
    BeforeCommit,
}

/// When an attempt counts as over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// No message of it is under way, and nobody waits, commits or keeps a record for it.
    Attempt,
    /// No message of it is under way, and nobody waits for one: its commit may still be.
    Exchange,
}

/// How long a node takes a grant to be in its grace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// Shorter than the issuer does, by more than one attempt takes.
    WithMargin,
    /// As long as the issuer does.
    AsLong,
}

/// What a lost answer leaves in the row, besides the doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Nothing: the attempt is over when its sender gave up.
    ClearsIntent,
    /// The intent, until the attempt is over.
    KeepsIntent,
}

/// Whether a request can arrive after its sender gave up on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Requests {
    EndWithSender,
    MayArriveLater,
}

/// What the store forgets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// Nothing that it did: it is linearizable.
    Linearizable,
    /// A write of the lease, on failover.
    LosesLeases,
    /// The last write of the row, on failover.
    RollsBack,
}

/// One variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    pub issuer: Issuer,
    pub intent: Intent,
    /// Before an intent is written.
    pub mark: Gate,
    /// Before what came back is written.
    pub commit: Gate,
    pub conflict: Conflict,
    pub unanswered: Unanswered,
    pub undurable: Undurable,
    pub publish: Publish,
    pub over: Over,
    pub window: Window,
    pub doubt: Doubt,
    pub requests: Requests,
    pub store: Store,
}

/// How often each thing may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// At most three.
    pub nodes: usize,
    /// Presentations begun; at most [`ATTEMPTS_MAX`](super::world::ATTEMPTS_MAX).
    pub attempts: u8,
    pub crashes: u8,
    /// Requests and answers lost.
    pub losses: u8,
    /// Commits that are not answered.
    pub faults: u8,
    /// Commits among them that reach the store later than their sender waits for it.
    pub late: u8,
    /// Answers that say that it did not happen.
    pub outages: u8,
    pub revokes: u8,
    pub replaces: u8,
    /// Presentations that an operator orders.
    pub orders: u8,
    /// Failovers of the store, where they lose something.
    pub failovers: u8,
}

// === impl Rules ===

impl Rules {
    /// The protocol with a grant that is good once.
    pub const fn single_use() -> Self {
        Self {
            issuer: Issuer::Strict,
            intent: Intent::Blocking,
            mark: Gate::Version,
            commit: Gate::Version,
            conflict: Conflict::Rebase,
            unanswered: Unanswered::Retry,
            undurable: Undurable::Waits,
            publish: Publish::AfterCommit,
            over: Over::Exchange,
            window: Window::WithMargin,
            doubt: Doubt::KeepsIntent,
            requests: Requests::MayArriveLater,
            store: Store::Linearizable,
        }
    }

    /// The protocol with a grant that stays good for a while.
    pub const fn grace() -> Self {
        Self {
            issuer: Issuer::Grace,
            over: Over::Attempt,
            ..Self::single_use()
        }
    }
}
