//! What a slot promises, in order and, under the model checker, in every order.

use super::*;
use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Tenant};
use crate::model::token::ObtainedToken;

const START: UnixTime = UnixTime::from_secs(1_700_000_000);

fn at(secs: u64) -> UnixTime {
    START.plus(Duration::from_secs(secs))
}

fn key() -> TokenKey {
    TokenKey {
        credential: CredentialKey {
            tenant: Tenant::default(),
            provider: ProviderName::parse("acme").unwrap(),
            subject: None,
        },
        audience: None,
        scopes: ScopeSet::default(),
    }
}

fn slot() -> Arc<Slot> {
    Arc::new(Slot::new(SlotId(7), None, Arc::new((&key()).into()), START))
}

fn token(value: &str, issued: u64, expires: u64) -> ObtainedToken {
    ObtainedToken {
        value: value.into(),
        token_type: "Bearer".into(),
        expires: at(expires),
        issued: at(issued),
        scopes: ScopeSet::default(),
        extra: Vec::new(),
    }
}

#[cfg(not(feature = "model-check"))]
mod in_order {
    use std::sync::Barrier;

    use super::*;
    use crate::model::error::{Correlation, ErrorKind};

    /// How often something is looked for that happens by itself, a millisecond between two looks: far longer than it takes.
    const LOOKS: usize = 10_000;

    fn publish(slot: &Slot, value: &str, issued: u64, expires: u64) -> Arc<AccessToken> {
        slot.publish(slot.era(), &token(value, issued, expires), at(issued))
            .unwrap()
    }

    fn unavailable() -> Error {
        let retry = Retry::After(Duration::from_secs(9));
        Error::new(
            ErrorKind::Unavailable,
            retry,
            "no token now",
            "down",
            Correlation(1),
        )
    }

    #[test]
    fn a_slot_and_its_counts_stay_small() {
        // What a key takes in memory is told in docs/performance.md.
        assert!(size_of::<Slot>() + 2 * size_of::<usize>() <= 168);
    }

    #[test]
    fn a_token_is_handed_out_until_a_margin_before_its_end() {
        let slot = slot();
        assert_eq!(slot.servable(at(0)).unwrap_err(), NotReady::Absent);
        publish(&slot, "a", 0, 60);
        assert_eq!(slot.servable(at(58)).unwrap().raw(), "a");
        assert_eq!(slot.servable(at(59)).unwrap_err(), NotReady::Expired);
        assert_eq!(slot.freshness(at(58)), Freshness::Fresh);
        slot.set_due(at(50));
        assert_eq!(slot.freshness(at(50)), Freshness::Expiring);
        assert_eq!(slot.freshness(at(59)), Freshness::Expired);
        assert_eq!(slot.current().unwrap().raw(), "a");
    }

    #[test]
    fn what_cannot_be_served_does_not_displace_what_can() {
        let slot = slot();
        publish(&slot, "good", 0, 60);
        let refused = |from: ObtainedToken| slot.publish(slot.era(), &from, at(1)).unwrap_err();
        assert_eq!(refused(token("b\nad", 1, 60)), NotPublishable::NotAHeader);
        assert_eq!(refused(token("over", 0, 1)), NotPublishable::Expired);
        assert_eq!(slot.servable(at(2)).unwrap().raw(), "good");
    }

    #[test]
    fn the_same_token_keeps_its_name_and_takes_the_new_end() {
        let slot = slot();
        let first = publish(&slot, "a", 0, 60);
        let again = publish(&slot, "a", 10, 50);
        assert_eq!(first.generation(), again.generation());
        // A copy of the first reading is not served beyond the newer word.
        assert!(!slot.is_current(first.generation(), at(55)));
        assert_ne!(publish(&slot, "b", 20, 80).generation(), first.generation());
    }

    #[test]
    fn answers_without_longer_life_are_counted() {
        let slot = slot();
        publish(&slot, "a", 0, 1_000);
        publish(&slot, "b", 800, 1_000);
        assert_eq!(slot.stalled(), 1);
        publish(&slot, "b", 990, 1_000);
        assert_eq!(slot.stalled(), 2);
        publish(&slot, "c", 995, 1_995);
        assert_eq!(slot.stalled(), 0);
    }

    #[test]
    fn a_token_asked_for_before_a_withdrawal_is_not_published_after_it() {
        let slot = slot();
        let before = publish(&slot, "a", 0, 60);
        let era = slot.era();
        slot.withdraw();
        assert_eq!(slot.servable(at(1)).unwrap_err(), NotReady::Absent);
        let late = slot.publish(era, &token("b", 0, 60), at(1));
        assert_eq!(late.unwrap_err(), NotPublishable::Withdrawn);
        assert!(publish(&slot, "c", 2, 62).generation() > before.generation());
    }

    #[test]
    fn nothing_reopens_a_closed_slot() {
        let slot = slot();
        publish(&slot, "a", 0, 60);
        slot.close();
        slot.withdraw();
        assert!(slot.is_closed() && slot.pin().is_none() && slot.current().is_none());
        assert_eq!(slot.servable(at(1)).unwrap_err(), NotReady::Closed);
        let late = slot.publish(slot.era(), &token("b", 1, 60), at(1));
        assert_eq!(late.unwrap_err(), NotPublishable::Closed);
    }

    #[test]
    fn a_token_from_the_store_keeps_its_name_and_never_goes_back() {
        let slot = slot();
        let name = |number| Generation::from_number(number).unwrap();
        let adopt = |value, number| {
            slot.adopt(slot.era(), &token(value, 0, 60), name(number), at(1))
                .map(|t| t.generation())
        };
        assert_eq!(adopt("b", 20), Ok(name(20)));
        assert_eq!(adopt("a", 10), Err(NotPublishable::Older));
        assert_eq!(slot.servable(at(1)).unwrap().raw(), "b");
    }

    #[test]
    fn a_failure_is_remembered_for_its_back_off_with_what_is_left_of_it() {
        let slot = slot();
        slot.remember_failure(unavailable(), at(10));
        slot.remember_failure(unavailable(), at(10));
        assert_eq!(slot.attempts(), 2);
        let error = slot.failure(at(7)).unwrap();
        assert_eq!(error.retry(), Retry::After(Duration::from_secs(3)));
        assert!(slot.failure(at(10)).is_none());
        publish(&slot, "a", 10, 60);
        assert_eq!((slot.attempts(), slot.failure(at(7)).is_none()), (0, true));
    }

    #[test]
    fn a_key_nobody_asked_for_is_not_renewed() {
        let slot = slot();
        publish(&slot, "a", 0, 60);
        slot.permit(1, at(100));
        assert!(!slot.wants_renewal(1, at(40)));
        slot.touch(at(40));
        assert!(slot.wants_renewal(1, at(40)));
        assert!(
            !slot.wants_renewal(2, at(40)),
            "under another policy nobody may have it yet"
        );
        assert!(
            slot.wants_renewal(1, at(100)),
            "it is in use, and its permit is just over"
        );
        let long_ago = at(40).plus(IN_USE);
        assert!(!slot.wants_renewal(1, long_ago), "nobody came back for it");
        slot.touch(at(100).plus(IN_USE));
        assert!(
            !slot.wants_renewal(1, at(100).plus(IN_USE)),
            "who may have it was not asked for too long"
        );
        publish(&slot, "b", 50, 110);
        assert!(!slot.wants_renewal(1, at(90)));
    }

    #[test]
    fn a_pinned_slot_is_not_closed_for_room() {
        let slot = slot();
        let pin = slot.pin().unwrap();
        let other = pin.clone();
        drop(pin);
        assert!(slot.close_unless_pinned().is_none());
        drop(other);
        assert!(slot.close_unless_pinned().is_some());
    }

    #[test]
    fn a_withdrawn_token_is_let_go_after_the_last_look_at_it_even_if_nobody_looks_again() {
        let slot = slot();
        let token = Arc::downgrade(&publish(&slot, "a", 0, 60));
        let (looking, withdrawn) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let guard = Guard::new();
                let is_seen = slot.shown.see(&guard).is_some();
                looking.wait();
                withdrawn.wait();
                assert!(is_seen);
            });
            looking.wait();
            slot.withdraw();
            let value = token.upgrade().map(|token| token.raw().to_owned());
            withdrawn.wait();
            assert_eq!(value.as_deref(), Some("a"), "somebody looks at it");
        });
        let is_gone = || {
            std::thread::sleep(Duration::from_millis(1));
            token.upgrade().is_none()
        };
        assert!((0..LOOKS).any(|_| is_gone()), "it is kept");
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        let slot = slot();
        publish(&slot, "s3cr3t", 0, 60);
        assert!(!format!("{slot:?}").contains("s3cr3t"));
    }
}

#[cfg(feature = "model-check")]
mod in_every_order {
    use shuttle::rand::{Rng, thread_rng};
    use shuttle::thread;

    use super::*;

    /// Schedules per check: each takes a fraction of a millisecond, and the races below show within dozens.
    const SCHEDULES: usize = 2_000;

    #[test]
    fn shuttle_a_reader_never_sees_an_older_a_foreign_or_a_torn_token() {
        shuttle::check_pct(
            || {
                let slot = slot();
                let writer = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || {
                        for (n, value) in ["a", "b", "c"].into_iter().enumerate() {
                            let n = n as u64;
                            slot.publish(slot.era(), &token(value, n, 60 + n), at(n))
                                .unwrap();
                        }
                    })
                };
                let readers: Vec<_> = (0..2)
                    .map(|_| {
                        let slot = Arc::clone(&slot);
                        thread::spawn(move || {
                            let mut last: Option<Generation> = None;
                            for _ in 0..4 {
                                let Ok(token) = slot.servable(at(4)) else {
                                    continue;
                                };
                                assert!(last.is_none_or(|last| last <= token.generation()));
                                last = Some(token.generation());
                                // Value and end belong together.
                                let n = u64::from(token.raw().as_bytes()[0] - b'a');
                                assert_eq!(token.expires(), at(60 + n));
                                assert_eq!(token.slot(), slot.id());
                            }
                        })
                    })
                    .collect();
                writer.join().unwrap();
                readers
                    .into_iter()
                    .for_each(|reader| reader.join().unwrap());
                assert_eq!(slot.current().unwrap().raw(), "c");
            },
            SCHEDULES,
            3,
        );
    }

    #[test]
    fn shuttle_a_copy_is_not_served_after_the_slot_was_closed_or_withdrawn() {
        shuttle::check_random(
            || {
                let slot = slot();
                let copy = slot.publish(slot.era(), &token("a", 0, 60), at(0)).unwrap();
                let closer = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || {
                        if thread_rng().gen_bool(0.5) {
                            slot.close()
                        } else {
                            slot.withdraw()
                        }
                    })
                };
                let fresh = slot.is_current(copy.generation(), at(1));
                closer.join().unwrap();
                // Once seen as gone it stays gone.
                assert!(
                    !slot.is_current(copy.generation(), at(1)),
                    "fresh before: {fresh}"
                );
            },
            SCHEDULES,
        );
    }

    struct Quiet;

    impl crate::cache::Nudge for Quiet {
        fn nudge(&self, _: &Arc<Slot>) {}
    }

    struct Still;

    impl crate::model::time::Clock for Still {
        fn now(&self) -> UnixTime {
            at(4)
        }
    }

    #[test]
    fn shuttle_a_handle_never_goes_back_and_sees_a_withdrawal_at_once() {
        use crate::cache::{CoarseClock, Decision, PolicyEpoch, TokenHandle};
        shuttle::check_pct(
            || {
                let slot = slot();
                let epoch = PolicyEpoch::default();
                let decision = Decision {
                    epoch: epoch.current(),
                    allowed_until: UnixTime::MAX,
                    max_lifetime: None,
                };
                let clock = CoarseClock::Exact(Arc::new(Still));
                let pin = slot.pin().unwrap();
                let mut handle = TokenHandle::new(pin, decision, epoch, clock, Arc::new(Quiet));
                slot.publish(slot.era(), &token("a", 0, 60), at(0)).unwrap();
                let writer = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || {
                        slot.publish(slot.era(), &token("b", 1, 61), at(1)).unwrap();
                        slot.withdraw();
                    })
                };
                let mut seen = Vec::new();
                for _ in 0..4 {
                    match handle.get() {
                        Ok(token) => {
                            let n = u64::from(token.raw().as_bytes()[0] - b'a');
                            assert_eq!(token.expires(), at(60 + n));
                            seen.push(n);
                        }
                        Err(why) => {
                            assert_eq!(why, NotReady::Absent);
                            seen.push(2);
                        }
                    }
                }
                assert!(seen.is_sorted(), "{seen:?}");
                writer.join().unwrap();
                assert_eq!(handle.get().unwrap_err(), NotReady::Absent);
            },
            SCHEDULES,
            3,
        );
    }

    #[test]
    fn shuttle_a_token_asked_for_before_a_withdrawal_never_resurrects_the_key() {
        shuttle::check_random(
            || {
                let slot = slot();
                let era = slot.era();
                let late = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || drop(slot.publish(era, &token("a", 0, 60), at(0))))
                };
                slot.withdraw();
                late.join().unwrap();
                assert_eq!(slot.servable(at(1)).unwrap_err(), NotReady::Absent);
            },
            SCHEDULES,
        );
    }

    #[test]
    fn shuttle_a_pin_and_an_eviction_never_both_succeed() {
        shuttle::check_random(
            || {
                let slot = slot();
                let evictor = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || slot.close_unless_pinned().is_some())
                };
                let pin = slot.pin();
                assert!(evictor.join().unwrap() != pin.is_some());
            },
            SCHEDULES,
        );
    }
}
