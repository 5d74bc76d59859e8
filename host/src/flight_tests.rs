//! What flights promise, in order and, under the model checker, in every order.

use super::*;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Landed {
    Token(u64),
    Aborted,
}

fn flights() -> Flights<u32, Landed> {
    Flights::new(|| Landed::Aborted)
}

fn lead(flights: &Flights<u32, Landed>, key: u32) -> Lead<u32, Landed> {
    match flights.join(&key) {
        Joined::Lead(lead) => lead,
        _ => panic!("somebody else leads"),
    }
}

fn follow(flights: &Flights<u32, Landed>, key: u32) -> Follow<Landed> {
    match flights.join(&key) {
        Joined::Follow(follow) => follow,
        _ => panic!("nobody leads, or it is full"),
    }
}

#[cfg(not(feature = "model-check"))]
mod in_order {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_thousand_join_and_one_leads() {
        let flights = flights();
        let (mut leads, mut follows) = (Vec::new(), Vec::new());
        for _ in 0..1_000 {
            match flights.join(&1) {
                Joined::Lead(lead) => {
                    follows.push(lead.follow());
                    leads.push(lead);
                }
                Joined::Follow(follow) => follows.push(follow),
                Joined::Full => panic!("full"),
            }
        }
        let lead = leads.pop().unwrap();
        assert!(leads.is_empty());
        assert_eq!((lead.waiters(), flights.waiters(&1)), (1_000, 1_000));
        lead.land(Landed::Token(7));
        assert!(
            join_all(follows)
                .await
                .iter()
                .all(|result| *result == Landed::Token(7))
        );
        assert!(flights.is_empty());
    }

    #[test]
    fn a_dropped_leader_lands_aborted_and_the_next_to_join_leads() {
        let flights = flights();
        let first = lead(&flights, 1);
        let waiter = follow(&flights, 1);
        drop(first);
        assert_eq!(waiter.wait().now_or_never(), Some(Landed::Aborted));
        lead(&flights, 1).land(Landed::Token(1));
    }

    #[test]
    fn a_leader_that_panics_lands_aborted() {
        let flights = flights();
        let first = lead(&flights, 1);
        let waiter = follow(&flights, 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lead = first;
            panic!("a bug in a refresh");
        }));
        assert!(panicked.is_err());
        assert_eq!(waiter.now_or_never(), Some(Landed::Aborted));
    }

    #[tokio::test]
    async fn a_follower_that_leaves_cancels_nothing() {
        let flights = flights();
        let lead = lead(&flights, 1);
        let (mut leaves, stays) = (follow(&flights, 1), follow(&flights, 1));
        assert!(futures_util::poll!(&mut leaves).is_pending());
        drop(leaves);
        assert_eq!(lead.waiters(), 1);
        lead.land(Landed::Token(3));
        assert_eq!(stays.await, Landed::Token(3));
    }

    #[test]
    fn a_leader_whose_caller_left_still_lands_for_the_others() {
        let flights = flights();
        let lead = lead(&flights, 1);
        drop(lead.follow());
        let waiter = follow(&flights, 1);
        lead.land(Landed::Token(3));
        assert_eq!(waiter.now_or_never(), Some(Landed::Token(3)));
    }

    #[test]
    fn a_waiter_of_one_key_never_gets_another_keys_result() {
        let flights = flights();
        let (one, two) = (lead(&flights, 1), lead(&flights, 2));
        let (waits_for_one, mut waits_for_two) = (follow(&flights, 1), follow(&flights, 2));
        one.land(Landed::Token(1));
        assert_eq!((&mut waits_for_two).now_or_never(), None);
        two.land(Landed::Token(2));
        assert_eq!(waits_for_one.now_or_never(), Some(Landed::Token(1)));
        assert_eq!(waits_for_two.now_or_never(), Some(Landed::Token(2)));
    }

    #[test]
    fn nothing_is_left_after_many_cycles() {
        let flights = flights();
        for round in 0..1_000u32 {
            let lead = lead(&flights, round % 3);
            let waiter = follow(&flights, round % 3);
            if round % 2 == 0 {
                lead.land(Landed::Token(1))
            } else {
                drop(lead)
            }
            drop(waiter);
        }
        assert!(flights.is_empty());
    }

    #[test]
    fn a_disowned_flight_lands_for_its_own_and_leaves_its_successor_alone() {
        let flights = flights();
        let old = lead(&flights, 1);
        let waits_for_old = follow(&flights, 1);
        flights.disown(&1);
        let new = lead(&flights, 1);
        old.land(Landed::Token(1));
        assert!(
            flights.in_air(&1),
            "the late cleanup took the successor along"
        );
        let waits_for_new = follow(&flights, 1);
        new.land(Landed::Token(2));
        assert_eq!(waits_for_old.now_or_never(), Some(Landed::Token(1)));
        assert_eq!(waits_for_new.now_or_never(), Some(Landed::Token(2)));
    }

    #[test]
    fn one_waiter_too_many_is_told_at_once_and_a_seat_that_was_left_is_free() {
        let flights = flights();
        let lead = lead(&flights, 1);
        let mut waiters: Vec<_> = (0..WAITERS_MAX).map(|_| follow(&flights, 1)).collect();
        assert!(matches!(flights.join(&1), Joined::Full));
        waiters.pop();
        waiters.push(follow(&flights, 1));
        lead.land(Landed::Token(1));
        assert!(
            waiters
                .into_iter()
                .all(|waiter| waiter.now_or_never() == Some(Landed::Token(1)))
        );
    }

    #[test]
    fn every_waiter_is_woken_exactly_once() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let flights = flights();
        let lead = lead(&flights, 1);
        let wakes: Vec<_> = (0..10)
            .map(|_| Arc::new(Count(AtomicUsize::new(0))))
            .collect();
        let mut waiters: Vec<_> = (0..10).map(|_| follow(&flights, 1)).collect();
        for (waiter, wake) in waiters.iter_mut().zip(&wakes) {
            let waker = Waker::from(Arc::clone(wake));
            // Polled twice: only the latest waker counts.
            for _ in 0..2 {
                assert!(
                    waiter
                        .poll_unpin(&mut Context::from_waker(&waker))
                        .is_pending()
                );
            }
        }
        lead.land(Landed::Token(1));
        assert!(wakes.iter().all(|wake| wake.0.load(Ordering::Relaxed) == 1));
    }
}

#[cfg(feature = "model-check")]
mod in_every_order {
    use shuttle::future::block_on;
    use shuttle::sync::atomic::{AtomicU64, Ordering};
    use shuttle::thread;

    use super::*;

    /// Schedules per check: each takes a fraction of a millisecond, and the races below show within dozens.
    const SCHEDULES: usize = 3_000;

    /// A caller as the broker is one: look, join, and when leading look again, obtain, publish, land.
    fn call(flights: &Flights<u32, Landed>, slot: &AtomicU64, requests: &AtomicU64) -> Landed {
        let held = slot.load(Ordering::SeqCst);
        if held != 0 {
            return Landed::Token(held);
        }
        match flights.join(&1) {
            Joined::Lead(lead) => {
                let follow = lead.follow();
                if slot.load(Ordering::SeqCst) == 0 {
                    requests.fetch_add(1, Ordering::SeqCst);
                    slot.store(5, Ordering::SeqCst);
                }
                lead.land(Landed::Token(slot.load(Ordering::SeqCst)));
                block_on(follow)
            }
            Joined::Follow(follow) => block_on(follow),
            Joined::Full => unreachable!("three callers fit"),
        }
    }

    #[test]
    fn shuttle_one_key_is_one_request_and_every_caller_gets_its_token() {
        shuttle::check_random(
            || {
                let flights = flights();
                let slot = Arc::new(AtomicU64::new(0));
                let requests = Arc::new(AtomicU64::new(0));
                let callers: Vec<_> = (0..3)
                    .map(|_| {
                        let (flights, slot, requests) =
                            (flights.clone(), slot.clone(), requests.clone());
                        thread::spawn(move || call(&flights, &slot, &requests))
                    })
                    .collect();
                for caller in callers {
                    assert_eq!(caller.join().unwrap(), Landed::Token(5));
                }
                assert_eq!(requests.load(Ordering::SeqCst), 1);
                assert!(flights.is_empty());
            },
            SCHEDULES,
        );
    }

    #[test]
    fn shuttle_no_landing_falls_between_the_look_and_the_registration() {
        // A lost wake-up is a deadlock, which the checker reports with its schedule.
        shuttle::check_pct(
            || {
                let flights = flights();
                let lead = lead(&flights, 1);
                let waiters: Vec<_> = (0..2)
                    .map(|_| {
                        let follow = follow(&flights, 1);
                        thread::spawn(move || block_on(follow))
                    })
                    .collect();
                lead.land(Landed::Token(1));
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), Landed::Token(1));
                }
            },
            SCHEDULES,
            3,
        );
    }

    #[test]
    fn shuttle_a_follower_that_leaves_costs_nobody_a_wake_up() {
        shuttle::check_random(
            || {
                let flights = flights();
                let lead = lead(&flights, 1);
                let (leaves, stays) = (follow(&flights, 1), follow(&flights, 1));
                let leaver = thread::spawn(move || {
                    let mut leaves = Box::pin(leaves);
                    let waker = Waker::noop();
                    let _ = leaves.as_mut().poll(&mut Context::from_waker(waker));
                });
                let stayer = thread::spawn(move || block_on(stays));
                drop(lead);
                leaver.join().unwrap();
                assert_eq!(stayer.join().unwrap(), Landed::Aborted);
            },
            SCHEDULES,
        );
    }

    #[test]
    fn shuttle_who_joins_after_a_landing_never_gets_its_result() {
        shuttle::check_random(
            || {
                let flights = flights();
                let lead = lead(&flights, 1);
                let follow = follow(&flights, 1);
                let lander = thread::spawn(move || lead.land(Landed::Token(1)));
                assert_eq!(block_on(follow), Landed::Token(1));
                // The result is known, perhaps rejected already: the next one is another's.
                assert!(matches!(flights.join(&1), Joined::Lead(_)));
                lander.join().unwrap();
            },
            SCHEDULES,
        );
    }

    #[test]
    fn shuttle_a_late_cleanup_never_removes_a_successor() {
        shuttle::check_random(
            || {
                let flights = flights();
                let old = lead(&flights, 1);
                let lander = thread::spawn(move || old.land(Landed::Token(1)));
                flights.disown(&1);
                let new = lead(&flights, 1);
                lander.join().unwrap();
                assert!(flights.in_air(&1));
                let follow = follow(&flights, 1);
                new.land(Landed::Token(2));
                assert_eq!(block_on(follow), Landed::Token(2));
                assert!(flights.is_empty());
            },
            SCHEDULES,
        );
    }
}
