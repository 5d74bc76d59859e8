//! Who queues for a provider, and who of them is next: callers who wait before renewals that nobody waits for; among each, one of
//! every tenant in turn, so that the crowd of one is no other's; of one tenant, the token that ends first.
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
    waiting: Turns<T>,
    ahead: Turns<T>,
    /// Where each flow queues. A slot has one nearly always, and two while one that was disowned still queues.
    places: BTreeMap<Flow, Bid>,
    next: u64,
}

/// Tenants in the order of their turns, and the flows of each.
struct Turns<T> {
    by_tenant: HashMap<Tenant, Own<T>>,
    /// Every tenant that has a flow here, once.
    order: BTreeMap<u64, Tenant>,
    next: u64,
    len: usize,
}

/// The flows of one tenant.
struct Own<T> {
    /// Its place in the order.
    turn: u64,
    flows: BTreeMap<(UnixTime, u64, SlotId), T>,
}

// === impl Queue ===

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.waiting.len + self.ahead.len
    }

    /// How many of them nobody waits for.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len
    }

    /// Puts a flow in.
    pub(super) fn put(&mut self, bid: Bid, told: T) -> Flow {
        let flow = (bid.slot, self.next);
        self.next += 1;
        self.place(flow, bid, told);
        flow
    }

    /// Takes a flow out; none when it is not here any more.
    pub(super) fn leave(&mut self, flow: Flow) -> Option<T> {
        let bid = self.places.remove(&flow)?;
        let place = (bid.ends, flow.1, flow.0);
        self.lane(bid.lane).remove(&bid.tenant, place)
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

    /// In which lane the next one is.
    pub(super) fn next_lane(&self) -> Option<Lane> {
        match (self.waiting.len, self.ahead.len) {
            (0, 0) => None,
            (0, _) => Some(Lane::Ahead),
            _ => Some(Lane::Waiting),
        }
    }

    /// Takes the next one of a lane out.
    pub(super) fn pop(&mut self, lane: Lane) -> Option<T> {
        let (flow, told) = self.lane(lane).pop()?;
        self.places.remove(&flow);
        Some(told)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let lanes = [Lane::Waiting, Lane::Ahead];
        let all = lanes.map(|lane| std::iter::from_fn(|| self.pop(lane)).collect::<Vec<_>>());
        all.into_iter().flatten().collect()
    }

    /// How many are before one of this tenant that came now and whose token ended last, if all of them stay.
    pub(super) fn before(&self, tenant: &Tenant, lane: Lane) -> usize {
        match lane {
            Lane::Waiting => self.waiting.before(tenant),
            Lane::Ahead => self.waiting.len + self.ahead.before(tenant),
        }
    }

    fn place(&mut self, flow: Flow, bid: Bid, told: T) {
        let place = (bid.ends, flow.1, flow.0);
        self.lane(bid.lane).insert(&bid.tenant, place, told);
        self.places.insert(flow, bid);
    }

    fn lane(&mut self, lane: Lane) -> &mut Turns<T> {
        match lane {
            Lane::Waiting => &mut self.waiting,
            Lane::Ahead => &mut self.ahead,
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: Turns::default(),
            ahead: Turns::default(),
            places: BTreeMap::new(),
            next: 0,
        }
    }
}

// === impl Turns ===

impl<T> Turns<T> {
    fn insert(&mut self, tenant: &Tenant, place: (UnixTime, u64, SlotId), told: T) {
        let own = self.by_tenant.entry(tenant.clone()).or_insert_with(|| {
            // Behind everybody's present turn, and before anybody's next but one.
            let turn = self.next;
            self.next += 1;
            self.order.insert(turn, tenant.clone());
            Own {
                turn,
                flows: BTreeMap::new(),
            }
        });
        own.flows.insert(place, told);
        self.len += 1;
    }

    fn remove(&mut self, tenant: &Tenant, place: (UnixTime, u64, SlotId)) -> Option<T> {
        let own = self.by_tenant.get_mut(tenant)?;
        let told = own.flows.remove(&place)?;
        self.len -= 1;
        if own.flows.is_empty() {
            self.order.remove(&own.turn);
            self.by_tenant.remove(tenant);
        }
        Some(told)
    }

    /// The first flow of the tenant whose turn it is, which then is the last.
    fn pop(&mut self) -> Option<(Flow, T)> {
        let (_, tenant) = self.order.pop_first()?;
        let own = self.by_tenant.get_mut(&tenant)?;
        let ((_, number, slot), told) = own.flows.pop_first()?;
        self.len -= 1;
        if own.flows.is_empty() {
            self.by_tenant.remove(&tenant);
        } else {
            own.turn = self.next;
            self.order.insert(self.next, tenant);
            self.next += 1;
        }
        Some(((slot, number), told))
    }

    fn before(&self, tenant: &Tenant) -> usize {
        let own = self.by_tenant.get(tenant).map_or(0, |own| own.flows.len());
        let others = self.by_tenant.iter().filter(|(its, _)| *its != tenant);
        // Until its own are through and one more, every other tenant has had as many turns.
        let turns = others.map(|(_, other)| other.flows.len().min(own + 1));
        own + turns.sum::<usize>()
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            by_tenant: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            len: 0,
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
    fn callers_of_any_tenant_go_before_renewals_of_all() {
        let mut queue = Queue::default();
        queue.put(bid("a", 1, 1, Lane::Ahead), 1);
        let calm = queue.put(bid("b", 2, 2, Lane::Ahead), 2);
        queue.put(bid("c", 3, 3, Lane::Waiting), 3);
        assert_eq!((queue.len(), queue.ahead()), (3, 2));
        queue.hurry(SlotId(2));
        assert_eq!((queue.len(), queue.ahead()), (3, 1));
        assert_eq!(order(&mut queue), [3, 2, 1]);
        assert_eq!(queue.leave(calm), None);
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
        assert_eq!(queue.before(&quiet, Lane::Ahead), 1_000);
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
            // In each lane, between two turns of one tenant every other that still has any had one.
            for lane in [Lane::Waiting, Lane::Ahead] {
                let out: Vec<u64> = std::iter::from_fn(|| queue.pop(lane)).collect();
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
            }
            prop_assert!(inside.is_empty());
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
