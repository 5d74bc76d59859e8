//! What a rate promises, on tokio's paused clock.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use super::tests::bid;
use super::*;
use crate::model::key::ProviderName;
use crate::schedule::Budgets;

const NOW: UnixTime = UnixTime::from_secs(1_000);
const RATE: usize = 50;

/// A budget with a rate, and whoever keeps the time for it.
struct World {
    budget: Arc<Budget>,
    budgets: Arc<Budgets>,
    began: Instant,
    freed: Arc<Notify>,
    _pacer: JoinSet<()>,
}

impl World {
    fn new(most: usize, rate: f64) -> Self {
        let freed = Arc::<Notify>::default();
        let budgets = Arc::new(Budgets::new(freed.clone()));
        let limits = Limits {
            most,
            rate: Some(rate),
        };
        let budget = budgets.of(&ProviderName::parse("acme").unwrap(), limits);
        let mut pacer = JoinSet::new();
        let pace = budgets.clone();
        pacer.spawn(async move { pace.run().await });
        Self {
            budget,
            budgets,
            began: Instant::now(),
            freed,
            _pacer: pacer,
        }
    }

    /// Lets everything run that can, and no time pass.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

/// How many starts fell into each second.
fn by_second(starts: &[Duration]) -> Vec<usize> {
    let mut seconds = Vec::new();
    for start in starts {
        let second = usize::try_from(start.as_secs()).unwrap();
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
    }
    seconds
}

#[expect(clippy::print_stdout, reason = "the figures are in the documentation")]
#[tokio::test(start_paused = true)]
async fn ten_thousand_who_come_back_at_once_start_at_the_rate_and_the_rest_know_when_to_come_again()
{
    const CALLERS: u64 = 10_000;
    const PATIENCE: Duration = Duration::from_secs(10);
    let world = World::new(1_024, RATE as f64);
    // Each waits for as long as callers do, and comes back when it was told to.
    let mut callers = JoinSet::new();
    for slot in 0..CALLERS {
        let (budget, began) = (world.budget.clone(), world.began);
        callers.spawn(async move {
            for tries in 1.. {
                let turn = budget.wait(&Tenant::default(), Lane::Waiting);
                let ticket = budget.ticket(bid(slot, Lane::Waiting, NOW), NOW);
                if let Ok(ticket) = tokio::time::timeout(PATIENCE, ticket).await {
                    let started = began.elapsed();
                    // The issuer takes a moment.
                    tokio::time::sleep(Duration::from_millis(80)).await;
                    drop(ticket);
                    return (started, tries);
                }
                tokio::time::sleep(turn.saturating_sub(PATIENCE)).await;
            }
            unreachable!("somebody gave up")
        });
    }
    let done = callers.join_all().await;
    let mut starts: Vec<_> = done.iter().map(|(start, _)| *start).collect();
    starts.sort_unstable();
    let seconds = by_second(&starts);
    assert!(seconds[0] <= 2 * RATE, "the burst: {}", seconds[0]);
    let peak = seconds[1..].iter().max().unwrap();
    assert!(*peak <= RATE + 1, "a second after the burst saw {peak}");
    // All of them served in hardly more time than the rate needs, and nobody came three times for nothing.
    let ideal = CALLERS as usize / RATE;
    println!(
        "{CALLERS} callers at {RATE} a second: peak {} in the first second, {peak} after it; done after {:?}, at best {ideal} s",
        seconds[0],
        starts.last().unwrap(),
    );
    assert!(seconds.len() <= ideal + ideal / 20, "{} s", seconds.len());
    let most_tries = done.iter().map(|(_, tries)| *tries).max();
    assert!(most_tries <= Some(3), "{most_tries:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_go_first_at_the_rate_too() {
    let world = World::new(100, 10.0);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut flows = JoinSet::new();
    for slot in 0..40u64 {
        let lane = if slot < 20 {
            Lane::Ahead
        } else {
            Lane::Waiting
        };
        let (budget, order) = (world.budget.clone(), order.clone());
        flows.spawn(async move {
            let ticket = budget.ticket(bid(slot, lane, NOW), NOW).await.unwrap();
            order.lock().unwrap().push(lane);
            drop(ticket);
        });
        world.settle().await;
    }
    flows.join_all().await;
    // The burst went to those who were there first; whoever waits goes before everybody who does not.
    let order = order.lock().unwrap();
    assert!(order[..10].iter().all(|lane| *lane == Lane::Ahead));
    assert!(order[10..30].iter().all(|lane| *lane == Lane::Waiting));
    assert_eq!(world.began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn renewals_ahead_of_time_obey_the_rate_and_the_scheduler_is_told_when_there_is_room() {
    let world = World::new(100, 10.0);
    let started = Arc::new(AtomicU64::new(0));
    let mut flows = JoinSet::new();
    // A scheduler with more that is due than there is room for.
    while world.began.elapsed() < Duration::from_secs(10) {
        for _ in 0..world.budget.room(&Tenant::default(), NOW) {
            let (budget, started) = (world.budget.clone(), started.clone());
            flows.spawn(async move {
                let ticket = budget.ticket(bid(1, Lane::Ahead, NOW), NOW).await;
                started.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(5)).await;
                drop(ticket);
            });
        }
        world.settle().await;
        world.freed.notified().await;
    }
    let started = started.load(Ordering::Relaxed);
    // 75 of 100 tickets are for renewals, and each is held for 5 s: the rate is what limits.
    assert!(
        (100..=110).contains(&started),
        "{started} in 10 s at 10 a second"
    );
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_leaves_the_rate_to_others() {
    let world = World::new(100, 1.0);
    let queue = |slot| Box::pin(world.budget.ticket(bid(slot, Lane::Waiting, NOW), NOW));
    drop(queue(0).await.unwrap());
    let (mut leaves, stays) = (queue(1), queue(2));
    assert!(futures_util::poll!(&mut leaves).is_pending());
    drop(leaves);
    drop(stays.await.unwrap());
    assert_eq!(world.began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_rate_under_those_who_queue() {
    let world = World::new(100, 0.1);
    let acme = ProviderName::parse("acme").unwrap();
    let queue = |slot| Box::pin(world.budget.ticket(bid(slot, Lane::Waiting, NOW), NOW));
    drop(queue(0).await.unwrap());
    let mut waits = queue(1);
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert_eq!(
        world.budget.wait(&Tenant::default(), Lane::Waiting),
        Duration::from_secs(20)
    );
    world.budgets.of(
        &acme,
        Limits {
            most: 100,
            rate: None,
        },
    );
    drop(waits.await.unwrap());
    assert_eq!(world.began.elapsed(), Duration::ZERO);
}
