//! The latest facts of each key, for `explain`: what happened to this token and why.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::labels;
use crate::model::event::{Event, Observer, RefreshOutcome};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::time::{Clock, UnixTime};

/// Facts kept of a key: a few renewals and a failure with everything around it.
pub const FACTS_PER_KEY_MAX: usize = 32;
/// Keys kept, tokens and credentials each: at about 4 KiB a full key this is 40 MiB at the very worst. The key without
/// news for longest goes first.
pub const TIMELINE_KEYS_MAX: usize = 10_000;

/// Remembers the latest facts of the latest keys.
pub struct Timeline {
    clock: Arc<dyn Clock>,
    /// Held for one push or one copy, never across `.await`.
    pages: Mutex<Pages>,
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// When it was observed, unix milliseconds.
    pub at_ms: u64,
    /// What: `refresh_started`, `renewed`, `refresh_failed`, `adopted`, `rejected`, `request_failed`, `credential`,
    /// `rotated`, `evicted`.
    pub what: &'static str,
    /// The words.
    pub detail: String,
}

#[derive(Default)]
struct Pages {
    tokens: Shelf<TokenKey>,
    credentials: Shelf<CredentialKey>,
}

struct Shelf<K> {
    books: HashMap<K, Book>,
    /// Keys by their last write.
    by_age: BTreeMap<u64, K>,
    writes: u64,
}

struct Book {
    facts: VecDeque<Fact>,
    written: u64,
}

// === impl Timeline ===

impl Timeline {
    /// Empty; facts are dated by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            pages: Mutex::default(),
        }
    }

    /// What is remembered of a key and of its credential, oldest first.
    pub fn facts(&self, key: &TokenKey) -> Vec<Fact> {
        let pages = self.lock();
        let own = pages.tokens.books.get(key);
        let shared = pages.credentials.books.get(&key.credential);
        let books = own.into_iter().chain(shared);
        let mut facts: Vec<Fact> = books.flat_map(|book| book.facts.iter().cloned()).collect();
        facts.sort_by_key(|fact| fact.at_ms);
        facts
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: &TokenKey, what: &'static str, detail: String) {
        let fact = fact(self.clock.now(), what, detail);
        self.lock().tokens.write(key, fact);
    }

    fn note_credential(&self, key: &CredentialKey, what: &'static str, detail: String) {
        let fact = fact(self.clock.now(), what, detail);
        self.lock().credentials.write(key, fact);
    }
}

fn fact(now: UnixTime, what: &'static str, detail: String) -> Fact {
    Fact {
        at_ms: now.as_millis(),
        what,
        detail,
    }
}

impl Observer for Timeline {
    fn observe(&self, event: &Event) {
        match event {
            Event::RefreshStarted { key, cause } => {
                self.note(
                    key,
                    "refresh_started",
                    format!("cause {}", labels::cause(*cause)),
                );
            }
            Event::RefreshFinished {
                key,
                cause,
                outcome,
                took,
            } => {
                let why = labels::cause(*cause);
                match outcome {
                    RefreshOutcome::Renewed {
                        generation,
                        expires,
                    } => {
                        let (generation, expires) = (generation.number(), expires.as_secs());
                        let words = format!(
                            "generation {generation}, until {expires}, cause {why}, took {took:?}"
                        );
                        self.note(key, "renewed", words);
                    }
                    RefreshOutcome::Failed {
                        kind,
                        detail,
                        not_before,
                        correlation,
                    } => {
                        let next =
                            not_before.map_or(String::new(), |at| format!(", not before {at:?}"));
                        let kind = kind.label();
                        let words = format!(
                            "{kind}: {detail} ({correlation}), cause {why}, took {took:?}{next}"
                        );
                        self.note(key, "refresh_failed", words);
                    }
                }
            }
            Event::TokenAdopted {
                key,
                generation,
                expires,
            } => {
                let (generation, expires) = (generation.number(), expires.as_secs());
                let words = format!("generation {generation}, until {expires}, from the store");
                self.note(key, "adopted", words);
            }
            Event::TokenRejected {
                key,
                generation,
                outcome,
                caller,
            } => {
                let words = format!("generation {} by {caller}: {outcome}", generation.number());
                self.note(key, "rejected", words);
            }
            Event::RequestFailed {
                key,
                kind,
                detail,
                correlation,
            } => {
                self.note(
                    key,
                    "request_failed",
                    format!("{}: {detail} ({correlation})", kind.label()),
                );
            }
            Event::KeyEvicted { key, why } => self.note(key, "evicted", (*why).to_owned()),
            Event::CredentialChanged {
                key,
                was: _,
                state,
                version,
                by,
            } => {
                let words = format!("{}, version {}, by {by}", state.label(), version.0);
                self.note_credential(key, "credential", words);
            }
            Event::GrantRotated { key, version } => {
                self.note_credential(key, "rotated", format!("version {}", version.0));
            }
            // Not about a key.
            Event::UpstreamAnswered { .. }
            | Event::PluginFailed { .. }
            | Event::Denied { .. }
            | Event::PluginSwapped { .. }
            | Event::ConfigReloaded { .. }
            | Event::StoreKept { .. }
            | Event::Notice { .. } => {}
        }
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timeline of {} keys", self.lock().tokens.books.len())
    }
}

// === impl Shelf ===

impl<K: Clone + Eq + Hash> Shelf<K> {
    fn write(&mut self, key: &K, fact: Fact) {
        self.writes += 1;
        match self.books.get_mut(key) {
            Some(book) => {
                self.by_age.remove(&book.written);
                book.written = self.writes;
                if book.facts.len() == FACTS_PER_KEY_MAX {
                    book.facts.pop_front();
                }
                book.facts.push_back(fact);
            }
            None => {
                if self.books.len() == TIMELINE_KEYS_MAX
                    && let Some((_, oldest)) = self.by_age.pop_first()
                {
                    self.books.remove(&oldest);
                }
                let book = Book {
                    facts: VecDeque::from([fact]),
                    written: self.writes,
                };
                self.books.insert(key.clone(), book);
            }
        }
        self.by_age.insert(self.writes, key.clone());
    }
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self {
            books: HashMap::new(),
            by_age: BTreeMap::new(),
            writes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contract::Cause;
    use crate::model::credential::{CredentialState, Version};
    use crate::model::key::{ProviderName, ScopeSet, Subject, Tenant};
    use crate::model::time::SystemClock;

    fn key(subject: usize) -> TokenKey {
        TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: Subject::parse(&subject.to_string()).ok(),
            },
            audience: None,
            scopes: ScopeSet::default(),
        }
    }

    fn started(subject: usize) -> Event {
        Event::RefreshStarted {
            key: key(subject),
            cause: Cause::First,
        }
    }

    #[test]
    fn a_busy_key_keeps_its_latest_facts() {
        let timeline = Timeline::new(Arc::new(SystemClock));
        for _ in 0..3 * FACTS_PER_KEY_MAX {
            timeline.observe(&started(1));
        }
        timeline.observe(&Event::KeyEvicted {
            key: key(1),
            why: "idle",
        });
        let facts = timeline.facts(&key(1));
        assert_eq!(facts.len(), FACTS_PER_KEY_MAX);
        assert_eq!(facts.last().map(|fact| fact.what), Some("evicted"));
        assert!(timeline.facts(&key(2)).is_empty());
    }

    #[test]
    fn the_key_without_news_for_longest_is_forgotten_first() {
        let timeline = Timeline::new(Arc::new(SystemClock));
        for subject in 0..TIMELINE_KEYS_MAX {
            timeline.observe(&started(subject));
        }
        timeline.observe(&started(0));
        timeline.observe(&started(TIMELINE_KEYS_MAX));
        assert_eq!(timeline.facts(&key(0)).len(), 2);
        assert!(timeline.facts(&key(1)).is_empty());
        let pages = timeline.lock();
        assert_eq!(
            (pages.tokens.books.len(), pages.tokens.by_age.len()),
            (TIMELINE_KEYS_MAX, TIMELINE_KEYS_MAX)
        );
    }

    #[test]
    fn what_happens_to_a_credential_is_told_of_each_of_its_tokens() {
        let timeline = Timeline::new(Arc::new(SystemClock));
        timeline.observe(&Event::CredentialChanged {
            was: CredentialState::Live,
            key: key(1).credential,
            state: CredentialState::Revoked {
                at: UnixTime::from_secs(1),
            },
            version: Version(7),
            by: "ops".into(),
        });
        let facts = timeline.facts(&key(1));
        assert_eq!(facts[0].detail, "revoked, version 7, by ops");
    }
}
