//! What may happen next, and its dispatch. Everything that is listed does happen when it is chosen.

use super::Protocol;
use super::node::Admission;
use super::rules::{Gate, Issuer, Requests, Rules, Store, Undurable, Window};
use super::world::{Attempt, Grant, Node, Phase, Wire, World, Worth};

/// How the store answers a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// By doing it, or by refusing it.
    Answered,
    /// Not, and it was not done.
    LostBefore,
    /// Not, and it was done.
    LostAfter,
    /// Not yet, and it is still under way.
    Late,
}

/// One step. Nodes are named by their place, which changes: follow them by the attempt that they make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A node takes the lease and reads the row.
    Begin(usize),
    /// The same, because an operator ordered it.
    BeginOrdered(usize),
    /// A node commits what it has to.
    Commit(usize, Outcome),
    /// The grant leaves.
    Send(usize),
    /// A node gives up waiting.
    TimeOut(usize),
    /// A node tries again to commit the record that the store did not take.
    Save(usize, Outcome),
    Crash(usize),
    /// The issuer gets the request and acts on it.
    Act(Attempt),
    /// The issuer gets the request and says that it did not happen.
    Decline(Attempt),
    /// The answer arrives.
    Deliver(Attempt),
    /// What is under way is lost.
    Lose(Attempt),
    /// A commit arrives that nobody waits for any more.
    Arrive,
    /// The lease ends, for whatever reason.
    Expire,
    /// Enough time has passed for the intent's attempt to be over.
    Over,
    /// The row's grant is past its grace, as nodes count it.
    WindowOver,
    /// A grant is past its grace, as the issuer counts it.
    GraceOver(Grant),
    /// An operator revokes the credential, and the issuer is told or cannot be.
    Revoke {
        told: bool,
    },
    /// An operator hands another grant over.
    Replace,
    /// An operator hands the same grant over again.
    Order,
    /// The store loses what its variant loses.
    FailOver,
}

// === impl World ===

impl World {
    /// Lists what may happen.
    pub fn enabled(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        let bounds = &protocol.bounds;
        for at in 0..bounds.nodes {
            // Nodes in the same situation would do the same.
            if at == 0 || self.nodes[at - 1] != self.nodes[at] {
                self.enabled_of_node(protocol, at, actions);
            }
        }
        for attempt in 0..self.used.attempts {
            self.enabled_of_wire(protocol, attempt, actions);
        }
        if self.late.is_some() {
            actions.push(Action::Arrive);
        }
        self.enabled_of_time(protocol, actions);
        self.enabled_of_operator(protocol, actions);
        let loses = protocol.rules.store != Store::Linearizable;
        if loses && self.used.failovers < bounds.failovers {
            let something = match protocol.rules.store {
                Store::RollsBack => self.former.is_some(),
                Store::LosesLeases | Store::Linearizable => self.lease.is_some(),
            };
            if something {
                actions.push(Action::FailOver);
            }
        }
    }

    fn enabled_of_node(&self, protocol: &Protocol, at: usize, actions: &mut Vec<Action>) {
        let (bounds, node) = (&protocol.bounds, &self.nodes[at]);
        let faulty = self.used.faults < bounds.faults;
        match &node.phase {
            Phase::Idle => self.enabled_of_idle(protocol, at, actions),
            Phase::Marking(flow) | Phase::Recording(flow, _) => {
                actions.push(Action::Commit(at, Outcome::Answered));
                if faulty {
                    actions.push(Action::Commit(at, Outcome::LostBefore));
                    if self.late.is_none() && self.used.late < bounds.late {
                        actions.push(Action::Commit(at, Outcome::Late));
                    }
                    let marking = matches!(node.phase, Phase::Marking(_));
                    if self.takes(protocol, flow, marking) {
                        actions.push(Action::Commit(at, Outcome::LostAfter));
                    }
                }
            }
            Phase::Ready(_) => actions.push(Action::Send(at)),
            Phase::Waiting(flow) => {
                let late = protocol.rules.requests == Requests::MayArriveLater
                    && self.used.losses < bounds.losses;
                match self.wire[usize::from(flow.owner)] {
                    Wire::Nothing => actions.push(Action::TimeOut(at)),
                    Wire::Request(_) if late => actions.push(Action::TimeOut(at)),
                    Wire::Request(_) | Wire::Answer(_) => {}
                }
            }
        }
        if let Some(unsaved) = &node.unsaved {
            actions.push(Action::Save(at, Outcome::Answered));
            if faulty && self.fits(&protocol.rules, unsaved) {
                actions.push(Action::Save(at, Outcome::LostAfter));
            }
        }
        let busy = node.phase != Phase::Idle || node.unsaved.is_some();
        if busy && self.used.crashes < bounds.crashes {
            actions.push(Action::Crash(at));
        }
    }

    fn enabled_of_idle(&self, protocol: &Protocol, at: usize, actions: &mut Vec<Action>) {
        let waits = protocol.rules.undurable == Undurable::Waits;
        if waits && self.nodes[at].unsaved.is_some() || self.lease.is_some() {
            return;
        }
        let left = self.used.attempts < protocol.bounds.attempts;
        match self.admit(&protocol.rules, false) {
            Some(Admission::Go { .. }) if !left => {}
            Some(_) => actions.push(Action::Begin(at)),
            None => {}
        }
        let order = self.used.orders < protocol.bounds.orders;
        if order && left && self.admit(&protocol.rules, true) == Some(Admission::Probe) {
            actions.push(Action::BeginOrdered(at));
        }
    }

    fn enabled_of_wire(&self, protocol: &Protocol, attempt: Attempt, actions: &mut Vec<Action>) {
        let awaited = self.who_waits(attempt).is_some();
        let may_lose = self.used.losses < protocol.bounds.losses;
        match self.wire[usize::from(attempt)] {
            Wire::Nothing => {}
            Wire::Request(_) => {
                actions.push(Action::Act(attempt));
                if awaited && self.used.outages < protocol.bounds.outages {
                    actions.push(Action::Decline(attempt));
                }
                if may_lose || !awaited {
                    actions.push(Action::Lose(attempt));
                }
            }
            Wire::Answer(_) => {
                actions.push(Action::Deliver(attempt));
                if may_lose {
                    actions.push(Action::Lose(attempt));
                }
            }
        }
    }

    fn enabled_of_time(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        if self.lease.is_some() {
            actions.push(Action::Expire);
        }
        if self.may_be_over(&protocol.rules) {
            actions.push(Action::Over);
        }
        if protocol.rules.issuer == Issuer::Grace {
            if !self.window_over && self.row.grant.is_some() {
                actions.push(Action::WindowOver);
            }
            for (grant, worth) in (0..).zip(&self.worth) {
                if *worth == Worth::InGrace && self.grace_may_end(&protocol.rules, grant) {
                    actions.push(Action::GraceOver(grant));
                }
            }
        }
    }

    /// With a margin, the issuer's window ends after everything that began in the node's.
    fn grace_may_end(&self, rules: &Rules, grant: Grant) -> bool {
        let presents = |node: &Node| match &node.phase {
            Phase::Marking(it) | Phase::Ready(it) | Phase::Waiting(it) => it.base == grant,
            Phase::Idle | Phase::Recording(..) => false,
        };
        rules.window == Window::AsLong
            || (self.row.grant != Some(grant) || self.window_over)
                && !self.nodes.iter().any(presents)
                && !self.wire.contains(&Wire::Request(grant))
    }

    fn enabled_of_operator(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        let (bounds, used) = (&protocol.bounds, &self.used);
        if used.revokes < bounds.revokes && !self.revoked {
            actions.push(Action::Revoke { told: true });
            actions.push(Action::Revoke { told: false });
        }
        if used.replaces < bounds.replaces {
            actions.push(Action::Replace);
        }
        if used.orders < bounds.orders && self.may_order() {
            actions.push(Action::Order);
        }
    }

    /// What the world is after it.
    pub fn after(&self, protocol: &Protocol, action: Action) -> Self {
        let mut world = self.clone();
        world.glimpses = super::world::Glimpses::default();
        let rules = &protocol.rules;
        match action {
            Action::Begin(at) => world.begin(rules, at, false),
            Action::BeginOrdered(at) => world.begin(rules, at, true),
            Action::Commit(at, outcome) => world.commit(protocol, at, outcome),
            Action::Send(at) => world.send(at),
            Action::TimeOut(at) => world.time_out(rules, at),
            Action::Save(at, outcome) => world.save(protocol, at, outcome),
            Action::Crash(at) => world.crash(at),
            Action::Act(attempt) => world.act(rules, attempt),
            Action::Decline(attempt) => world.decline(attempt),
            Action::Deliver(attempt) => world.deliver(rules, attempt),
            Action::Lose(attempt) => world.lose(attempt),
            Action::Arrive => world.arrive(rules),
            Action::Expire => world.lease = None,
            Action::Over => world.over = true,
            Action::WindowOver => world.window_over = true,
            Action::GraceOver(grant) => world.worth[usize::from(grant)] = Worth::Spent,
            Action::Revoke { told } => world.revoke(rules, told),
            Action::Replace => world.replace(rules),
            Action::Order => world.order(rules),
            Action::FailOver => world.fail_over(rules),
        }
        world.nodes[..protocol.bounds.nodes].sort_unstable();
        world
    }

    fn fail_over(&mut self, rules: &Rules) {
        self.used.failovers += 1;
        match (rules.store, self.former.take()) {
            (Store::RollsBack, Some(former)) => {
                self.row = former;
                for node in &mut self.nodes {
                    node.ahead |= std::mem::take(&mut node.current);
                }
            }
            _ => {
                self.lease = None;
                if rules.mark == Gate::Number {
                    self.leases -= 1;
                }
            }
        }
    }
}
