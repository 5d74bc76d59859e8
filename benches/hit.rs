//! The hit path, next to what it cannot be faster than: trust the ratios within one run, not the numbers.
//!
//! `handle` against the bare comparison of two words; `by key` against an unsynchronised map of the same keys that does
//! nothing but look up and clone.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use keyfob::cache::{
    Cache, CacheLimits, CoarseClock, Decision, Hit, Nudge, PolicyEpoch, SharedTokenHandle, Slot,
    TokenHandle,
};
use keyfob::model::event::{Event, Observer};
use keyfob::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::model::time::{Clock, SystemClock, UnixTime};
use keyfob::model::token::{AccessToken, ObtainedToken};

/// How many keys the by-key rows look among: all in the first cache, in the second, and in memory.
const KEYS: [usize; 3] = [1, 1_000, 100_000];
/// As long as the tokens of one common issuer.
const TOKEN_BYTES: usize = 1_200;

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
    requests: Vec<TokenRequest>,
    slots: Vec<Arc<Slot>>,
    epoch: PolicyEpoch,
    decision: Decision,
    now: UnixTime,
}

impl World {
    fn new(keys: usize) -> Self {
        let now = SystemClock.now();
        let epoch = PolicyEpoch::default();
        let mut world = Self {
            cache: Cache::new(CacheLimits::default(), Arc::new(Idle)),
            caller: Principal::new("billing", Tenant::default(), Vec::new()),
            requests: Vec::new(),
            slots: Vec::new(),
            decision: Decision {
                epoch: epoch.current(),
                allowed_until: now.plus(Duration::from_secs(86_400)),
                max_lifetime: None,
            },
            epoch,
            now,
        };
        let provider = ProviderName::parse("acme").expect("a name");
        for n in 0..keys {
            let subject = Subject::parse(&format!("user-{n:032}")).expect("a name");
            let credential = CredentialKey {
                tenant: Tenant::default(),
                provider: provider.clone(),
                subject: Some(subject.clone()),
            };
            let key = TokenKey {
                credential,
                audience: None,
                scopes: ScopeSet::default(),
            };
            let slot = world
                .cache
                .slot_or_insert(&key, &world.caller, now)
                .expect("room");
            let token = ObtainedToken {
                value: "t".repeat(TOKEN_BYTES).into(),
                token_type: "Bearer".into(),
                expires: now.plus(Duration::from_secs(86_400)),
                issued: now,
                scopes: ScopeSet::default(),
                extra: Vec::new(),
            };
            slot.publish(slot.era(), &token, now).expect("a good token");
            let request = TokenRequest::new(provider.clone()).subject(subject);
            assert!(
                world
                    .cache
                    .remember(&world.caller, &request, &slot, world.decision, now)
            );
            world.requests.push(request);
            world.slots.push(slot);
        }
        // Not in the order in which they were made: memory is not prefetched for us.
        let mut random = 0x9e37_79b9_u64;
        for at in (1..world.requests.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            world.requests.swap(
                at,
                usize::try_from(random % (at as u64 + 1)).expect("small"),
            );
        }
        world
    }

    fn handle(&self, clock: CoarseClock) -> TokenHandle {
        let pin = self.slots[0].pin().expect("an open slot");
        TokenHandle::new(
            pin,
            self.decision,
            self.epoch.clone(),
            clock,
            Arc::new(Idle),
        )
    }
}

/// A clock that costs nothing, so that the handle's own work shows.
struct Still(UnixTime);

impl Clock for Still {
    fn now(&self) -> UnixTime {
        self.0
    }
}

fn handles(c: &mut Criterion) {
    let mut group = c.benchmark_group("handle");
    let world = World::new(1);

    // The floor: is this the generation I hold, and is it not over?
    let (generation, until) = (AtomicU64::new(7), AtomicU64::new(u64::MAX));
    let now = world.now.as_millis();
    group.bench_function("floor: two words", |b| {
        b.iter(|| {
            black_box(&generation).load(Ordering::Acquire) == black_box(7)
                && black_box(now) < black_box(&until).load(Ordering::Relaxed)
        });
    });
    group.bench_function("floor: coarse clock", |b| {
        b.iter(|| CoarseClock::Kernel.latest())
    });

    let mut still = world.handle(CoarseClock::Exact(Arc::new(Still(world.now))));
    group.bench_function("get, clock apart", |b| {
        b.iter(|| black_box(&mut still).get().is_ok())
    });
    let mut handle = world.handle(CoarseClock::Kernel);
    group.bench_function("get", |b| b.iter(|| black_box(&mut handle).get().is_ok()));
    group.bench_function("get and clone the header", |b| {
        b.iter(|| {
            black_box(&mut handle)
                .get()
                .map(|token| token.header().clone())
                .ok()
        });
    });
    let shared = SharedTokenHandle::new(&handle);
    group.bench_function("shared get", |b| {
        b.iter(|| black_box(&shared).get().is_ok())
    });
    group.finish();
}

fn by_key(c: &mut Criterion) {
    let mut group = c.benchmark_group("by key");
    for keys in KEYS {
        let world = World::new(keys);
        let floor: HashMap<_, Arc<AccessToken>, foldhash::quality::RandomState> = world
            .slots
            .iter()
            .map(|slot| {
                (
                    slot.key().credential.subject.clone(),
                    slot.current().expect("a token"),
                )
            })
            .collect();
        let mut at = 0;
        let mut next = || {
            at = if at + 1 == world.requests.len() {
                0
            } else {
                at + 1
            };
            &world.requests[at]
        };
        group.bench_with_input(BenchmarkId::new("floor: plain map", keys), &keys, |b, _| {
            b.iter(|| floor.get(&next().subject).cloned());
        });
        let epoch = world.epoch.current();
        group.bench_with_input(BenchmarkId::new("lookup", keys), &keys, |b, _| {
            b.iter(|| {
                let now = CoarseClock::Kernel.latest();
                let hit = world.cache.lookup(&world.caller, next(), epoch, now);
                assert!(matches!(hit, Some(Hit::Fresh { .. })));
                hit
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = handles, by_key
}
criterion_main!(benches);
