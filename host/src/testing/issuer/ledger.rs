//! What the issuer was asked: one entry a request, in order of arrival.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::time::UnixTime;

/// Entries kept; a load test that asks more loses the oldest, the counts go on.
const ENTRIES_MAX: usize = 100_000;

/// How far back the entry of a connection that ends is looked for: far more requests than are under way at once.
const RECENT: usize = 4_096;

/// Every request to the token and the revocation endpoint.
#[derive(Debug)]
pub struct Ledger {
    /// Held for a push or a copy, never across `.await`.
    pages: Mutex<Pages>,
    arrived: watch::Sender<u64>,
    moments: watch::Sender<Moments>,
}

/// How far requests came, as counts since the start. Each step follows the one before within microseconds, so a test that
/// wants to be between two of them waits for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Requests that had taken effect and were not answered.
    pub presented: u64,
    /// Answers whose last byte was handed to the connection, or that were given up.
    pub answered: u64,
    /// Connections that ended: by their client, where the issuer did not misbehave.
    pub left: u64,
}

/// One request. Tokens appear as numbers, never as themselves.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The how-manieth request, from 0.
    pub number: u64,
    /// When it had arrived in full.
    pub at: UnixTime,
    /// Which connection it came over.
    pub connection: u64,
    /// Who sent it, once authenticated.
    pub client: Option<String>,
    /// `grant_type`, or `revoke`.
    pub grant: String,
    /// Which refresh token was presented.
    pub presented: Option<u64>,
    /// Which refresh token was issued in return.
    pub brought: Option<u64>,
    /// When the connection it came over ended, if it did.
    pub left: Option<UnixTime>,
    /// Form members by name, without values.
    pub members: Vec<String>,
    /// How it was answered, by [`super::Behaviour::label`].
    pub behaviour: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A token was issued, or revoked.
    Granted,
    /// An OAuth error.
    Refused(String),
    /// A spent single-use refresh token was presented: its whole family died.
    Replayed,
    /// The behaviour in force kept it from taking effect.
    Unprocessed,
}

#[derive(Debug, Default)]
struct Pages {
    entries: std::collections::VecDeque<Entry>,
    granted: u64,
    replayed: u64,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            pages: Mutex::default(),
            arrived: watch::Sender::new(0),
            moments: watch::Sender::default(),
        }
    }

    pub(super) fn record(&self, mut entry: Entry) {
        let mut pages = self.lock();
        pages.granted += u64::from(entry.outcome == Outcome::Granted);
        pages.replayed += u64::from(entry.outcome == Outcome::Replayed);
        if pages.entries.len() == ENTRIES_MAX {
            pages.entries.pop_front();
        }
        self.arrived.send_modify(|arrived| {
            entry.number = *arrived;
            *arrived += 1;
        });
        pages.entries.push_back(entry);
        drop(pages);
        self.moments.send_modify(|moments| moments.presented += 1);
    }

    pub(super) fn answered(&self) {
        self.moments.send_modify(|moments| moments.answered += 1);
    }

    pub(super) fn left(&self, connection: u64, now: UnixTime) {
        let mut pages = self.lock();
        let mut latest = pages.entries.iter_mut().rev().take(RECENT);
        if let Some(entry) = latest.find(|entry| entry.connection == connection) {
            entry.left = Some(now);
        }
        drop(pages);
        self.moments.send_modify(|moments| moments.left += 1);
    }

    /// How far requests came, now and as it goes on.
    pub fn moments(&self) -> watch::Receiver<Moments> {
        self.moments.subscribe()
    }

    /// How many requests arrived.
    pub fn count(&self) -> u64 {
        *self.arrived.borrow()
    }

    /// How many of them took effect, whatever became of the answer.
    pub fn granted(&self) -> u64 {
        self.lock().granted
    }

    /// How often a spent single-use refresh token was presented. Must stay 0.
    pub fn replayed(&self) -> u64 {
        self.lock().replayed
    }

    /// The requests, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.iter().cloned().collect()
    }

    /// The requests from this number on, oldest first.
    pub fn entries_from(&self, number: u64) -> Vec<Entry> {
        let pages = self.lock();
        let entries = pages.entries.iter();
        entries
            .skip_while(|entry| entry.number < number)
            .cloned()
            .collect()
    }

    /// How many requests arrived in the span before `now`.
    pub fn count_within(&self, span: Duration, now: UnixTime) -> usize {
        let from = now.minus(span);
        self.lock()
            .entries
            .iter()
            .rev()
            .take_while(|entry| entry.at > from)
            .count()
    }

    /// The most requests within any one second.
    pub fn peak_per_second(&self) -> usize {
        let pages = self.lock();
        let mut first = 0;
        let mut peak = 0;
        for (last, entry) in pages.entries.iter().enumerate() {
            while entry.at.since(pages.entries[first].at) >= Duration::from_secs(1) {
                first += 1;
            }
            peak = peak.max(last + 1 - first);
        }
        peak
    }

    /// Waits until this many requests arrived in all. A request counts when it has taken effect, before it is answered.
    ///
    /// # Cancel safety
    ///
    /// Loses nothing when dropped.
    pub async fn wait_for(&self, count: u64) {
        let mut arrived = self.arrived.subscribe();
        // The sender is `self.arrived`, which outlives this borrow: waiting cannot fail.
        let _ = arrived.wait_for(|arrived| *arrived >= count).await;
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(millis: u64) -> Entry {
        Entry {
            number: 0,
            at: UnixTime::from_millis(millis),
            connection: 0,
            client: None,
            grant: "refresh_token".into(),
            presented: None,
            brought: None,
            left: None,
            members: Vec::new(),
            behaviour: "normal",
            outcome: Outcome::Granted,
        }
    }

    #[tokio::test]
    async fn the_peak_is_that_of_any_second() {
        let ledger = Ledger::new();
        for millis in [0, 900, 1000, 1800, 1899, 5000] {
            ledger.record(entry(millis));
        }
        ledger.wait_for(6).await;
        assert_eq!(ledger.peak_per_second(), 4);
        assert_eq!(
            ledger.count_within(Duration::from_secs(4), UnixTime::from_millis(5000)),
            3
        );
        assert_eq!(ledger.entries()[5].number, 5);
    }
}
