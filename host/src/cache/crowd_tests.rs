//! Many readers of many tenants' keys, while tokens are renewed, withdrawn and evicted and policy changes under them.

// The model checker's locks work inside its checks only.
#![cfg(not(feature = "model-check"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::model::event::{Event, Observer};
use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, ObtainedToken};

const START: UnixTime = UnixTime::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
const TENANTS: usize = 16;
/// The same names in every tenant: nothing but the tenant tells them apart.
const SUBJECTS: usize = 8;
const READERS: usize = 4;
const GETS: usize = 10_000_000;

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event) {}
}

impl Nudge for Deaf {
    fn nudge(&self, _: &Arc<Slot>) {}
}

/// One tenant's key.
struct Place {
    caller: Principal,
    request: TokenRequest,
    key: TokenKey,
    /// What its tokens begin with.
    mark: String,
    /// Tokens of this number and below were withdrawn: whoever has read this must not get one.
    withdrawn: AtomicU64,
}

fn places() -> Vec<Place> {
    let place = |tenant: usize, subject: usize| {
        let (name, user) = (format!("tenant-{tenant}"), format!("user-{subject}"));
        let tenant = Tenant::parse(&name).unwrap();
        let provider = ProviderName::parse("acme").unwrap();
        let request = TokenRequest::new(provider.clone()).subject(Subject::parse(&user).unwrap());
        Place {
            caller: Principal::new("billing", tenant.clone(), Vec::new()),
            key: TokenKey {
                credential: CredentialKey {
                    tenant,
                    provider,
                    subject: request.subject.clone(),
                },
                audience: None,
                scopes: ScopeSet::default(),
            },
            request,
            mark: format!("{name}/{user}/"),
            withdrawn: AtomicU64::new(0),
        }
    };
    (0..TENANTS)
        .flat_map(|tenant| (0..SUBJECTS).map(move |subject| place(tenant, subject)))
        .collect()
}

/// Everything that changes, as one writer sees it.
struct World {
    cache: Cache,
    places: Vec<Place>,
    epoch: PolicyEpoch,
    serial: AtomicU64,
}

impl World {
    fn decision(&self) -> Decision {
        Decision {
            epoch: self.epoch.current(),
            allowed_until: START.plus(HOUR),
            max_lifetime: None,
        }
    }

    fn slot(&self, place: &Place) -> Arc<Slot> {
        let slot = self.cache.slot_or_insert(&place.key, &place.caller, START);
        slot.unwrap()
    }

    fn publish(&self, place: &Place) {
        let slot = self.slot(place);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let token = ObtainedToken {
            value: format!("{}{serial}", place.mark).into(),
            token_type: "Bearer".into(),
            expires: START.plus(HOUR),
            issued: START,
            scopes: ScopeSet::default(),
            extra: Vec::new(),
        };
        slot.publish(slot.era(), &token, START).unwrap();
        let (caller, request) = (&place.caller, &place.request);
        let remembered = self
            .cache
            .remember(caller, request, &slot, self.decision(), START);
        assert!(remembered);
    }

    /// One change, each kind in its turn.
    fn change(&self, number: usize) {
        let place = &self.places[number * 7 % self.places.len()];
        match number % 61 {
            0 => {
                self.epoch.advance();
                self.cache.forget_before(self.epoch.current());
                self.places.iter().for_each(|place| self.publish(place));
            }
            1..=20 => {
                self.slot(place).withdraw();
                let last = self.serial.load(Ordering::Relaxed);
                place.withdrawn.store(last, Ordering::Release);
                self.publish(place);
            }
            21..=25 => {
                self.cache.remove(&place.key);
                let last = self.serial.load(Ordering::Relaxed);
                place.withdrawn.store(last, Ordering::Release);
                self.publish(place);
            }
            _ => self.publish(place),
        }
    }
}

/// What one reader keeps in mind of one place.
struct Reading<'w> {
    place: &'w Place,
    handle: Option<TokenHandle>,
    /// The number of the last token seen; they only grow.
    seen: u64,
}

impl Reading<'_> {
    /// Judges a token that was got after `withdrawn` had been read.
    fn judge(&mut self, token: &AccessToken, withdrawn: u64) {
        let number = token.raw().strip_prefix(&self.place.mark);
        let number: u64 = number
            .unwrap_or_else(|| panic!("a foreign token: asked for {}", self.place.mark))
            .parse()
            .expect("torn");
        assert!(number >= self.seen, "an older token");
        assert!(number > withdrawn, "a withdrawn token");
        self.seen = number;
    }
}

fn read(world: &World, first: usize, gets: usize) -> usize {
    let mut readings: Vec<_> = world
        .places
        .iter()
        .map(|place| Reading {
            place,
            handle: None,
            seen: 0,
        })
        .collect();
    let mut found = 0;
    for number in 0..gets {
        let at = (first + number * 31) % readings.len();
        let reading = &mut readings[at];
        let place = reading.place;
        let withdrawn = place.withdrawn.load(Ordering::Acquire);
        if number % 2 == 0 {
            let (caller, request) = (&place.caller, &place.request);
            let epoch = world.epoch.current();
            let got = world.cache.with(caller, request, epoch, START, |token, _| {
                reading.judge(token, withdrawn);
            });
            found += usize::from(got.is_some());
        } else {
            let handle = reading.handle.take().or_else(|| {
                let pin = world.cache.slot(&place.key)?.pin()?;
                let clock = CoarseClock::from(Arc::new(Stopped) as Arc<_>);
                let epoch = world.epoch.clone();
                let nudge = Arc::new(Deaf);
                Some(TokenHandle::new(pin, world.decision(), epoch, clock, nudge))
            });
            let Some(mut handle) = handle else { continue };
            match handle.get() {
                Ok(token) => {
                    let token = Arc::clone(token);
                    reading.judge(&token, withdrawn);
                    found += 1;
                    reading.handle = Some(handle);
                }
                // Another key came to be in its place, or policy changed: a new handle next time.
                Err(NotReady::Closed | NotReady::Denied) => {}
                Err(NotReady::Absent) => reading.handle = Some(handle),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    found
}

#[derive(Debug)]
struct Stopped;

impl crate::model::time::Clock for Stopped {
    fn now(&self) -> UnixTime {
        START
    }
}

#[test]
fn ten_million_gets_under_swaps_find_no_foreign_torn_older_or_withdrawn_token() {
    let world = World {
        cache: Cache::new(CacheLimits::default(), Arc::new(Deaf)),
        places: places(),
        epoch: PolicyEpoch::default(),
        serial: AtomicU64::new(0),
    };
    world.places.iter().for_each(|place| world.publish(place));
    let over = AtomicBool::new(false);
    let (found, changes) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut changes = 0;
            while !over.load(Ordering::Relaxed) {
                world.change(changes);
                changes += 1;
            }
            changes
        });
        let each = GETS / READERS;
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let world = &world;
                scope.spawn(move || read(world, reader, each))
            })
            .collect();
        // A reader's panic is told when the writer is done too.
        let found: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        over.store(true, Ordering::Relaxed);
        let found: usize = found.into_iter().map(|found| found.unwrap()).sum();
        (found, writer.join().unwrap())
    });
    // Otherwise nothing was put to the test.
    assert!(found > GETS / 2, "{found} tokens in {GETS} gets");
    assert!(changes > 1_000, "{changes} changes");
}
