//! Who obtains, and who waits: one flight a key, one result for everybody in it.
//!
//! A flight belongs to nobody who waits for it. Whoever leads hands the [`Lead`] to a task of the broker and follows
//! like everybody else; leaving costs nothing. What a flight does, and where its result is kept, is not known here.
//!
//! # Order
//!
//! A leader first changes the slot (publishes the token, or remembers the failure), then lands. Landing takes the
//! flight out of the map *before* it wakes anybody, so whoever joins later starts a new one and never gets the result
//! of a flight that ended before it asked. For the same reason **a new leader looks at the slot again** before it does
//! anything: between its look and its joining another flight may have landed. Both together make it one request a key.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::shim::{self, Mutex};

/// The most that wait for one key: as many as the callers of a large gateway, at 16 bytes each. One more is better told
/// at once to come back than woken last.
pub const WAITERS_MAX: usize = 16_384;

/// The flights in the air, by key. Clones are the same.
pub struct Flights<K, R>(Arc<Inner<K, R>>);

struct Inner<K, R> {
    /// The flights that can be joined. Held for one look; no flight's own lock is taken while it is held.
    joinable: Mutex<HashMap<K, Arc<Flight<R>>, foldhash::quality::RandomState>>,
    /// What everybody gets when a leader is dropped without landing: its task panicked or was cancelled.
    aborted: Box<dyn Fn() -> R + Send + Sync>,
}

struct Flight<R> {
    /// Held for taking or leaving a seat, and for landing; nobody is woken while it is held.
    state: Mutex<State<R>>,
}

enum State<R> {
    Flying(Seats),
    Landed(R),
}

/// Those who wait. A seat is taken by joining, and holds a waker once it was polled.
#[derive(Default)]
struct Seats {
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// What joining led to.
#[must_use]
pub enum Joined<K: Hash + Eq, R: Clone> {
    /// Nobody is at it: obtain it, after another look at the slot.
    Lead(Lead<K, R>),
    /// Somebody is at it: wait.
    Follow(Follow<R>),
    /// Too many wait already.
    Full,
}

/// The duty to land a flight. Dropped without, it lands the aborted result.
#[must_use]
pub struct Lead<K: Hash + Eq, R: Clone> {
    flights: Arc<Inner<K, R>>,
    key: K,
    /// Taken by landing.
    flight: Option<Arc<Flight<R>>>,
}

/// A seat in a flight: a future of its result.
///
/// # Cancel safety
///
/// Dropping it gives up the seat and touches neither the flight nor anybody else in it.
#[must_use = "waiting happens when it is polled"]
pub struct Follow<R: Clone> {
    flight: Arc<Flight<R>>,
    /// None once it landed before the seat was taken.
    seat: Option<usize>,
}

// === impl Flights ===

impl<K: Hash + Eq + Clone, R: Clone> Flights<K, R> {
    /// None in the air; `aborted` makes the result of a flight whose leader was dropped.
    pub fn new(aborted: impl Fn() -> R + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            joinable: Mutex::default(),
            aborted: Box::new(aborted),
        }))
    }

    /// Joins the key's flight, or starts it.
    pub fn join(&self, key: &K) -> Joined<K, R> {
        let mut joinable = shim::lock(&self.0.joinable);
        if let Some(flight) = joinable.get(key).map(Arc::clone) {
            drop(joinable);
            return Follow::sit(flight, WAITERS_MAX).map_or(Joined::Full, Joined::Follow);
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State::Flying(Seats::default())),
        });
        joinable.insert(key.clone(), Arc::clone(&flight));
        drop(joinable);
        Joined::Lead(Lead {
            flights: Arc::clone(&self.0),
            key: key.clone(),
            flight: Some(flight),
        })
    }

    /// Lets nobody join the flight in the air: its result will be of a grant that was replaced. It lands for those who
    /// are in it; the next to join starts another.
    pub fn disown(&self, key: &K) {
        drop(shim::lock(&self.0.joinable).remove(key));
    }

    /// Whether the key has a flight that can be joined.
    pub fn in_air(&self, key: &K) -> bool {
        shim::lock(&self.0.joinable).contains_key(key)
    }

    /// How many wait for the key.
    pub fn waiters(&self, key: &K) -> usize {
        let flight = shim::lock(&self.0.joinable).get(key).map(Arc::clone);
        flight.map_or(0, |flight| flight.waiters())
    }

    /// How many flights can be joined.
    pub fn len(&self) -> usize {
        shim::lock(&self.0.joinable).len()
    }

    /// True when none can.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, R> Clone for Flights<K, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, R> std::fmt::Debug for Flights<K, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

// === impl Lead ===

impl<K: Hash + Eq, R: Clone> Lead<K, R> {
    /// A seat for the caller who started it, whatever the bound: it waits like everybody else, and may leave.
    pub fn follow(&self) -> Follow<R> {
        let flight = self
            .flight
            .as_ref()
            .expect("landing consumes the lead, so it still flies");
        Follow::sit(Arc::clone(flight), usize::MAX).expect("no bound was set")
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.waiters())
    }

    /// Ends the flight: everybody in it gets `result`, once. See the module's words on order.
    pub fn land(mut self, result: R) {
        self.touch_down(|_| result);
    }

    fn touch_down(&mut self, result: impl FnOnce(&Inner<K, R>) -> R) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let mut joinable = shim::lock(&self.flights.joinable);
        // Disowned, and another one started since: that one stays.
        if joinable
            .get(&self.key)
            .is_some_and(|other| Arc::ptr_eq(other, &flight))
        {
            joinable.remove(&self.key);
        }
        drop(joinable);
        let result = result(&self.flights);
        let before = std::mem::replace(&mut *shim::lock(&flight.state), State::Landed(result));
        if let State::Flying(seats) = before {
            // Outside the lock: a woken task may run at once and take it.
            seats.seats.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

impl<K: Hash + Eq, R: Clone> Drop for Lead<K, R> {
    fn drop(&mut self) {
        self.touch_down(|flights| (flights.aborted)());
    }
}

// === impl Follow ===

impl<R: Clone> Follow<R> {
    fn sit(flight: Arc<Flight<R>>, most: usize) -> Option<Self> {
        let seat = match &mut *shim::lock(&flight.state) {
            State::Landed(_) => None,
            State::Flying(seats) if seats.taken() >= most => return None,
            State::Flying(seats) => Some(seats.take()),
        };
        Some(Self { flight, seat })
    }

    /// The flight's result.
    ///
    /// # Cancel safety
    ///
    /// As [`Follow`].
    pub async fn wait(self) -> R {
        self.await
    }
}

impl<R: Clone> Future for Follow<R> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        // Result and waker are exchanged under one lock: no landing falls between the look and the registration.
        match &mut *shim::lock(&self.flight.state) {
            State::Landed(result) => Poll::Ready(result.clone()),
            State::Flying(seats) => {
                if let Some(waker) = self.seat.and_then(|seat| seats.seats.get_mut(seat)) {
                    match waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        None => *waker = Some(cx.waker().clone()),
                    }
                }
                Poll::Pending
            }
        }
    }
}

impl<R: Clone> Drop for Follow<R> {
    fn drop(&mut self) {
        let Some(seat) = self.seat else { return };
        let left = match &mut *shim::lock(&self.flight.state) {
            State::Flying(seats) => seats.leave(seat),
            State::Landed(_) => None,
        };
        // Outside the lock: dropping a waker may run a task's destructor.
        drop(left);
    }
}

// === impl Flight ===

impl<R> Flight<R> {
    fn waiters(&self) -> usize {
        match &*shim::lock(&self.state) {
            State::Flying(seats) => seats.taken(),
            State::Landed(_) => 0,
        }
    }
}

// === impl Seats ===

impl Seats {
    fn taken(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        })
    }

    fn leave(&mut self, seat: usize) -> Option<Waker> {
        self.free.push(seat);
        self.seats.get_mut(seat).and_then(Option::take)
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
