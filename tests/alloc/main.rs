//! A hit allocates nothing. A binary of its own, because an allocator is global.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use keyfob::cache::{
    Cache, CacheLimits, CoarseClock, Decision, Hit, Nudge, PolicyEpoch, SharedTokenHandle, Slot,
    TokenHandle,
};
use keyfob::model::event::{Event, Observer};
use keyfob::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::model::time::{Clock, SystemClock};
use keyfob::model::token::ObtainedToken;

/// The system's allocator, counting what this thread asks it for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on as it came; counting touches a thread-local that needs neither allocation nor
// destruction, and a thread that is ending is not counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `hit` allocates in a thousand runs, once everything is warm.
fn allocations(mut hit: impl FnMut()) -> u64 {
    hit();
    let before = ASKED.get();
    for _ in 0..1_000 {
        hit();
    }
    ASKED.get() - before
}

struct Idle;

impl Observer for Idle {
    fn observe(&self, _: &Event) {}
}

impl Nudge for Idle {
    fn nudge(&self, _: &Arc<Slot>) {}
}

struct World {
    cache: Cache,
    caller: Principal,
    request: TokenRequest,
    slot: Arc<Slot>,
    decision: Decision,
    epoch: PolicyEpoch,
}

impl World {
    fn new() -> Self {
        let now = SystemClock.now();
        let provider = ProviderName::parse("acme").expect("a name");
        let subject = Subject::parse("ann").expect("a name");
        let scopes = ScopeSet::parse(["orders.read", "orders.write"]).expect("scopes");
        let caller = Principal::new(
            "billing",
            Tenant::default(),
            vec![("team".into(), "a".into())],
        );
        let request = TokenRequest::new(provider.clone())
            .subject(subject.clone())
            .scopes(scopes.clone())
            .min_validity(Duration::from_secs(30));
        let credential = CredentialKey {
            tenant: Tenant::default(),
            provider,
            subject: Some(subject),
        };
        let key = TokenKey {
            credential,
            audience: None,
            scopes: scopes.clone(),
        };
        let cache = Cache::new(CacheLimits::default(), Arc::new(Idle));
        let slot = cache.slot_or_insert(&key, &caller, now).expect("room");
        let token = ObtainedToken {
            value: "t0k3n".repeat(200).into(),
            token_type: "Bearer".into(),
            expires: now.plus(Duration::from_secs(3_600)),
            issued: now,
            scopes,
            extra: Vec::new(),
        };
        slot.publish(slot.era(), &token, now).expect("a good token");
        let epoch = PolicyEpoch::default();
        let decision = Decision {
            epoch: epoch.current(),
            allowed_until: now.plus(Duration::from_secs(3_600)),
            max_lifetime: None,
        };
        cache.remember(&caller, &request, &slot, decision, now);
        Self {
            cache,
            caller,
            request,
            slot,
            decision,
            epoch,
        }
    }

    fn handle(&self) -> TokenHandle {
        let pin = self.slot.pin().expect("an open slot");
        let clock = CoarseClock::Kernel;
        TokenHandle::new(
            pin,
            self.decision,
            self.epoch.clone(),
            clock,
            Arc::new(Idle),
        )
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocations(|| drop(std::hint::black_box(Box::new(1)))),
        1_000
    );
}

#[test]
fn a_hit_by_key_allocates_nothing() {
    let world = World::new();
    let epoch = world.epoch.current();
    let hit = || {
        let now = CoarseClock::Kernel.latest();
        let hit = world
            .cache
            .lookup(&world.caller, &world.request, epoch, now);
        assert!(matches!(hit, Some(Hit::Fresh { .. })));
    };
    assert_eq!(allocations(hit), 0);
}

#[test]
fn a_hit_by_handle_allocates_nothing() {
    let mut handle = World::new().handle();
    assert_eq!(allocations(|| assert!(handle.get().is_ok())), 0);
    let shared = SharedTokenHandle::new(&handle);
    assert_eq!(allocations(|| assert!(shared.get().is_ok())), 0);
}

#[test]
fn a_header_for_the_wire_is_a_clone_without_a_copy() {
    let mut handle = World::new().handle();
    let clone = || {
        drop(std::hint::black_box(
            handle.get().map(|token| token.header().clone()),
        ))
    };
    assert_eq!(allocations(clone), 0);
}
