//! How much of a provider may be used at once. The budgets of all of them are in `budgets`.
//!
//! One ticket is one flow. Who gets the next one is in `queue`; a share of the tickets is kept for callers who wait. The
//! number of tickets follows what the provider can take.
//! When it asked for a pause for the whole client, there are none. Where the operator set a rate, both lanes obey it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::latency::Latencies;
use super::pace::Pace;
use super::queue::{Bid, Flow, Lane, Queue};
use crate::model::key::Tenant;
use crate::model::time::UnixTime;
use crate::model::token::SlotId;

/// One in this many tickets is kept for callers who wait: a wave of renewals must not make them wait for its end.
const KEPT_ONE_IN: usize = 4;
/// The most flows that queue for one provider. Behind these, at 16 at once and 100 ms each, one would wait for longer
/// than any caller does.
pub const QUEUE_MAX: usize = 16_384;
/// Places in the queue that no tenant takes alone: the crowd of one must not turn away the first flow of another.
const QUEUE_KEPT: usize = 1_024;
/// What is left of the tickets after the provider was overloaded.
const CUT: f64 = 0.7;
/// Signs of one and the same overload arrive together: one cut is enough for all within this.
const CUT_PAUSE: Duration = Duration::from_secs(1);

/// How the provider took a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// It answered, with whatever.
    Fine,
    /// It was too much: 429, 503, or no answer in time.
    TooMuch,
}

/// Why there is no ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTicket {
    /// The provider asked the whole client to pause.
    Paused {
        /// Until then.
        until: UnixTime,
    },
    /// Too many queue already.
    Full,
}

/// What an operator allows of one provider.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Flows at once.
    pub most: usize,
    /// Flows that start in a second.
    pub rate: Option<f64>,
}

/// What one provider can take.
pub struct Budget {
    /// Held for a few words; never across `.await`, and nobody is told anything while it is held.
    state: Mutex<State>,
    bells: Bells,
}

/// Whom a budget tells what.
#[derive(Clone, Default)]
pub(super) struct Bells {
    /// The scheduler may start another renewal.
    pub(super) freed: Arc<Notify>,
    /// Somebody waits for the rate: see [`Budgets::run`](super::Budgets::run).
    pub(super) paced: Arc<Notify>,
}

/// The right to run one flow. Dropped, it comes back.
#[must_use]
pub struct Ticket {
    budget: Arc<Budget>,
    lane: Lane,
}

struct State {
    /// As configured.
    most: usize,
    pace: Option<Pace>,
    /// Somebody waits for the rate, and [`Budgets::run`](super::Budgets::run) knows.
    timed: bool,
    /// The scheduler is to be told when the rate lets another renewal start: it found no room, or started one.
    wants_room: bool,
    /// What the provider takes now: between 1 and `most`.
    takes: f64,
    cut_at: UnixTime,
    running: usize,
    running_ahead: usize,
    paused_until: UnixTime,
    queue: Queue<Told>,
    latencies: Latencies,
}

/// Tells one who queues.
type Told = oneshot::Sender<Result<Ticket, NoTicket>>;

/// Gives up the place when its owner leaves, and no other flow's.
struct Queued<'a> {
    budget: &'a Arc<Budget>,
    flow: Flow,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limits: Limits, bells: Bells) -> Arc<Self> {
        let most = limits.most.max(1);
        let state = State {
            most,
            pace: limits.rate.map(Pace::new),
            timed: false,
            wants_room: false,
            takes: most as f64,
            cut_at: UnixTime::default(),
            running: 0,
            running_ahead: 0,
            paused_until: UnixTime::default(),
            queue: Queue::default(),
            latencies: Latencies::default(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            bells,
        })
    }

    /// Waits for a ticket for a flow.
    ///
    /// # Errors
    ///
    /// [`NoTicket`], at once or when the provider asks for a pause meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub async fn ticket(self: &Arc<Self>, bid: Bid, now: UnixTime) -> Result<Ticket, NoTicket> {
        let (flow, receiver) = {
            let mut state = self.lock();
            if now < state.paused_until {
                return Err(NoTicket::Paused {
                    until: state.paused_until,
                });
            }
            let own: usize = state.queue.of(&bid.tenant).iter().sum();
            if state.queue.len() >= QUEUE_MAX || own >= QUEUE_MAX - QUEUE_KEPT {
                return Err(NoTicket::Full);
            }
            let (sender, receiver) = oneshot::channel();
            (state.queue.put(bid, sender), receiver)
        };
        let _queued = Queued { budget: self, flow };
        self.grant();
        // A sender leaves the queue only to speak, or with the place that is given up here.
        receiver.await.unwrap_or(Err(NoTicket::Full))
    }

    /// Somebody joined the flow of this slot and waits: it goes before those that nobody waits for.
    pub fn hurry(self: &Arc<Self>, slot: SlotId) {
        self.lock().queue.hurry(slot);
        self.grant();
    }

    /// The provider asked the whole client to pause: nobody gets a ticket before `until`.
    pub fn pause(&self, until: UnixTime) {
        let mut state = self.lock();
        state.paused_until = state.paused_until.max(until);
        let until = state.paused_until;
        let queue = state.queue.drain();
        drop(state);
        for sender in queue {
            // Who left meanwhile does not mind.
            let _ = sender.send(Err(NoTicket::Paused { until }));
        }
    }

    /// Until when the provider asked for a pause, if that is to come.
    pub fn paused(&self, now: UnixTime) -> Option<UnixTime> {
        let until = self.lock().paused_until;
        (now < until).then_some(until)
    }

    /// Ends a pause: an operator knows better.
    pub fn resume(&self) {
        self.lock().paused_until = UnixTime::default();
        self.bells.freed.notify_one();
    }

    /// How many more renewals of this tenant would get a ticket at once. Where callers of other tenants queue, one at a time,
    /// which takes its turn among them; where its own do, none.
    pub fn room(&self, tenant: &Tenant, now: UnixTime) -> usize {
        let mut state = self.lock();
        let [own_waiting, own_ahead] = state.queue.of(tenant);
        if now < state.paused_until || own_waiting > 0 {
            return 0;
        }
        if state.queue.len() > state.queue.ahead() {
            let places = state.limit_ahead().saturating_sub(state.queue.ahead());
            return places.min(1).saturating_sub(own_ahead);
        }
        let free = state.limit().saturating_sub(state.running);
        let ahead = state.limit_ahead().saturating_sub(state.running_ahead);
        let room = free.min(ahead).saturating_sub(state.queue.ahead());
        let Some(pace) = &state.pace else {
            return room;
        };
        let paced = pace
            .free(Instant::now())
            .saturating_sub(state.queue.ahead());
        if paced > 0 || room == 0 {
            return paced.min(room);
        }
        state.wants_room = true;
        let news = !std::mem::replace(&mut state.timed, true);
        drop(state);
        if news {
            self.bells.paced.notify_one();
        }
        0
    }

    /// How long the rate makes one of this tenant wait who would queue now, if all who queue before stay and no tenant comes
    /// that does not queue yet. Zero without a rate.
    pub fn wait(&self, tenant: &Tenant, lane: Lane) -> Duration {
        let state = self.lock();
        state.pace.as_ref().map_or(Duration::ZERO, |pace| {
            pace.wait(state.queue.before(tenant, lane), Instant::now())
        })
    }

    /// What nineteen in twenty flows did not exceed: what a renewal needs.
    pub fn latency_p95(&self) -> Duration {
        self.lock().latencies.p95()
    }

    /// How many flows run, and how many may.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.running, state.limit())
    }

    /// Takes new configured limits.
    pub fn set_limits(self: &Arc<Self>, limits: Limits) {
        let mut state = self.lock();
        let most = limits.most.max(1);
        if most != state.most {
            state.most = most;
            state.takes = most as f64;
        }
        match (limits.rate, &mut state.pace) {
            (Some(rate), Some(pace)) => pace.set_rate(rate),
            (rate, pace) => *pace = rate.map(Pace::new),
        }
        drop(state);
        self.grant();
    }

    /// Hands out what tickets there are, in order. Sees to it that what the rate holds back is looked at again.
    fn grant(self: &Arc<Self>) {
        let was_timed = self.lock().timed;
        if self.grant_now().is_some() && !was_timed {
            self.bells.paced.notify_one();
        }
    }

    /// Hands out what tickets there are, in order; answers when the rate allows the next one that somebody waits for.
    pub(super) fn grant_now(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut granted = Vec::new();
        let mut held_back = false;
        let mut state = self.lock();
        while let Some(lane) = state.queue.next_lane(|lane| state.admits(lane)) {
            if state.pace.as_mut().is_some_and(|pace| !pace.start(now)) {
                held_back = true;
                break;
            }
            let Some(sender) = state.queue.pop(lane) else {
                break;
            };
            state.running += 1;
            state.running_ahead += usize::from(lane == Lane::Ahead);
            state.wants_room |= lane == Lane::Ahead && state.pace.is_some();
            granted.push((
                sender,
                Ticket {
                    budget: Arc::clone(self),
                    lane,
                },
            ));
        }
        let room = state.wants_room && state.pace.is_none_or(|pace| pace.free(now) > 0);
        state.wants_room &= !room;
        state.timed = held_back || state.wants_room;
        let pace = state.pace.filter(|_| state.timed);
        drop(state);
        if room {
            self.bells.freed.notify_one();
        }
        for (sender, ticket) in granted {
            // To one who left, it comes back by being dropped.
            let _ = sender.send(Ok(ticket));
        }
        pace.map(|pace| now + pace.wait(0, now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (running, limit) = self.load();
        write!(f, "Budget {running}/{limit}")
    }
}

// === impl State ===

impl State {
    fn limit(&self) -> usize {
        // At least one: a provider that is never asked is never known to have recovered.
        (self.takes as usize).clamp(1, self.most)
    }

    fn limit_ahead(&self) -> usize {
        let limit = self.limit();
        let kept = if limit > 1 {
            (limit / KEPT_ONE_IN).max(1)
        } else {
            0
        };
        limit - kept
    }

    fn admits(&self, lane: Lane) -> bool {
        self.running < self.limit()
            && (lane == Lane::Waiting || self.running_ahead < self.limit_ahead())
    }
}

// === impl Ticket ===

impl Ticket {
    /// Ends the flow and tells how the provider took it.
    pub fn finish(self, took: Duration, load: Load, now: UnixTime) {
        let mut state = self.budget.lock();
        state.latencies.note(took);
        match load {
            Load::Fine => {
                // One more for as many good answers as there are tickets.
                state.takes = (state.takes + 1.0 / state.takes).min(state.most as f64);
            }
            Load::TooMuch if now.since(state.cut_at) >= CUT_PAUSE => {
                state.takes = (state.takes * CUT).max(1.0);
                state.cut_at = now;
            }
            Load::TooMuch => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.running -= 1;
        state.running_ahead -= usize::from(self.lane == Lane::Ahead);
        drop(state);
        self.budget.grant();
        self.budget.bells.freed.notify_one();
    }
}

// === impl Queued ===

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        // With the ticket in hand there is no place left to give up.
        let left = self.budget.lock().queue.leave(self.flow);
        drop(left);
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rate_tests.rs"]
mod rate_tests;
