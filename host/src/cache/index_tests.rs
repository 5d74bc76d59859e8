//! What the index promises.

// The model checker's locks work inside its checks only.
#![cfg(not(feature = "model-check"))]

use std::sync::Mutex;

use super::*;
use crate::cache::NotReady;
use crate::model::key::{Audience, ProviderName, ScopeSet, Subject, Tenant};
use crate::model::token::ObtainedToken;

const START: UnixTime = UnixTime::from_secs(1_700_000_000);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Told(Mutex<Vec<&'static str>>);

impl Observer for Told {
    fn observe(&self, event: &Event) {
        if let Event::KeyEvicted { why, .. } = event {
            self.0.lock().unwrap().push(why);
        }
    }
}

fn at(secs: u64) -> UnixTime {
    START.plus(Duration::from_secs(secs))
}

fn cache(keys_max: usize, keys_per_caller_max: usize) -> (Cache, Arc<Told>) {
    let told = Arc::new(Told::default());
    (
        Cache::new(
            CacheLimits {
                keys_max,
                keys_per_caller_max,
            },
            told.clone(),
        ),
        told,
    )
}

fn caller(name: &str) -> Principal {
    Principal::new(name, Tenant::default(), Vec::new())
}

fn request(subject: &str) -> TokenRequest {
    TokenRequest::new(ProviderName::parse("acme").unwrap())
        .subject(Subject::parse(subject).unwrap())
}

fn key(subject: &str) -> TokenKey {
    TokenKey {
        credential: CredentialKey {
            tenant: Tenant::default(),
            provider: ProviderName::parse("acme").unwrap(),
            subject: Some(Subject::parse(subject).unwrap()),
        },
        audience: None,
        scopes: ScopeSet::default(),
    }
}

fn publish(slot: &Slot, value: &str) {
    let token = ObtainedToken {
        value: value.into(),
        token_type: "Bearer".into(),
        expires: at(600),
        issued: at(0),
        scopes: ScopeSet::default(),
        extra: Vec::new(),
    };
    slot.publish(slot.era(), &token, at(0)).unwrap();
}

fn decision() -> Decision {
    Decision {
        epoch: 1,
        allowed_until: at(300),
        max_lifetime: Some(MINUTE),
    }
}

#[test]
fn a_remembered_decision_is_the_way_to_the_token() {
    let (cache, _) = cache(10, 10);
    let (billing, ask) = (caller("billing"), request("ann"));
    assert!(cache.lookup(&billing, &ask, 1, at(0)).is_none());
    let slot = cache.slot_or_insert(&key("ann"), &billing, at(0)).unwrap();
    assert!(cache.remember(&billing, &ask, &slot, decision(), at(0)));
    assert!(
        matches!(
            cache.lookup(&billing, &ask, 1, at(0)),
            Some(Hit::Known { .. })
        ),
        "no token yet"
    );
    publish(&slot, "a");
    match cache.lookup(&billing, &ask, 1, at(1)) {
        Some(Hit::Fresh {
            token,
            max_lifetime,
        }) => {
            assert_eq!((token.raw(), max_lifetime), ("a", Some(MINUTE)));
        }
        other => panic!("{other:?}"),
    }
    slot.set_due(at(100));
    assert!(
        matches!(
            cache.lookup(&billing, &ask, 1, at(100)),
            Some(Hit::Known { .. })
        ),
        "due"
    );
}

#[test]
fn a_decision_ends_with_its_time_its_policy_and_its_slot() {
    let (cache, _) = cache(10, 10);
    let (billing, ask) = (caller("billing"), request("ann"));
    let slot = cache.slot_or_insert(&key("ann"), &billing, at(0)).unwrap();
    cache.remember(&billing, &ask, &slot, decision(), at(0));
    publish(&slot, "a");
    assert!(cache.lookup(&billing, &ask, 1, at(299)).is_some());
    assert!(cache.lookup(&billing, &ask, 1, at(300)).is_none());
    assert!(cache.lookup(&billing, &ask, 2, at(1)).is_none());
    cache.remove(&key("ann"));
    assert!(cache.lookup(&billing, &ask, 1, at(1)).is_none());
    assert_eq!(slot.servable(at(1)).unwrap_err(), NotReady::Closed);
    let next = cache.slot_or_insert(&key("ann"), &billing, at(1)).unwrap();
    assert_ne!(next.id(), slot.id());
}

#[test]
fn another_caller_or_another_request_is_another_decision() {
    let (cache, _) = cache(10, 10);
    let slot = cache
        .slot_or_insert(&key("ann"), &caller("billing"), at(0))
        .unwrap();
    cache.remember(
        &caller("billing"),
        &request("ann"),
        &slot,
        decision(),
        at(0),
    );
    let found =
        |caller: &Principal, ask: &TokenRequest| cache.lookup(caller, ask, 1, at(0)).is_some();
    assert!(found(&caller("billing"), &request("ann")));
    assert!(!found(&caller("shipping"), &request("ann")));
    let other_tenant = Principal::new("billing", Tenant::parse("other").unwrap(), Vec::new());
    assert!(!found(&other_tenant, &request("ann")));
    assert!(!found(&caller("billing"), &request("bob")));
    assert!(!found(
        &caller("billing"),
        &request("ann").scopes(ScopeSet::parse(["a"]).unwrap())
    ));
}

#[test]
fn a_minimum_validity_makes_no_new_entry_and_is_compared_with_the_token() {
    let (cache, _) = cache(10, 10);
    let (billing, ask) = (caller("billing"), request("ann"));
    let slot = cache.slot_or_insert(&key("ann"), &billing, at(0)).unwrap();
    cache.remember(&billing, &ask, &slot, decision(), at(0));
    publish(&slot, "a");
    for secs in 1..100 {
        let wish = ask.clone().min_validity(Duration::from_secs(secs * 10));
        cache.remember(&billing, &wish, &slot, decision(), at(0));
        let fresh = matches!(
            cache.lookup(&billing, &wish, 1, at(0)),
            Some(Hit::Fresh { .. })
        );
        assert_eq!(fresh, secs * 10 <= 600);
    }
    assert_eq!(cache.decisions(), 1);
}

#[test]
fn when_full_the_most_idle_that_nobody_holds_leaves() {
    let (cache, told) = cache(3, 3);
    let billing = caller("billing");
    let slots: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| cache.slot_or_insert(&key(name), &billing, at(0)).unwrap())
        .collect();
    let _held = slots[0].pin().unwrap();
    slots[2].touch(at(10));
    cache.slot_or_insert(&key("d"), &billing, at(20)).unwrap();
    assert!(!slots[0].is_closed(), "held");
    assert!(slots[1].is_closed(), "the most idle");
    assert!(!slots[2].is_closed());
    assert_eq!(
        (cache.len(), told.0.lock().unwrap().as_slice()),
        (3, ["full"].as_slice())
    );
}

#[test]
fn when_everything_is_held_a_new_key_is_refused_and_room_is_found_again_later() {
    let (cache, _) = cache(2, 10);
    let billing = caller("billing");
    let hold = |name| {
        cache
            .slot_or_insert(&key(name), &billing, at(0))
            .unwrap()
            .pin()
            .unwrap()
    };
    let (a, _b) = (hold("a"), hold("b"));
    assert_eq!(
        cache
            .slot_or_insert(&key("c"), &billing, at(1))
            .unwrap_err(),
        Full::Cache
    );
    drop(a);
    // Nobody searches twice within a pause.
    assert_eq!(
        cache
            .slot_or_insert(&key("c"), &billing, at(1))
            .unwrap_err(),
        Full::Cache
    );
    assert!(cache.slot_or_insert(&key("c"), &billing, at(3)).is_ok());
    assert!(cache.slot(&key("a")).is_none());
}

#[test]
fn a_caller_at_its_quota_pushes_out_its_own_keys_only() {
    let (cache, _) = cache(100, 2);
    let (greedy, modest) = (caller("greedy"), caller("modest"));
    let kept = cache
        .slot_or_insert(&key("modest"), &modest, at(0))
        .unwrap();
    for n in 0..20u64 {
        cache
            .slot_or_insert(&key(&format!("greedy-{n}")), &greedy, at(n))
            .unwrap();
    }
    assert!(!kept.is_closed());
    assert_eq!(cache.len(), 3);
    let _pins: Vec<_> = cache.slots().iter().map(|slot| slot.pin()).collect();
    let refused = cache.slot_or_insert(&key("one more"), &greedy, at(30));
    assert_eq!(refused.unwrap_err(), Full::Caller);
    assert!(
        cache
            .slot_or_insert(&key("another"), &modest, at(30))
            .is_ok()
    );
}

#[test]
fn remembered_decisions_have_a_bound_and_their_room_comes_back() {
    let (cache, _) = cache(10, 1);
    let billing = caller("billing");
    let slot = cache.slot_or_insert(&key("ann"), &billing, at(0)).unwrap();
    let remember = |n: usize, now| {
        let asked = ScopeSet::parse([format!("scope-{n}").as_str()]).unwrap();
        let request = request("ann").scopes(asked);
        cache.remember(&billing, &request, &slot, decision(), now)
    };
    let kept = (0..10).filter(|n| remember(*n, at(0))).count();
    assert_eq!((kept, cache.decisions()), (ASKS_PER_KEY, ASKS_PER_KEY));
    // Once the old ones are over, there is room for new ones.
    assert!(remember(11, at(301)));
    cache.forget_before(2);
    assert_eq!(cache.decisions(), 0);
}

#[test]
fn a_decision_never_leads_to_another_key_than_was_asked_for() {
    let (cache, _) = cache(10, 10);
    let billing = caller("billing");
    let ann = cache.slot_or_insert(&key("ann"), &billing, at(0)).unwrap();
    let elsewhere = Principal::new("billing", Tenant::parse("other").unwrap(), Vec::new());
    let audience = Audience::parse("https://api.example").unwrap();
    for (who, request) in [
        (&billing, request("bob")),
        (&billing, request("ann").audience(audience)),
        (&elsewhere, request("ann")),
    ] {
        assert!(!cache.remember(who, &request, &ann, decision(), at(0)));
        assert!(cache.lookup(who, &request, 1, at(1)).is_none());
    }
    assert_eq!(cache.decisions(), 0);
}

#[test]
fn idle_keys_leave_and_used_ones_stay() {
    let (cache, told) = cache(10, 10);
    let billing = caller("billing");
    let idle = cache.slot_or_insert(&key("idle"), &billing, at(0)).unwrap();
    let used = cache.slot_or_insert(&key("used"), &billing, at(0)).unwrap();
    let held = cache.slot_or_insert(&key("held"), &billing, at(0)).unwrap();
    let _pin = held.pin().unwrap();
    cache.remember(&billing, &request("idle"), &idle, decision(), at(0));
    used.touch(at(200));
    assert_eq!(cache.evict_idle(at(230), MINUTE), 1);
    assert!(idle.is_closed() && !used.is_closed() && !held.is_closed());
    assert_eq!((cache.len(), cache.decisions()), (2, 0));
    assert_eq!(told.0.lock().unwrap().as_slice(), ["idle"]);
}

#[test]
fn the_successor_of_a_removed_key_is_not_evicted_in_its_place() {
    let (cache, _) = cache(10, 10);
    let billing = caller("billing");
    let removed = cache.slot_or_insert(&key("ann"), &billing, at(0)).unwrap();
    cache.remove(&key("ann"));
    let successor = cache
        .slot_or_insert(&key("ann"), &billing, at(500))
        .unwrap();
    assert_eq!(cache.evict_idle(at(500), MINUTE), 0);
    let found = cache.slot(&key("ann")).map(|slot| slot.id());
    assert_eq!((found, removed.is_closed()), (Some(successor.id()), true));
}

#[test]
fn a_revoked_credential_finds_its_slots() {
    let (cache, _) = cache(10, 10);
    for name in ["ann", "bob"] {
        cache
            .slot_or_insert(&key(name), &caller("billing"), at(0))
            .unwrap();
    }
    let found = cache.slots_of(&key("ann").credential);
    assert_eq!(
        found.iter().map(|slot| slot.key()).collect::<Vec<_>>(),
        [key("ann")]
    );
}

#[test]
fn many_threads_that_bring_in_one_key_share_one_slot() {
    let (cache, _) = cache(10, 10);
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let cache = &cache;
                scope.spawn(move || {
                    cache
                        .slot_or_insert(&key("ann"), &caller(&n.to_string()), at(0))
                        .unwrap()
                        .id()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(cache.len(), 1);
}
