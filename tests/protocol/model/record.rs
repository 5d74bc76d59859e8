//! Commits: what the store takes, what becomes of what it did not take, and what a node keeps until it does. The host's side
//! of this is `model/flow/records`, `refresh/drive` and `unsaved`.

use super::Protocol;
use super::actions::Outcome;
use super::rules::{Conflict, Gate, Rules, Store, Unanswered};
use super::world::{
    Change, Flow, Glimpse, NOBODY, Phase, Row, Standing, Unsaved, World, Worth, Wrong,
};

/// How often a commit is tried before its record is kept in memory: once more than once. The host tries oftener, which adds
/// nothing but length.
const RECORD_TRIES: u8 = 2;

/// What a record is to a row that it was not decided on.
enum Onto {
    /// It is to be written like this.
    Write(Row),
    /// It is there already.
    Done,
    /// Somebody else is at it: it no longer counts.
    Moot,
}

// === impl World ===

impl World {
    /// Whether the store would take what this flow commits.
    pub fn takes(&self, protocol: &Protocol, flow: &Flow, marking: bool) -> bool {
        let gate = match marking {
            true => protocol.rules.mark,
            false => protocol.rules.commit,
        };
        match gate {
            Gate::Owner if flow.owner != NOBODY => self.lease == Some(flow.owner),
            Gate::Number => self.leases == flow.number,
            Gate::Owner | Gate::Version => self.row.version == flow.row.version,
        }
    }

    pub(super) fn commit(&mut self, protocol: &Protocol, at: usize, outcome: Outcome) {
        let rules = &protocol.rules;
        match self.nodes[at].phase {
            Phase::Marking(flow) => self.mark(protocol, at, flow, outcome),
            Phase::Recording(flow, change) => match outcome {
                Outcome::Answered if self.takes(protocol, &flow, false) => {
                    let version = self.write(rules, flow.row);
                    self.nodes[at].current = self.former.is_some();
                    self.recorded(at, flow, change, version);
                }
                Outcome::Answered => self.refused(protocol, at, flow, change),
                Outcome::LostBefore | Outcome::LostAfter | Outcome::Late => {
                    self.unanswered(rules, flow.row, outcome);
                    if rules.unanswered == Unanswered::GiveUp {
                        self.drop_of(&flow, change);
                        self.land(at);
                    } else if flow.tries + 1 < RECORD_TRIES {
                        let tries = flow.tries + 1;
                        self.nodes[at].phase = Phase::Recording(Flow { tries, ..flow }, change);
                    } else {
                        self.strand(at, flow, change);
                    }
                }
            },
            Phase::Idle | Phase::Ready(_) | Phase::Waiting(_) => {}
        }
    }

    /// What the store did, or is going to do, with a commit that it does not answer.
    fn unanswered(&mut self, rules: &Rules, row: Row, outcome: Outcome) {
        self.used.faults += 1;
        match outcome {
            Outcome::LostAfter => {
                self.write(rules, row);
            }
            Outcome::Late => {
                self.used.late += 1;
                self.late = Some(row);
            }
            Outcome::LostBefore | Outcome::Answered => {}
        }
    }

    /// The store compares it like any other.
    pub(super) fn arrive(&mut self, rules: &Rules) {
        if let Some(row) = self.late.take().filter(|it| it.version == self.row.version) {
            self.write(rules, row);
            self.glimpses.add(Glimpse::LateCommitTaken);
        }
    }

    fn mark(&mut self, protocol: &Protocol, at: usize, flow: Flow, outcome: Outcome) {
        let rules = &protocol.rules;
        // Who has the number need not have read the row that it writes to.
        let row = match rules.mark {
            Gate::Number => Row {
                intent: flow.row.intent,
                ..self.row
            },
            Gate::Owner | Gate::Version => flow.row,
        };
        if outcome == Outcome::Answered {
            if self.takes(protocol, &flow, true) {
                let version = self.write(rules, row);
                self.nodes[at].current = self.former.is_some();
                self.marked_at(at, flow, version);
            } else if flow.tries > 0 && self.landed_before(&flow) {
                self.glimpses.add(Glimpse::LandedBefore);
                self.marked_at(at, flow, self.row.version);
            } else {
                self.land(at);
            }
            return;
        }
        self.unanswered(rules, row, outcome);
        if rules.unanswered == Unanswered::GiveUp {
            self.land(at);
        } else if flow.tries + 1 < RECORD_TRIES {
            let tries = flow.tries + 1;
            self.nodes[at].phase = Phase::Marking(Flow { tries, ..flow });
        } else {
            // It may have been made: what is to be recorded is that nothing left.
            let row = Row {
                intent: None,
                ..flow.row
            };
            self.strand(at, Flow { row, ..flow }, Change::Intent);
        }
    }

    fn marked_at(&mut self, at: usize, mut flow: Flow, version: u8) {
        flow.row.version = version;
        flow.tries = 0;
        self.nodes[at].phase = Phase::Ready(flow);
    }

    /// Whether a commit that was not answered is the row.
    fn landed_before(&self, flow: &Flow) -> bool {
        self.row.version == flow.row.version + 1 && self.row.says_the_same(&flow.row)
    }

    fn write(&mut self, rules: &Rules, row: Row) -> u8 {
        let before = self.row;
        let version = before.version + 1;
        self.row = Row { version, ..row };
        if row.intent != before.intent {
            self.over = false;
            if let Some(owner) = row.intent {
                self.marked.add(owner);
            }
        }
        if row.grant != before.grant {
            self.window_over = false;
        }
        if rules.store == Store::RollsBack {
            self.former = Some(before);
            for node in &mut self.nodes {
                node.current = false;
            }
        }
        version
    }

    /// The same for whoever is no flow.
    pub(super) fn write_row(&mut self, rules: &Rules, row: Row) {
        self.write(rules, row);
    }

    fn recorded(&mut self, at: usize, mut flow: Flow, change: Change, version: u8) {
        match (change, flow.row.grant) {
            (Change::Rotated, Some(grant)) => {
                self.glimpses.add(Glimpse::RotationCommitted);
                self.publish(at, grant);
            }
            (Change::Refused, _) => {
                flow.row.version = version;
                flow.row.standing = Standing::Ended;
                flow.tries = 0;
                self.nodes[at].phase = Phase::Recording(flow, Change::State);
                return;
            }
            _ => {}
        }
        self.land(at);
    }

    /// The row moved on: is it still this flow's to write?
    fn refused(&mut self, protocol: &Protocol, at: usize, mut flow: Flow, change: Change) {
        let rules = &protocol.rules;
        if flow.tries > 0 && self.landed_before(&flow) {
            self.glimpses.add(Glimpse::LandedBefore);
            return self.recorded(at, flow, change, self.row.version);
        }
        if rules.commit == Gate::Owner || rules.conflict == Conflict::GiveUp {
            self.drop_of(&flow, change);
            return self.land(at);
        }
        self.read(at);
        let record = Unsaved {
            owner: flow.owner,
            base: flow.base,
            row: flow.row,
            change,
        };
        if !self.fits(rules, &record) {
            self.superseded(&record);
            return self.land(at);
        }
        match self.onto(rules, &record) {
            Onto::Done => self.recorded(at, flow, change, self.row.version),
            Onto::Moot => self.land(at),
            Onto::Write(row) => {
                self.glimpses.add(Glimpse::Rebased);
                flow.row = row;
                flow.tries += 1;
                if flow.tries >= RECORD_TRIES {
                    self.strand(at, flow, change);
                } else {
                    self.nodes[at].phase = Phase::Recording(flow, change);
                }
            }
        }
    }

    /// Whether the row's grant still is the one that this was decided on, or the one that it brings.
    pub fn fits(&self, rules: &Rules, record: &Unsaved) -> bool {
        let grant = self.row.grant;
        let untouched = grant == Some(record.base) || grant == record.row.grant;
        let revoked = self.row.standing == Standing::Revoked;
        rules.conflict == Conflict::Blind || untouched && !revoked
    }

    fn onto(&self, rules: &Rules, record: &Unsaved) -> Onto {
        let (row, ours) = (self.row, &record.row);
        let version = row.version;
        let careful = !matches!(rules.conflict, Conflict::Overwrite | Conflict::Blind);
        let others = row.intent.is_some_and(|owner| owner != record.owner);
        match record.change {
            Change::Rotated if careful && row.grant == ours.grant => Onto::Done,
            Change::State if careful && others => Onto::Moot,
            Change::Rotated | Change::State => Onto::Write(Row { version, ..*ours }),
            Change::Intent | Change::Refused if others => Onto::Write(row),
            Change::Intent | Change::Refused => Onto::Write(Row {
                intent: ours.intent,
                ..row
            }),
        }
    }

    /// The store does not answer: the record is kept, and the flow goes on as if it had been taken.
    fn strand(&mut self, at: usize, flow: Flow, change: Change) {
        let kept = match change {
            Change::Refused => Change::Intent,
            change => change,
        };
        self.nodes[at].unsaved = Some(Unsaved {
            owner: flow.owner,
            base: flow.base,
            row: Row {
                version: 0,
                ..flow.row
            },
            change: kept,
        });
        match (change, flow.row.grant) {
            (Change::Rotated, Some(grant)) => self.publish(at, grant),
            (Change::Refused, _) => {
                return self.recorded(at, flow, change, flow.row.version);
            }
            _ => {}
        }
        self.land(at);
    }

    pub(super) fn save(&mut self, protocol: &Protocol, at: usize, outcome: Outcome) {
        let rules = &protocol.rules;
        let Some(record) = self.nodes[at].unsaved else {
            return;
        };
        self.read(at);
        if !self.fits(rules, &record) {
            self.superseded(&record);
            self.nodes[at].unsaved = None;
            return;
        }
        if let Onto::Write(row) = self.onto(rules, &record) {
            self.write(rules, row);
            self.nodes[at].current = self.former.is_some();
        }
        if outcome == Outcome::Answered {
            self.nodes[at].unsaved = None;
            self.glimpses.add(Glimpse::MadeDurableLater);
        } else {
            self.used.faults += 1;
        }
    }

    /// Somebody revoked or replaced the credential: theirs stands. A grant that came back after a revoke is revoked at the
    /// issuer, after a replacement it is dropped.
    fn superseded(&mut self, record: &Unsaved) {
        let (Change::Rotated, Some(grant)) = (record.change, record.row.grant) else {
            return;
        };
        if self.row.standing == Standing::Revoked {
            self.end_family_of(grant);
            self.glimpses.add(Glimpse::OrphanRevoked);
        } else {
            self.dropped(grant);
        }
    }

    fn drop_of(&mut self, flow: &Flow, change: Change) {
        if let (Change::Rotated, Some(grant)) = (change, flow.row.grant) {
            self.dropped(grant);
        }
    }

    /// A grant that came back is in nobody's hands any more.
    fn dropped(&mut self, grant: u8) {
        let live = self.worth[usize::from(grant)] == Worth::Live;
        let wanted = !self.revoked && self.in_force(grant) && self.row.grant != Some(grant);
        if live && wanted {
            self.went_wrong(Wrong::RotationDiscarded);
        }
    }
}
