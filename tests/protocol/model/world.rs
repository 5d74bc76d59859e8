//! The state: what every node, the store, the network and the issuer hold, what was used up of the bounds, and what went
//! wrong. Everything is a small number or a set of them, for millions of these are kept apart by their hash.

/// The most nodes: with three, two can be wrong about each other while the third acts on it.
pub const NODES_MAX: usize = 3;
/// The most presentations in one run.
pub const ATTEMPTS_MAX: usize = 5;
/// One grant to begin with, one for each presentation, one that an operator hands over.
pub const GRANTS_MAX: usize = ATTEMPTS_MAX + 2;
/// Owner of a record that presents nothing.
pub const NOBODY: Attempt = Attempt::MAX;

/// Names one presentation: an owner's nonce, and never the same twice.
pub type Attempt = u8;
/// Names one refresh token.
pub type Grant = u8;

/// A set of small numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Set(u16);

/// What the row says of the credential.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    Live,
    /// The last presentation got no answer.
    Uncertain,
    /// `reauthorization_required`.
    Ended,
    Revoked,
}

/// The row of the store, or what somebody wants it to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// What a commit must name; in a row to be written, what it replaces.
    pub version: u8,
    pub grant: Option<Grant>,
    pub standing: Standing,
    pub intent: Option<Attempt>,
}

/// One presentation on a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    pub owner: Attempt,
    /// The grant that the row held when it began: what it presents.
    pub base: Grant,
    /// The number of its lease, where leases are counted.
    pub number: u8,
    /// What it would have the row be.
    pub row: Row,
    pub tries: u8,
    /// An operator ordered it.
    pub probing: bool,
}

/// What a commit is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// An intent is cleared.
    Intent,
    /// An intent is cleared, and the credential is to be ended next.
    Refused,
    Rotated,
    State,
}

/// Where a node is in its flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    Idle,
    /// Commits its intent.
    Marking(Flow),
    /// May send.
    Ready(Flow),
    /// Sent, and waits for the answer.
    Waiting(Flow),
    /// Commits what came of it.
    Recording(Flow, Change),
}

/// A record that the store did not take.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Unsaved {
    pub owner: Attempt,
    pub base: Grant,
    pub row: Row,
    pub change: Change,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    pub phase: Phase,
    pub unsaved: Option<Unsaved>,
    /// It read or wrote the row as it is. Kept only where the store may roll back.
    pub current: bool,
    /// It read or wrote a row that the store has forgotten since.
    pub ahead: bool,
}

/// What the issuer says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Rotated(Grant),
    /// The grant is no good.
    Refused,
    /// It did not happen.
    Unavailable,
}

/// What is under way of one presentation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wire {
    Nothing,
    Request(Grant),
    Answer(Answer),
}

/// What the issuer knows of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Worth {
    Unissued,
    Live,
    /// Spent, and still good for another rotation.
    InGrace,
    /// Presenting it is a theft.
    Spent,
    /// Its family ended.
    Dead,
}

/// What was used up of the bounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Used {
    pub attempts: u8,
    pub crashes: u8,
    pub losses: u8,
    pub faults: u8,
    pub late: u8,
    pub outages: u8,
    pub revokes: u8,
    pub replaces: u8,
    pub orders: u8,
    pub failovers: u8,
}

/// What must not happen and did: none is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Wrong {
    SpentGrantPresented,
    ProbeCostAGrant,
    RotationDiscarded,
    PresentedUnmarked,
    PresentedWhileUndurable,
    PublishedUnpersisted,
    WentBack,
}

/// What the last step was an example of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Glimpse {
    RotationCommitted,
    AnswerLost,
    MadeDurableLater,
    Rebased,
    LandedBefore,
    LateCommitTaken,
    OrphanRevoked,
    ResentInGrace,
    ProbeAnswered,
    Published,
}

/// Examples seen in the last step. They tell worlds apart, or an example that leads where another path led before would
/// never be seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Glimpses(Set);

/// All there is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub row: Row,
    /// The attempt that the row's intent names is over: a clock says so, the store need not.
    pub over: bool,
    /// The grace of the row's grant is over, as nodes count it.
    pub window_over: bool,
    pub lease: Option<Attempt>,
    /// Counts leases, where a variant compares the number.
    pub leases: u8,
    /// The row before the last write, where the store may go back to it.
    pub former: Option<Row>,
    /// A commit on its way to the store, whose sender no longer waits for it.
    pub late: Option<Row>,
    /// In order: nodes have no names, so that worlds that differ in names only are one.
    pub nodes: [Node; NODES_MAX],
    pub wire: [Wire; ATTEMPTS_MAX],
    pub worth: [Worth; GRANTS_MAX],
    /// The first grant that an operator handed over in place of the first of all, and those that came of it: the family.
    pub second_family: Set,
    /// Grants that an operator ordered to be presented again.
    pub ordered: Set,
    /// Attempts whose intent was written.
    pub marked: Set,
    /// The last word of the operator was to revoke.
    pub revoked: bool,
    pub used: Used,
    pub wrong: Set,
    pub glimpses: Glimpses,
}

// === impl Set ===

impl Set {
    pub fn has(self, member: u8) -> bool {
        self.0 & (1 << member) != 0
    }

    pub fn add(&mut self, member: u8) {
        self.0 |= 1 << member;
    }

    pub fn remove(&mut self, member: u8) {
        self.0 &= !(1 << member);
    }
}

// === impl Row ===

impl Row {
    /// Whether both say the same of the credential, whatever their versions.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let version = other.version;
        Self { version, ..*self } == *other
    }
}

// === impl Node ===

impl Node {
    const IDLE: Self = Self {
        phase: Phase::Idle,
        unsaved: None,
        current: false,
        ahead: false,
    };

    /// The flow it is in.
    pub fn flow(&self) -> Option<&Flow> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Marking(flow) | Phase::Ready(flow) | Phase::Waiting(flow) => Some(flow),
            Phase::Recording(flow, _) => Some(flow),
        }
    }
}

// === impl Glimpses ===

impl Glimpses {
    pub fn has(self, glimpse: Glimpse) -> bool {
        self.0.has(glimpse as u8)
    }

    pub fn add(&mut self, glimpse: Glimpse) {
        self.0.add(glimpse as u8);
    }
}

// === impl World ===

impl World {
    /// One live grant that nobody presents.
    pub fn new() -> Self {
        let mut worth = [Worth::Unissued; GRANTS_MAX];
        worth[0] = Worth::Live;
        Self {
            row: Row {
                version: 1,
                grant: Some(0),
                standing: Standing::Live,
                intent: None,
            },
            over: false,
            window_over: false,
            lease: None,
            leases: 0,
            former: None,
            late: None,
            nodes: [Node::IDLE; NODES_MAX],
            wire: [Wire::Nothing; ATTEMPTS_MAX],
            worth,
            second_family: Set::default(),
            ordered: Set::default(),
            marked: Set::default(),
            revoked: false,
            used: Used::default(),
            wrong: Set::default(),
            glimpses: Glimpses::default(),
        }
    }

    /// Whether nothing is under way: no flow, no message, no commit, no record that waits.
    pub fn at_rest(&self) -> bool {
        let idle = |node: &Node| node.phase == Phase::Idle && node.unsaved.is_none();
        let silent = self.wire.iter().all(|it| *it == Wire::Nothing);
        self.nodes.iter().all(idle) && silent && self.late.is_none()
    }

    pub fn went_wrong(&mut self, wrong: Wrong) {
        self.wrong.add(wrong as u8);
    }

    pub fn is_free_of(&self, wrong: Wrong) -> bool {
        !self.wrong.has(wrong as u8)
    }

    /// Whether it is of the family that the operator last handed over.
    pub fn in_force(&self, grant: Grant) -> bool {
        self.second_family.has(grant) == (self.used.replaces > 0)
    }

    /// The node that waits for the answer to this attempt.
    pub fn who_waits(&self, attempt: Attempt) -> Option<usize> {
        let waits = |node: &Node| matches!(node.phase, Phase::Waiting(it) if it.owner == attempt);
        self.nodes.iter().position(waits)
    }
}
