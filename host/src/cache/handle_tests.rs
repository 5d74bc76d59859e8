//! What handles promise.

// The model checker's locks work inside its checks only.
#![cfg(not(feature = "model-check"))]

use std::sync::atomic::AtomicU64;

use super::*;
use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Tenant, TokenKey};
use crate::model::time::Clock;
use crate::model::token::{ObtainedToken, SlotId};

#[derive(Default)]
struct Nudges(AtomicUsize);

impl Nudge for Nudges {
    fn nudge(&self, _: &Arc<Slot>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct World {
    clock: Arc<Hand>,
    epoch: PolicyEpoch,
    nudges: Arc<Nudges>,
    slot: Arc<Slot>,
}

impl World {
    fn new() -> Self {
        let key = TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: None,
            },
            audience: None,
            scopes: ScopeSet::default(),
        };
        Self {
            clock: Arc::new(Hand(AtomicU64::new(0))),
            epoch: PolicyEpoch::default(),
            nudges: Arc::default(),
            slot: Arc::new(Slot::new(
                SlotId(1),
                None,
                Arc::new((&key).into()),
                UnixTime::default(),
            )),
        }
    }

    fn at(&self, secs: u64) -> UnixTime {
        self.clock.0.store(secs * 1000, Ordering::Relaxed);
        self.clock.now()
    }

    fn decision(&self, until: u64) -> Decision {
        Decision {
            epoch: self.epoch.current(),
            allowed_until: UnixTime::from_secs(until),
            max_lifetime: None,
        }
    }

    fn handle(&self, until: u64) -> TokenHandle {
        let clock = CoarseClock::Exact(self.clock.clone());
        let pin = self.slot.pin().unwrap();
        TokenHandle::new(
            pin,
            self.decision(until),
            self.epoch.clone(),
            clock,
            self.nudges.clone(),
        )
    }

    fn publish(&self, value: &str, issued: u64, expires: u64) {
        let token = ObtainedToken {
            value: value.into(),
            token_type: "Bearer".into(),
            expires: UnixTime::from_secs(expires),
            issued: UnixTime::from_secs(issued),
            scopes: ScopeSet::default(),
            extra: Vec::new(),
        };
        self.slot
            .publish(self.slot.era(), &token, self.at(issued))
            .unwrap();
    }
}

#[test]
fn a_handle_follows_its_slot_and_never_hands_out_an_expired_token() {
    let world = World::new();
    let mut handle = world.handle(1_000);
    assert_eq!(handle.get().unwrap_err(), NotReady::Absent);
    world.publish("a", 0, 60);
    assert_eq!(handle.get().unwrap().raw(), "a");
    world.publish("b", 30, 90);
    assert_eq!(handle.get().unwrap().raw(), "b");
    world.at(89);
    assert_eq!(handle.get().unwrap_err(), NotReady::Expired);
}

#[test]
fn a_hit_touches_no_shared_count() {
    let world = World::new();
    let mut handle = world.handle(1_000);
    world.publish("a", 0, 60);
    let token = Arc::downgrade(handle.get().unwrap());
    for _ in 0..3 {
        handle.get().unwrap();
        // The slot's and the handle's.
        assert_eq!(token.strong_count(), 2);
    }
}

#[test]
fn a_handle_lets_go_of_a_token_that_was_replaced_or_withdrawn() {
    let world = World::new();
    let mut handle = world.handle(1_000);
    world.publish("a", 0, 60);
    let first = Arc::downgrade(handle.get().unwrap());
    world.publish("b", 1, 61);
    handle.get().unwrap();
    // Other tests read at the same time, and what any thread is reading is freed a little later.
    let freed = (0..1_000_000).any(|_| {
        sdd::Guard::new().accelerate();
        std::thread::yield_now();
        first.upgrade().is_none()
    });
    assert!(freed);
    world.slot.withdraw();
    assert_eq!(handle.get().unwrap_err(), NotReady::Absent);
    world.slot.close();
    assert_eq!(handle.get().unwrap_err(), NotReady::Closed);
}

#[test]
fn a_permit_ends_a_handle_by_time_and_by_policy() {
    let world = World::new();
    let mut handle = world.handle(30);
    world.publish("a", 0, 60);
    assert!(handle.get().is_ok());
    world.at(30);
    assert_eq!(handle.get().unwrap_err(), NotReady::Denied);
    handle.renew(world.decision(1_000));
    assert!(handle.get().is_ok());
    world.epoch.advance();
    assert_eq!(handle.get().unwrap_err(), NotReady::Denied);
    handle.renew(world.decision(1_000));
    assert!(handle.get().is_ok());
}

#[test]
fn a_due_token_is_handed_out_and_its_renewal_asked_for_now_and_then() {
    let world = World::new();
    let mut handle = world.handle(1_000);
    world.publish("a", 0, 60);
    handle.get().unwrap();
    // Planned after the handle made its copy.
    world.slot.set_due(UnixTime::from_secs(40));
    world.at(39);
    handle.get().unwrap();
    assert_eq!(world.nudges.0.load(Ordering::Relaxed), 0);
    world.at(40);
    for _ in 0..10 {
        handle.get().unwrap();
    }
    assert_eq!(world.nudges.0.load(Ordering::Relaxed), 1);
    world.at(41);
    handle.get().unwrap();
    assert_eq!(world.nudges.0.load(Ordering::Relaxed), 2);
}

#[test]
fn the_first_look_after_a_publish_counts_as_use() {
    let world = World::new();
    let mut handle = world.handle(1_000);
    world.publish("a", 0, 60);
    assert!(
        !world
            .slot
            .wants_renewal(world.epoch.current(), world.clock.now())
    );
    handle.get().unwrap();
    assert!(
        world
            .slot
            .wants_renewal(world.epoch.current(), world.clock.now())
    );
}

#[test]
fn every_handle_and_clone_holds_the_slot() {
    let world = World::new();
    let handle = world.handle(1_000);
    let clones = [handle.clone(), handle.clone()];
    assert_eq!(world.slot.pins(), 3);
    drop((handle, clones));
    assert_eq!(world.slot.pins(), 0);
}

#[test]
fn a_shared_handle_serves_all_threads() {
    let world = World::new();
    let shared = SharedTokenHandle::new(&world.handle(1_000));
    world.publish("a", 0, 60);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(shared.get().unwrap().raw(), "a"));
        }
    });
    world.epoch.advance();
    assert_eq!(shared.get().unwrap_err(), NotReady::Denied);
    shared.renew(world.decision(1_000));
    assert_eq!(shared.to_handle().get().unwrap().raw(), "a");
}
