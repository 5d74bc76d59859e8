//! What is not a node: the issuer, the network, the operator, and time.

use super::rules::{Issuer, Over, Rules};
use super::world::{
    Answer, Attempt, Flow, Glimpse, Grant, Node, Phase, Row, Set, Standing, Wire, World, Worth,
    Wrong,
};

// === impl World ===

impl World {
    // Network.

    pub(super) fn act(&mut self, rules: &Rules, attempt: Attempt) {
        let Wire::Request(grant) = self.wire[usize::from(attempt)] else {
            return;
        };
        let answer = self.presented(rules, grant);
        self.answer(attempt, answer);
    }

    pub(super) fn decline(&mut self, attempt: Attempt) {
        self.used.outages += 1;
        self.answer(attempt, Answer::Unavailable);
    }

    /// An answer that nobody waits for is lost.
    fn answer(&mut self, attempt: Attempt, answer: Answer) {
        self.wire[usize::from(attempt)] = Wire::Answer(answer);
        if self.who_waits(attempt).is_none() {
            self.gone(attempt);
        }
    }

    pub(super) fn lose(&mut self, attempt: Attempt) {
        if self.who_waits(attempt).is_some() {
            self.used.losses += 1;
        }
        self.gone(attempt);
    }

    fn gone(&mut self, attempt: Attempt) {
        let wire = std::mem::replace(&mut self.wire[usize::from(attempt)], Wire::Nothing);
        if let Wire::Answer(Answer::Rotated(_)) = wire {
            self.glimpses.add(Glimpse::AnswerLost);
        }
    }

    // Issuer.

    fn presented(&mut self, rules: &Rules, grant: Grant) -> Answer {
        match self.worth[usize::from(grant)] {
            Worth::Live => {
                self.worth[usize::from(grant)] = match rules.issuer {
                    Issuer::Strict => Worth::Spent,
                    Issuer::Grace => Worth::InGrace,
                };
                Answer::Rotated(self.issue(self.second_family.has(grant)))
            }
            Worth::InGrace => {
                // Unkind, and seen: the rotation that came before is taken for stolen when somebody presents it.
                for of in self.family(grant) {
                    let worth = &mut self.worth[usize::from(of)];
                    if *worth == Worth::Live {
                        *worth = Worth::Spent;
                    }
                }
                Answer::Rotated(self.issue(self.second_family.has(grant)))
            }
            Worth::Spent => {
                if !self.ordered.has(grant) {
                    self.went_wrong(Wrong::SpentGrantPresented);
                } else if self.family(grant).any(|it| self.is_held(it)) {
                    self.went_wrong(Wrong::ProbeCostAGrant);
                }
                self.end_family_of(grant);
                Answer::Refused
            }
            Worth::Dead | Worth::Unissued => Answer::Refused,
        }
    }

    fn issue(&mut self, second_family: bool) -> Grant {
        let unissued = |(_, worth): &(Grant, &mut Worth)| **worth == Worth::Unissued;
        let Some((grant, worth)) = (0..).zip(&mut self.worth).find(unissued) else {
            unreachable!("there is one for each presentation and one for the operator");
        };
        *worth = Worth::Live;
        if second_family {
            self.second_family.add(grant);
        }
        grant
    }

    fn family(&self, grant: Grant) -> impl Iterator<Item = Grant> + use<> {
        let (second, worth): (Set, _) = (self.second_family, self.worth);
        (0..)
            .zip(worth)
            .filter(move |(of, worth)| {
                *worth != Worth::Unissued && second.has(*of) == second.has(grant)
            })
            .map(|(of, _)| of)
    }

    pub(super) fn end_family_of(&mut self, grant: Grant) {
        for of in self.family(grant) {
            self.worth[usize::from(of)] = Worth::Dead;
        }
    }

    /// Whether this grant is live and somebody has it, or is about to.
    fn is_held(&self, grant: Grant) -> bool {
        let holds = |row: &Row| row.grant == Some(grant);
        let node = |node: &Node| {
            node.flow().is_some_and(|flow| holds(&flow.row))
                || node.unsaved.is_some_and(|it| holds(&it.row))
        };
        self.worth[usize::from(grant)] == Worth::Live
            && (holds(&self.row)
                || self.nodes.iter().any(node)
                || self.wire.contains(&Wire::Answer(Answer::Rotated(grant))))
    }

    // Time.

    /// Whether the attempt that the row's intent names is provably over.
    pub fn may_be_over(&self, rules: &Rules) -> bool {
        let Some(owner) = self.row.intent else {
            return false;
        };
        let is = |flow: &Flow| flow.owner == owner;
        let busy = |node: &Node| match &node.phase {
            Phase::Idle => false,
            Phase::Marking(flow) | Phase::Ready(flow) | Phase::Waiting(flow) => is(flow),
            Phase::Recording(flow, _) => rules.over == Over::Attempt && is(flow),
        };
        let keeps = |node: &Node| {
            rules.over == Over::Attempt && node.unsaved.is_some_and(|it| it.owner == owner)
        };
        !self.over
            && self.wire[usize::from(owner)] == Wire::Nothing
            && !self.nodes.iter().any(|node| busy(node) || keeps(node))
    }

    // Operator.

    pub(super) fn revoke(&mut self, rules: &Rules, told: bool) {
        self.used.revokes += 1;
        self.revoked = true;
        let grant = self.row.grant;
        let row = Row {
            grant: None,
            standing: Standing::Revoked,
            intent: None,
            ..self.row
        };
        self.write_row(rules, row);
        if let Some(grant) = grant.filter(|_| told) {
            self.end_family_of(grant);
        }
    }

    pub(super) fn replace(&mut self, rules: &Rules) {
        self.used.replaces += 1;
        self.revoked = false;
        let row = Row {
            grant: Some(self.issue(true)),
            standing: Standing::Live,
            intent: None,
            ..self.row
        };
        self.write_row(rules, row);
    }

    /// Whether there is a doubted grant that an operator may order to be presented again.
    pub fn may_order(&self) -> bool {
        let doubted = matches!(self.row.standing, Standing::Uncertain | Standing::Ended);
        doubted && self.row.grant.is_some()
    }

    /// The same grant handed over again still is the one that may be on its way.
    pub(super) fn order(&mut self, rules: &Rules) {
        self.used.orders += 1;
        if let Some(grant) = self.row.grant {
            self.ordered.add(grant);
        }
        let row = Row {
            standing: Standing::Live,
            intent: self.row.intent.filter(|_| !self.over),
            ..self.row
        };
        self.write_row(rules, row);
    }
}
