//! The two words of a slot under a model checker of memory orders: every interleaving, and every value that the orders
//! named in `host/src/cache/slot/words.rs` let a thread see. The file is compiled here as it is there.
//!
//! What is on show is stood in for by the number of its generation: the real thing is swapped and loaded in the same orders.

#[path = "../../host/src/cache/slot/words.rs"]
mod words;

use loom::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use words::Words;

/// The names that the file under test finds in the host.
mod shim {
    pub(crate) use loom::sync::atomic;
}

/// Every token ends then.
const END: u64 = 100;
/// Before that.
const NOW: u64 = 10;

struct Slot {
    words: Words,
    shown: AtomicU64,
    /// Whatever tells another thread what was done.
    told: AtomicU64,
}

// === impl Slot ===

impl Slot {
    /// The first token is on show.
    fn new() -> Arc<Self> {
        let slot = Self {
            words: Words::new(),
            shown: AtomicU64::new(0),
            told: AtomicU64::new(0),
        };
        slot.publish(1);
        Arc::new(slot)
    }

    fn publish(&self, generation: u64) {
        self.words.changing();
        self.shown.swap(generation, Ordering::AcqRel);
        self.words.published(generation, END);
    }

    fn withdraw(&self) {
        self.words.withdrawn();
        self.shown.swap(0, Ordering::AcqRel);
    }

    fn close(&self) {
        self.words.closed();
        self.shown.swap(0, Ordering::AcqRel);
    }

    fn by_key(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// Runs `writer` beside `reader`.
    fn beside(writer: impl FnOnce(&Self) + Send + Sync + 'static, reader: impl FnOnce(&Self)) {
        let slot = Self::new();
        let other = Arc::clone(&slot);
        let thread = thread::spawn(move || writer(&other));
        reader(&slot);
        thread.join().expect("a writer does not panic");
    }
}

#[test]
fn no_copy_is_current_once_its_withdrawal_was_heard_of() {
    for end in [Slot::withdraw, Slot::close] {
        model(move || {
            let writer = move |slot: &Slot| {
                end(slot);
                slot.told.store(1, Ordering::Release);
            };
            Slot::beside(writer, |slot| {
                if slot.told.load(Ordering::Acquire) == 1 {
                    assert!(!slot.words.is_current(1, NOW));
                    assert_eq!((slot.by_key(), slot.words.serve_until()), (0, 0));
                }
            });
        });
    }
}

#[test]
fn whoever_saw_the_new_token_by_key_gets_no_older_copy() {
    model(|| {
        let writer = |slot: &Slot| slot.publish(2);
        Slot::beside(writer, |slot| {
            if slot.by_key() == 2 {
                assert!(!slot.words.is_current(1, NOW));
            }
        });
    });
}

#[test]
fn whoever_missed_the_token_by_key_gets_no_copy_of_it() {
    model(|| {
        let writer = |slot: &Slot| slot.withdraw();
        Slot::beside(writer, |slot| {
            if slot.by_key() == 0 {
                assert!(!slot.words.is_current(1, NOW));
            }
        });
    });
}

#[test]
fn whoever_sees_a_new_number_finds_the_token_that_belongs_to_it() {
    model(|| {
        let writer = |slot: &Slot| {
            slot.publish(2);
            slot.publish(3);
        };
        Slot::beside(writer, |slot| {
            if slot.words.is_current(2, NOW) {
                assert!(slot.by_key() >= 2);
            }
            if slot.words.is_current(3, NOW) {
                assert_eq!(slot.by_key(), 3);
                assert!(!slot.words.is_current(2, NOW));
            }
        });
    });
}

#[test]
fn nothing_reopens_what_was_closed() {
    model(|| {
        let writer = |slot: &Slot| {
            slot.close();
            slot.withdraw();
        };
        Slot::beside(writer, |slot| {
            if slot.words.is_closed() {
                assert!(!slot.words.is_current(1, NOW));
                assert!(slot.words.is_closed());
            }
        });
    });
}
