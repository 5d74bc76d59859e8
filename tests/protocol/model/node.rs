//! A flow on a node, without its commits: may the grant be presented, presenting it, and reading what came back. The host's
//! side of this is `model/flow/{admission,words,answers}`.

use super::rules::{Doubt, Gate, Intent, Issuer, Publish, Rules};
use super::world::{
    Answer, Change, Flow, Glimpse, NOBODY, Phase, Row, Standing, Wire, World, Wrong,
};

/// Whether a flow may present the row's grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Yes.
    Go {
        /// Its last answer was lost.
        doubted: bool,
    },
    /// Yes, by an operator's order.
    Probe,
    /// No, and the credential is to be ended.
    End,
}

// === impl World ===

impl World {
    /// Whether whoever begins now may present the grant; none when there is nothing to do but wait. That callers may be
    /// served by the token they have is a reason to wait too, and not to act is always possible here.
    pub fn admit(&self, rules: &Rules, ordered: bool) -> Option<Admission> {
        self.row.grant?;
        let waits = self.row.intent.is_some() && !self.over;
        match (self.row.standing, self.row.intent, rules.intent) {
            (Standing::Ended | Standing::Revoked, _, _) => None,
            (Standing::Live, None, _) => Some(Admission::Go { doubted: false }),
            (Standing::Live, Some(_), Intent::Passable) if rules.issuer == Issuer::Strict => {
                Some(Admission::Go { doubted: false })
            }
            (_, _, Intent::None | Intent::Blocking) if waits => None,
            _ if rules.issuer == Issuer::Grace && !self.window_over => {
                Some(Admission::Go { doubted: true })
            }
            _ if ordered => Some(Admission::Probe),
            _ => Some(Admission::End),
        }
    }

    pub(super) fn begin(&mut self, rules: &Rules, at: usize, ordered: bool) {
        let (Some(admission), Some(base)) = (self.admit(rules, ordered), self.row.grant) else {
            return;
        };
        self.read(at);
        let mut flow = Flow {
            owner: NOBODY,
            base,
            number: 0,
            row: self.row,
            tries: 0,
            probing: false,
        };
        flow.row.intent = None;
        let doubted = match admission {
            Admission::End => {
                flow.row.standing = Standing::Ended;
                self.nodes[at].phase = Phase::Recording(flow, Change::State);
                return;
            }
            Admission::Go { doubted } => doubted,
            Admission::Probe => {
                self.used.orders += 1;
                self.ordered.add(base);
                true
            }
        };
        if doubted {
            flow.row.standing = Standing::Uncertain;
        }
        flow.probing = admission == Admission::Probe;
        flow.owner = self.used.attempts;
        self.used.attempts += 1;
        self.lease = Some(flow.owner);
        if rules.mark == Gate::Number {
            self.leases += 1;
            flow.number = self.leases;
        }
        self.nodes[at].phase = if rules.intent == Intent::None {
            Phase::Ready(flow)
        } else {
            flow.row.intent = Some(flow.owner);
            Phase::Marking(flow)
        };
    }

    pub(super) fn send(&mut self, at: usize) {
        let Phase::Ready(flow) = self.nodes[at].phase else {
            return;
        };
        if !self.marked.has(flow.owner) {
            self.went_wrong(Wrong::PresentedUnmarked);
        }
        if self.nodes[at].unsaved.is_some() {
            self.went_wrong(Wrong::PresentedWhileUndurable);
        }
        self.wire[usize::from(flow.owner)] = Wire::Request(flow.base);
        self.nodes[at].phase = Phase::Waiting(flow);
    }

    /// Nobody knows whether the grant was spent.
    pub(super) fn time_out(&mut self, rules: &Rules, at: usize) {
        let Phase::Waiting(mut flow) = self.nodes[at].phase else {
            return;
        };
        if self.wire[usize::from(flow.owner)] != Wire::Nothing {
            self.used.losses += 1;
        }
        flow.row.standing = if flow.probing {
            Standing::Ended
        } else {
            Standing::Uncertain
        };
        if rules.doubt == Doubt::ClearsIntent || flow.probing {
            flow.row.intent = None;
        }
        self.nodes[at].phase = Phase::Recording(flow, Change::State);
    }

    pub(super) fn deliver(&mut self, rules: &Rules, attempt: u8) {
        let wire = std::mem::replace(&mut self.wire[usize::from(attempt)], Wire::Nothing);
        let (Some(at), Wire::Answer(answer)) = (self.who_waits(attempt), wire) else {
            return;
        };
        let Phase::Waiting(mut flow) = self.nodes[at].phase else {
            return;
        };
        let resent = flow.row.standing == Standing::Uncertain;
        let marked = flow.row.intent.take().is_some();
        let change = match answer {
            Answer::Rotated(grant) => {
                match (resent, flow.probing) {
                    (_, true) => self.glimpses.add(Glimpse::ProbeAnswered),
                    (true, false) => self.glimpses.add(Glimpse::ResentInGrace),
                    (false, false) => {}
                }
                flow.row.grant = Some(grant);
                flow.row.standing = Standing::Live;
                if rules.publish == Publish::BeforeCommit {
                    self.publish(at, grant);
                }
                Change::Rotated
            }
            Answer::Refused if marked => Change::Refused,
            Answer::Refused => {
                flow.row.standing = Standing::Ended;
                Change::State
            }
            Answer::Unavailable if marked => Change::Intent,
            Answer::Unavailable => return self.land(at),
        };
        self.nodes[at].phase = Phase::Recording(flow, change);
    }

    /// Callers get the token that came with this grant.
    pub(super) fn publish(&mut self, at: usize, grant: u8) {
        self.glimpses.add(Glimpse::Published);
        let holds = |row: &Row| row.grant == Some(grant);
        let kept = self.nodes[at]
            .unsaved
            .as_ref()
            .is_some_and(|unsaved| holds(&unsaved.row));
        if !kept && !holds(&self.row) {
            self.went_wrong(Wrong::PublishedUnpersisted);
        }
    }

    /// The flow is over, and the lease given back.
    pub(super) fn land(&mut self, at: usize) {
        let phase = std::mem::replace(&mut self.nodes[at].phase, Phase::Idle);
        let (Phase::Marking(flow)
        | Phase::Ready(flow)
        | Phase::Waiting(flow)
        | Phase::Recording(flow, _)) = phase
        else {
            return;
        };
        if flow.owner != NOBODY {
            self.marked.remove(flow.owner);
            if self.lease == Some(flow.owner) {
                self.lease = None;
            }
        }
    }

    /// Everything that was in memory is gone; what is under way stays so, and what comes of it finds nobody.
    pub(super) fn crash(&mut self, at: usize) {
        self.used.crashes += 1;
        let node = &mut self.nodes[at];
        node.unsaved = None;
        node.current = false;
        node.ahead = false;
        let phase = std::mem::replace(&mut node.phase, Phase::Idle);
        if let Phase::Marking(flow) | Phase::Ready(flow) | Phase::Waiting(flow) = phase {
            self.marked.remove(flow.owner);
            let wire = &mut self.wire[usize::from(flow.owner)];
            if let Wire::Answer(answer) = *wire {
                *wire = Wire::Nothing;
                if let Answer::Rotated(_) = answer {
                    self.glimpses.add(Glimpse::AnswerLost);
                }
            }
        }
        if let Phase::Recording(flow, _) = phase
            && flow.owner != NOBODY
        {
            self.marked.remove(flow.owner);
        }
    }

    /// The node sees the row as it is.
    pub(super) fn read(&mut self, at: usize) {
        if self.nodes[at].ahead {
            self.went_wrong(Wrong::WentBack);
        }
        if let Some(flow) = self.nodes[at].flow()
            && flow.row.version > self.row.version
        {
            self.went_wrong(Wrong::WentBack);
        }
        self.nodes[at].ahead = false;
        self.nodes[at].current = self.former.is_some();
    }
}
