//! What the scheduler promises, on tokio's paused clock and a wall clock that follows it and can be moved.

// The model checker's locks work inside its checks only.
#![cfg(not(feature = "model-check"))]

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::*;
use crate::cache::{Cache, CacheLimits, Decision};
use crate::model::event::{Event, Observer};
use crate::model::freshness::{Ahead, Life, Plan, draw};
use crate::model::key::{CredentialKey, ScopeSet, Subject, Tenant, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::token::ObtainedToken;

const START: UnixTime = UnixTime::from_millis(1_700_000_000_000);
/// Another one would do as well; this one makes the histograms the same each time.
const SEED: u64 = 7;

/// The wall clock: tokio's time plus what it was set forward or back, in milliseconds.
struct Wall {
    began: tokio::time::Instant,
    moved: AtomicI64,
}

impl Clock for Wall {
    fn now(&self) -> UnixTime {
        let passed = START.plus(self.began.elapsed()).as_millis();
        UnixTime::from_millis(passed.saturating_add_signed(self.moved.load(Ordering::SeqCst)))
    }
}

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event) {}
}

/// Notes who was woken when, in milliseconds after the start.
struct Woken {
    clock: Arc<Wall>,
    room: AtomicUsize,
    paused: Mutex<Option<UnixTime>>,
    seen: Mutex<Vec<(String, i64)>>,
}

impl Nudge for Woken {
    fn nudge(&self, slot: &Arc<Slot>) {
        let subject = slot.subject().unwrap().to_string();
        let after = self.clock.now().as_millis() as i64 - START.as_millis() as i64;
        self.seen.lock().unwrap().push((subject, after));
    }
}

impl Refresher for Woken {
    fn room(&self, _: &ProviderName, _: &Tenant) -> usize {
        self.room.load(Ordering::SeqCst)
    }

    fn paused(&self, _: &ProviderName) -> Option<UnixTime> {
        *self.paused.lock().unwrap()
    }

    fn renewal_from(&self, slot: &Slot, from: UnixTime) -> Option<UnixTime> {
        let plan = plan(slot)?;
        let again = draw(SEED, slot.key().hash_word() ^ from.as_millis(), 0);
        slot.servable(from)
            .ok()
            .map(|_| plan.resume(from, again).due)
    }
}

/// The renewal of a slot's token as the process that drew `SEED` plans it.
fn plan(slot: &Slot) -> Option<Plan> {
    let token = slot.current()?;
    let life = Life {
        issued: token.issued(),
        expires: token.expires(),
    };
    let ahead = Ahead {
        share: 0.2,
        at_most: Duration::from_secs(300),
    };
    let draw = draw(SEED, slot.key().hash_word(), token.generation().number());
    Plan::new(
        life,
        ahead,
        Duration::from_millis(100),
        draw,
        slot.stalled(),
    )
}

struct World {
    cache: Cache,
    clock: Arc<Wall>,
    epoch: PolicyEpoch,
    scheduler: Arc<Scheduler>,
    woken: Arc<Woken>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Wall {
            began: tokio::time::Instant::now(),
            moved: AtomicI64::new(0),
        });
        let scheduler = Arc::new(Scheduler::new(clock.now()));
        let woken = Arc::new(Woken {
            clock: Arc::clone(&clock),
            room: AtomicUsize::new(usize::MAX),
            paused: Mutex::default(),
            seen: Mutex::default(),
        });
        let epoch = PolicyEpoch::default();
        let run = {
            let (scheduler, woken, clock) = (scheduler.clone(), woken.clone(), clock.clone());
            let epoch = epoch.clone();
            async move { scheduler.run(woken, clock, epoch).await }
        };
        #[expect(clippy::disallowed_methods, reason = "a test has no tracker")]
        tokio::spawn(run);
        let cache = Cache::new(CacheLimits::default(), Arc::new(Deaf));
        Self {
            cache,
            clock,
            epoch,
            scheduler,
            woken,
        }
    }

    /// A key with a token of this many seconds that somebody asked for and may have for a day.
    fn key(&self, subject: &str, lives: u64) -> Arc<Slot> {
        let provider = ProviderName::parse("acme").unwrap();
        let subject = Subject::parse(subject).unwrap();
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
        let caller = Principal::new("billing", Tenant::default(), Vec::new());
        let now = self.clock.now();
        let slot = self.cache.slot_or_insert(&key, &caller, now).unwrap();
        let token = ObtainedToken {
            value: "t".into(),
            token_type: "Bearer".into(),
            expires: now.plus(Duration::from_secs(lives)),
            issued: now,
            scopes: ScopeSet::default(),
            extra: Vec::new(),
        };
        slot.publish(slot.era(), &token, now).unwrap();
        let decision = Decision {
            epoch: self.epoch.current(),
            allowed_until: now.plus(Duration::from_secs(86_400)),
            max_lifetime: None,
        };
        let request = TokenRequest::new(provider).subject(subject);
        self.cache.remember(&caller, &request, &slot, decision, now);
        slot.touch(now);
        slot
    }

    fn file(&self, slot: &Arc<Slot>, after_millis: u64) {
        assert!(
            self.scheduler
                .file(slot, START.plus(Duration::from_millis(after_millis)))
        );
    }

    async fn seen(&self) -> Vec<(String, i64)> {
        // Lets the loop have its turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::mem::take(&mut *self.woken.seen.lock().unwrap())
    }
}

fn woken(all: &[(&str, i64)]) -> Vec<(String, i64)> {
    all.iter()
        .map(|(subject, after)| ((*subject).to_owned(), *after))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn keys_are_woken_to_the_millisecond_whenever_they_were_filed() {
    let world = World::new();
    for (subject, after) in [("far", 10_000_250), ("near", 4_321), ("now", 30)] {
        world.file(&world.key(subject, 20_000), after);
    }
    tokio::time::sleep(Duration::from_secs(20_000)).await;
    assert_eq!(
        world.seen().await,
        woken(&[("now", 30), ("near", 4_321), ("far", 10_000_250)])
    );
    assert!(world.scheduler.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_plan_takes_the_place_of_the_old_one() {
    let world = World::new();
    let slot = world.key("ann", 600);
    world.file(&slot, 5_000);
    world.file(&slot, 9_000);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.seen().await, woken(&[("ann", 9_000)]));
}

#[tokio::test(start_paused = true)]
async fn keys_nobody_asked_for_or_may_have_are_left_to_lapse() {
    let world = World::new();
    let (denied, closed) = (world.key("denied", 600), world.key("closed", 600));
    world.file(&denied, 5_000);
    world.file(&closed, 5_000);
    world.cache.remove(&closed.key());
    world.epoch.advance();
    let unasked = world.key("unasked", 600);
    // Published again, and nobody came since.
    let now = world.clock.now();
    let token = ObtainedToken {
        value: "u".into(),
        token_type: "Bearer".into(),
        expires: now.plus(Duration::from_secs(900)),
        issued: now,
        scopes: ScopeSet::default(),
        extra: Vec::new(),
    };
    unasked.publish(unasked.era(), &token, now).unwrap();
    world.file(&unasked, 5_000);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.seen().await, woken(&[]));
    // Both are still due for the next caller.
    assert_eq!(unasked.due(), START.plus(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn what_ends_first_goes_first_when_there_is_little_room() {
    let world = World::new();
    world.woken.room.store(0, Ordering::SeqCst);
    for (subject, lives) in [("long", 900), ("short", 300), ("middle", 600)] {
        world.file(&world.key(subject, lives), 5_000);
    }
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(world.seen().await, woken(&[]));
    world.woken.room.store(1, Ordering::SeqCst);
    for (millis, subject) in [(5_501, "short"), (5_502, "middle"), (5_503, "long")] {
        // A ticket comes back: no second has to pass.
        world.scheduler.freed().notify_one();
        assert_eq!(world.seen().await, woken(&[(subject, millis)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_entry_does_not_displace_the_valid_one_that_waits_for_room() {
    let world = World::new();
    world.woken.room.store(0, Ordering::SeqCst);
    let slot = world.key("ann", 600);
    world.file(&slot, 5_000);
    world.file(&slot, 3_000);
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    world.woken.room.store(1, Ordering::SeqCst);
    world.scheduler.freed().notify_one();
    assert_eq!(world.seen().await, woken(&[("ann", 5_500)]));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_finds_what_it_missed_before_callers_have_to_wait() {
    let world = World::new();
    world.file(&world.key("ann", 7_200), 3_600_000);
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.clock.moved.store(7_000_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(188)).await;
    let seen = world.seen().await;
    assert_eq!(seen.len(), 1);
    assert!((7_010_000..7_198_800).contains(&seen[0].1), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_keeps_every_key_at_its_wall_time() {
    let world = World::new();
    tokio::time::sleep(Duration::from_secs(100)).await;
    world.file(&world.key("ann", 600), 160_000);
    world.clock.moved.store(-50_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(world.seen().await, woken(&[("ann", 160_000)]));
}

#[tokio::test(start_paused = true)]
async fn stale_entries_do_not_pile_up() {
    let world = World::new();
    let slot = world.key("ann", 600);
    for round in 0..5_000u64 {
        world.file(&slot, 500_000 + round);
    }
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert!(world.scheduler.is_empty());
    assert_eq!(world.seen().await, woken(&[("ann", 504_999)]));
}

/// Many keys in use whose tokens end in the same second, a life of an hour from the start.
fn herd(world: &World, size: usize) -> Vec<Arc<Slot>> {
    (0..size)
        .map(|n| world.key(&format!("user-{n}"), 3_600))
        .collect()
}

/// Peak and mean of the seconds from the first that saw anybody to the last.
#[expect(clippy::print_stdout, reason = "the figures are in the documentation")]
fn histogram(what: &str, seen: &[(String, i64)]) -> (f64, f64) {
    let mut seconds = std::collections::BTreeMap::<i64, u32>::new();
    for (_, after) in seen {
        *seconds.entry(after / 1_000).or_default() += 1;
    }
    let (first, last) = (seconds.keys().min(), seconds.keys().max());
    let span = last.unwrap() - first.unwrap() + 1;
    let (peak, mean) = (
        f64::from(*seconds.values().max().unwrap()),
        seen.len() as f64 / span as f64,
    );
    println!(
        "{what}: {} renewals over {span} s: peak {peak} and mean {mean:.1} a second, {:.2} times",
        seen.len(),
        peak / mean
    );
    (peak, mean)
}

const HERD: usize = 10_000;

#[tokio::test(start_paused = true)]
async fn ten_thousand_tokens_that_end_in_the_same_second_are_renewed_evenly() {
    let world = World::new();
    for slot in &herd(&world, HERD) {
        world.scheduler.file(slot, plan(slot).unwrap().due);
    }
    tokio::time::sleep(Duration::from_secs(3_599)).await;
    let seen = world.seen().await;
    assert_eq!(seen.len(), HERD);
    let (peak, mean) = histogram("in use", &seen);
    assert!(peak <= 2.0 * mean);
}

#[tokio::test(start_paused = true)]
async fn what_became_due_while_the_machine_slept_comes_evenly_over_what_is_left() {
    let world = World::new();
    let slots = herd(&world, HERD);
    for slot in &slots {
        world.scheduler.file(slot, plan(slot).unwrap().due);
    }
    // The window is from 3,299 s to 3,598.8 s. Asleep for its second third.
    tokio::time::sleep(Duration::from_secs(3_400)).await;
    let before = world.seen().await.len();
    world.clock.moved.store(100_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(99)).await;
    let seen = world.seen().await;
    assert_eq!(before + seen.len(), HERD);
    let (peak, mean) = histogram("after a sleep", &seen);
    assert!(peak <= 2.0 * mean);
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_the_machine_slept_is_left_to_whoever_asks() {
    let world = World::new();
    for slot in &herd(&world, 100) {
        world.scheduler.file(slot, plan(slot).unwrap().due);
    }
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    world.clock.moved.store(3_600_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.seen().await, woken(&[]));
    assert!(world.scheduler.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_became_due_in_a_pause_of_the_provider_comes_evenly_after_it() {
    let world = World::new();
    for slot in &herd(&world, HERD) {
        world.scheduler.file(slot, plan(slot).unwrap().due);
    }
    let ends = START.plus(Duration::from_secs(3_500));
    tokio::time::sleep(Duration::from_secs(3_400)).await;
    let before = world.seen().await.len();
    *world.woken.paused.lock().unwrap() = Some(ends);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(world.seen().await, woken(&[]));
    *world.woken.paused.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_secs(99)).await;
    let seen = world.seen().await;
    assert_eq!(before + seen.len(), HERD);
    let (peak, mean) = histogram("after a pause", &seen);
    assert!(peak <= 2.0 * mean);
}
