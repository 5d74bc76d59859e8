//! Who queues for a provider, and who of them is next: one of every tenant in turn, so that the crowd of one is no other's; of
//! one tenant, callers who wait before renewals that nobody waits for, and of either the token that ends first.
//!
//! What being next leads to is the budget's.

use std::collections::{BTreeMap, HashMap};

use crate::model::key::Tenant;
use crate::model::time::UnixTime;
use crate::model::token::SlotId;

/// For whom a flow runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Somebody waits.
    Waiting,
    /// Nobody does yet.
    Ahead,
}

/// A flow that asks for its turn.
#[derive(Clone, Debug)]
pub struct Bid {
    /// Whose token it is to replace.
    pub tenant: Tenant,
    /// Where it is.
    pub slot: SlotId,
    /// When it ends.
    pub ends: UnixTime,
    /// For whom.
    pub lane: Lane,
}

/// A flow that queues: its slot, and the number that no other flow ever has.
pub(super) type Flow = (SlotId, u64);

/// Flows that queue, each with what tells it.
pub(super) struct Queue<T> {
    by_tenant: HashMap<Tenant, Own<T>>,
    /// Tenants of whom somebody waits, in the order of their turns.
    waiting: BTreeMap<u64, Tenant>,
    /// Tenants of whom nobody does, in the same order.
    calm: BTreeMap<u64, Tenant>,
    /// Where each flow queues. A slot has one nearly always, and two while one that was disowned still queues.
    places: BTreeMap<Flow, Bid>,
    next_number: u64,
    next_turn: u64,
    ahead: usize,
}

/// The flows of one tenant; it has some.
struct Own<T> {
    /// Its place in the order of turns.
    turn: u64,
    waiting: Lined<T>,
    ahead: Lined<T>,
}

/// By the end of the token, then by arrival.
type Lined<T> = BTreeMap<(UnixTime, u64, SlotId), T>;

// === impl Queue ===

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many of them nobody waits for.
    pub(super) fn ahead(&self) -> usize {
        self.ahead
    }

    /// How many flows of this tenant queue, those that somebody waits for and the others.
    pub(super) fn of(&self, tenant: &Tenant) -> [usize; 2] {
        let own = self.by_tenant.get(tenant);
        own.map_or([0; 2], |own| [own.waiting.len(), own.ahead.len()])
    }

    /// Puts a flow in.
    pub(super) fn put(&mut self, bid: Bid, told: T) -> Flow {
        let flow = (bid.slot, self.next_number);
        self.next_number += 1;
        self.place(flow, bid, told);
        flow
    }

    /// Takes a flow out; none when it is not here any more.
    pub(super) fn leave(&mut self, flow: Flow) -> Option<T> {
        let Bid {
            tenant, ends, lane, ..
        } = self.places.remove(&flow)?;
        let own = self.by_tenant.get_mut(&tenant)?;
        let told = own.lane(lane).remove(&(ends, flow.1, flow.0));
        self.ahead -= usize::from(lane == Lane::Ahead);
        let turn = own.turn;
        self.line_up(&tenant, turn);
        told
    }

    /// Somebody waits for the flows of this slot now.
    pub(super) fn hurry(&mut self, slot: SlotId) {
        let of_slot = self.places.range((slot, 0)..=(slot, u64::MAX));
        let calm: Vec<_> = of_slot
            .filter(|(_, bid)| bid.lane == Lane::Ahead)
            .map(|(flow, bid)| (*flow, bid.clone()))
            .collect();
        for (flow, bid) in calm {
            if let Some(told) = self.leave(flow) {
                let lane = Lane::Waiting;
                self.place(flow, Bid { lane, ..bid }, told);
            }
        }
    }

    /// In which lane the next one is, of those lanes that are `open`.
    pub(super) fn next_lane(&self, open: impl Fn(Lane) -> bool) -> Option<Lane> {
        let first = |order: &BTreeMap<u64, Tenant>, lane| {
            let (turn, _) = order.first_key_value()?;
            open(lane).then_some((*turn, lane))
        };
        let waiting = first(&self.waiting, Lane::Waiting);
        let calm = first(&self.calm, Lane::Ahead);
        let next = [waiting, calm].into_iter().flatten().min();
        next.map(|(_, lane)| lane)
    }

    /// Takes the next one of a lane out; its tenant's next turn is the last.
    pub(super) fn pop(&mut self, lane: Lane) -> Option<T> {
        let order = match lane {
            Lane::Waiting => &self.waiting,
            Lane::Ahead => &self.calm,
        };
        let tenant = order.first_key_value()?.1.clone();
        let own = self.by_tenant.get_mut(&tenant)?;
        let ((_, number, slot), told) = own.lane(lane).pop_first()?;
        self.places.remove(&(slot, number));
        self.ahead -= usize::from(lane == Lane::Ahead);
        let turn = self.turn();
        self.line_up(&tenant, turn);
        Some(told)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let next = || self.next_lane(|_| true).and_then(|lane| self.pop(lane));
        std::iter::from_fn(next).collect()
    }

    /// How many are before one of this tenant that came now and whose token ended last, if all of them stay.
    pub(super) fn before(&self, tenant: &Tenant, lane: Lane) -> usize {
        let [waiting, ahead] = self.of(tenant);
        let own = match lane {
            Lane::Waiting => waiting,
            Lane::Ahead => waiting + ahead,
        };
        let others = self.by_tenant.iter().filter(|(its, _)| *its != tenant);
        // Until its own are through and one more, every other tenant has had as many turns.
        let turns = others.map(|(_, other)| (other.waiting.len() + other.ahead.len()).min(own + 1));
        own + turns.sum::<usize>()
    }

    fn place(&mut self, flow: Flow, bid: Bid, told: T) {
        // Behind everybody's next turn, where it has none yet.
        let turn = match self.by_tenant.get(&bid.tenant) {
            Some(own) => own.turn,
            None => self.turn(),
        };
        let fresh = || Own {
            turn,
            waiting: BTreeMap::new(),
            ahead: BTreeMap::new(),
        };
        let own = self.by_tenant.entry(bid.tenant.clone());
        let lined = own.or_insert_with(fresh).lane(bid.lane);
        lined.insert((bid.ends, flow.1, flow.0), told);
        self.ahead += usize::from(bid.lane == Lane::Ahead);
        self.line_up(&bid.tenant, turn);
        self.places.insert(flow, bid);
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// Puts a tenant where it belongs by what it has, with this turn; one that has nothing leaves.
    fn line_up(&mut self, tenant: &Tenant, turn: u64) {
        let Some(own) = self.by_tenant.get_mut(tenant) else {
            return;
        };
        self.waiting.remove(&own.turn);
        self.calm.remove(&own.turn);
        own.turn = turn;
        match (own.waiting.is_empty(), own.ahead.is_empty()) {
            (false, _) => drop(self.waiting.insert(turn, tenant.clone())),
            (true, false) => drop(self.calm.insert(turn, tenant.clone())),
            (true, true) => drop(self.by_tenant.remove(tenant)),
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            by_tenant: HashMap::new(),
            waiting: BTreeMap::new(),
            calm: BTreeMap::new(),
            places: BTreeMap::new(),
            next_number: 0,
            next_turn: 0,
            ahead: 0,
        }
    }
}

// === impl Own ===

impl<T> Own<T> {
    fn lane(&mut self, lane: Lane) -> &mut Lined<T> {
        match lane {
            Lane::Waiting => &mut self.waiting,
            Lane::Ahead => &mut self.ahead,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bid(tenant: &str, slot: u64, ends: u64, lane: Lane) -> Bid {
        Bid {
            tenant: Tenant::parse(tenant).unwrap(),
            slot: SlotId(slot),
            ends: UnixTime::from_secs(ends),
            lane,
        }
    }

    fn order(queue: &mut Queue<u64>) -> Vec<u64> {
        queue.drain()
    }

    #[test]
    fn every_tenant_has_its_turn_and_of_each_the_token_that_ends_first() {
        let mut queue = Queue::default();
        for (tenant, slot, ends) in [
            ("loud", 1, 10),
            ("loud", 2, 20),
            ("loud", 3, 5),
            ("loud", 4, 30),
            ("quiet", 5, 90),
            ("quiet", 6, 80),
            ("third", 7, 99),
        ] {
            queue.put(bid(tenant, slot, ends, Lane::Waiting), slot);
        }
        assert_eq!(order(&mut queue), [3, 6, 7, 1, 5, 2, 4]);
        assert_eq!((queue.len(), queue.places.len()), (0, 0));
    }

    #[test]
    fn callers_of_a_tenant_go_before_its_own_renewals_and_in_turn_with_those_of_others() {
        let mut queue = Queue::default();
        queue.put(bid("a", 1, 1, Lane::Ahead), 1);
        queue.put(bid("a", 2, 2, Lane::Waiting), 2);
        queue.put(bid("a", 3, 3, Lane::Waiting), 3);
        let calm = queue.put(bid("b", 4, 4, Lane::Ahead), 4);
        queue.put(bid("b", 5, 5, Lane::Ahead), 5);
        assert_eq!((queue.len(), queue.ahead()), (5, 3));
        queue.hurry(SlotId(5));
        assert_eq!((queue.len(), queue.ahead()), (5, 2));
        assert_eq!(queue.of(&Tenant::parse("b").unwrap()), [1, 1]);
        assert_eq!(order(&mut queue), [2, 5, 3, 4, 1]);
        assert_eq!(queue.leave(calm), None);
        assert_eq!(
            (queue.ahead(), queue.waiting.len(), queue.calm.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_lane_that_is_closed_holds_up_nobody_in_the_other() {
        let mut queue = Queue::default();
        queue.put(bid("a", 1, 1, Lane::Ahead), 1);
        queue.put(bid("b", 2, 2, Lane::Waiting), 2);
        assert_eq!(queue.next_lane(|_| true), Some(Lane::Ahead));
        assert_eq!(
            queue.next_lane(|lane| lane == Lane::Waiting),
            Some(Lane::Waiting)
        );
        assert_eq!(queue.next_lane(|_| false), None);
    }

    #[test]
    fn who_comes_anew_does_not_wait_for_a_crowd() {
        let mut queue = Queue::default();
        for slot in 0..1_000 {
            queue.put(bid("loud", slot, 1, Lane::Waiting), slot);
        }
        let quiet = Tenant::parse("quiet").unwrap();
        let loud = Tenant::parse("loud").unwrap();
        assert_eq!(queue.before(&quiet, Lane::Waiting), 1);
        assert_eq!(queue.before(&loud, Lane::Waiting), 1_000);
        assert_eq!(queue.before(&quiet, Lane::Ahead), 1);
        assert_eq!(queue.before(&loud, Lane::Ahead), 1_000);
        queue.put(bid("quiet", 5_000, 9, Lane::Waiting), 5_000);
        assert_eq!(order(&mut queue)[1], 5_000);
    }

    proptest! {
        #[test]
        fn nobody_is_lost_or_told_twice_and_no_tenant_is_passed_over(
            moves in proptest::collection::vec((0usize..4, 0u64..5, 0u64..50), 1..200),
        ) {
            let mut queue = Queue::default();
            let (mut inside, mut number) = (std::collections::BTreeMap::new(), 0);
            for (what, tenant, ends) in moves {
                let names = ["a", "b", "c", "d", "e"];
                match what {
                    0 | 1 => {
                        let lane = if ends % 2 == 0 { Lane::Waiting } else { Lane::Ahead };
                        let name = names[tenant as usize];
                        let flow = queue.put(bid(name, number, ends, lane), number);
                        inside.insert(number, (flow, tenant));
                        number += 1;
                    }
                    2 => {
                        if let Some((slot, (flow, _))) = inside.pop_first() {
                            prop_assert_eq!(queue.leave(flow), Some(slot));
                            prop_assert_eq!(queue.leave(flow), None);
                        }
                    }
                    _ => queue.hurry(SlotId(ends)),
                }
                prop_assert_eq!(queue.len(), inside.len());
            }
            // Between two turns of one tenant, every other that still has any had one.
            let out = queue.drain();
            let tenants: Vec<u64> = out.iter().map(|slot| inside[slot].1).collect();
            for (at, tenant) in tenants.iter().enumerate() {
                let later = &tenants[at + 1..];
                let Some(next) = later.iter().position(|other| other == tenant) else {
                    continue;
                };
                for other in later[next..].iter().filter(|other| *other != tenant) {
                    prop_assert!(later[..next].contains(other), "{tenants:?} at {at}");
                }
            }
            out.iter().for_each(|slot| { inside.remove(slot); });
            prop_assert!(inside.is_empty());
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
