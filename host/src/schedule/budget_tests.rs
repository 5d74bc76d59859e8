//! What a budget promises.

use futures_util::{FutureExt, poll};

use super::*;
use crate::model::key::ProviderName;
use crate::schedule::Budgets;

const NOW: UnixTime = UnixTime::from_secs(1_000);

fn budget(most: usize) -> Arc<Budget> {
    Budget::new(Limits { most, rate: None }, Bells::default())
}

fn limits(most: usize, rate: Option<f64>) -> Limits {
    Limits { most, rate }
}

/// Of the only tenant there is, unless a test is about tenants.
pub(super) fn bid(slot: u64, lane: Lane, ends: UnixTime) -> Bid {
    Bid {
        tenant: Tenant::default(),
        slot: SlotId(slot),
        ends,
        lane,
    }
}

fn take(budget: &Arc<Budget>, slot: u64, lane: Lane) -> Option<Ticket> {
    budget
        .ticket(bid(slot, lane, NOW), NOW)
        .now_or_never()
        .map(|ticket| ticket.unwrap())
}

#[test]
fn no_more_flows_run_than_configured() {
    let budget = budget(4);
    let tickets: Vec<_> = (0..10)
        .filter_map(|n| take(&budget, n, Lane::Waiting))
        .collect();
    assert_eq!((tickets.len(), budget.load()), (4, (4, 4)));
    drop(tickets);
    assert_eq!(budget.load(), (0, 4));
}

#[test]
fn a_share_is_kept_for_callers_who_wait() {
    let budget = budget(8);
    assert_eq!(budget.room(&Tenant::default(), NOW), 6);
    let ahead: Vec<_> = (0..8)
        .filter_map(|n| take(&budget, n, Lane::Ahead))
        .collect();
    assert_eq!((ahead.len(), budget.room(&Tenant::default(), NOW)), (6, 0));
    let waiting: Vec<_> = (10..20)
        .filter_map(|n| take(&budget, n, Lane::Waiting))
        .collect();
    assert_eq!(waiting.len(), 2);
    // With a single ticket there is nothing to keep.
    assert!(take(&self::budget(1), 1, Lane::Ahead).is_some());
}

#[tokio::test]
async fn callers_go_first_and_then_the_token_that_ends_first() {
    let budget = budget(1);
    let running = take(&budget, 0, Lane::Waiting).unwrap();
    let queue = |slot: u64, lane, ends: u64| {
        let budget = Arc::clone(&budget);
        Box::pin(async move {
            let ends = NOW.plus(Duration::from_secs(ends));
            budget
                .ticket(bid(slot, lane, ends), NOW)
                .await
                .map(|ticket| (slot, ticket))
        })
    };
    let mut queued = futures_util::stream::FuturesUnordered::new();
    for (slot, lane, ends) in [
        (1, Lane::Ahead, 30),
        (2, Lane::Ahead, 10),
        (3, Lane::Waiting, 90),
        (4, Lane::Ahead, 20),
    ] {
        let mut one = queue(slot, lane, ends);
        assert!(poll!(&mut one).is_pending());
        queued.push(one);
    }
    // Somebody joins the one that would be last.
    budget.hurry(SlotId(1));
    drop(running);
    let mut order = Vec::new();
    while let Some(next) = futures_util::StreamExt::next(&mut queued).await {
        let (slot, ticket) = next.unwrap();
        order.push(slot);
        drop(ticket);
    }
    assert_eq!(order, [1, 3, 2, 4]);
}

#[tokio::test]
async fn a_crowd_of_one_tenant_leaves_the_renewals_of_another_their_turn() {
    let budget = budget(2);
    let [loud, quiet] = ["loud", "quiet"].map(|name| Tenant::parse(name).unwrap());
    let of = |tenant: &Tenant, slot, lane| Bid {
        tenant: tenant.clone(),
        ..bid(slot, lane, NOW)
    };
    let running = [1, 2].map(|slot| take(&budget, slot, Lane::Waiting).unwrap());
    let mut crowd: Vec<_> = (10..20)
        .map(|slot| Box::pin(budget.ticket(of(&loud, slot, Lane::Waiting), NOW)))
        .collect();
    for one in &mut crowd {
        assert!(poll!(one).is_pending());
    }
    assert_eq!((budget.room(&loud, NOW), budget.room(&quiet, NOW)), (0, 1));
    let mut calm = Box::pin(budget.ticket(of(&quiet, 30, Lane::Ahead), NOW));
    assert!(poll!(&mut calm).is_pending());
    assert_eq!(budget.room(&quiet, NOW), 0);
    drop(running);
    let (first, second) = (poll!(&mut crowd[0]), poll!(&mut calm));
    assert!(first.is_ready() && second.is_ready());
    assert!(poll!(&mut crowd[1]).is_pending());
}

#[tokio::test]
async fn who_leaves_the_queue_takes_no_ticket_along() {
    let budget = budget(1);
    let running = take(&budget, 0, Lane::Waiting).unwrap();
    let mut leaves = Box::pin(budget.ticket(bid(1, Lane::Waiting, NOW), NOW));
    let mut granted = Box::pin(budget.ticket(bid(2, Lane::Waiting, NOW), NOW));
    assert!(poll!(&mut leaves).is_pending() && poll!(&mut granted).is_pending());
    drop(leaves);
    drop(running);
    // Granted, and gone before it was looked at.
    assert_eq!(budget.load().0, 1);
    drop(granted);
    assert_eq!(budget.load().0, 0);
}

#[tokio::test]
async fn two_flows_of_one_slot_queue_side_by_side() {
    let budget = budget(1);
    let running = take(&budget, 0, Lane::Waiting).unwrap();
    let queue = |lane| Box::pin(budget.ticket(bid(1, lane, NOW), NOW));
    let (mut disowned, mut second, mut third) = (
        queue(Lane::Ahead),
        queue(Lane::Waiting),
        queue(Lane::Waiting),
    );
    assert!(poll!(&mut disowned).is_pending());
    assert!(poll!(&mut second).is_pending());
    assert!(poll!(&mut third).is_pending());
    // The one that leaves takes nobody's place along.
    drop(second);
    drop(running);
    assert!(poll!(&mut disowned).is_pending(), "callers go first");
    for flow in [third, disowned] {
        drop(flow.now_or_never().unwrap().unwrap());
    }
    assert_eq!(budget.load().0, 0);
    assert_eq!(
        budget.room(&Tenant::default(), NOW),
        1,
        "no place is left over"
    );
}

#[tokio::test]
async fn whoever_joins_a_slot_hurries_all_its_flows() {
    let budget = budget(1);
    let running = take(&budget, 0, Lane::Waiting).unwrap();
    let mut other = Box::pin(budget.ticket(bid(2, Lane::Ahead, NOW), NOW));
    let mut flows = [(); 2].map(|()| Box::pin(budget.ticket(bid(1, Lane::Ahead, NOW), NOW)));
    assert!(poll!(&mut other).is_pending());
    for flow in &mut flows {
        assert!(poll!(flow).is_pending());
    }
    budget.hurry(SlotId(1));
    drop(running);
    for flow in flows {
        assert!(poll!(&mut other).is_pending());
        drop(flow.now_or_never().unwrap().unwrap());
    }
    assert!(other.now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn a_pause_of_the_client_answers_everybody_at_once() {
    let budget = budget(1);
    let _running = take(&budget, 0, Lane::Waiting).unwrap();
    let mut queued = Box::pin(budget.ticket(bid(1, Lane::Waiting, NOW), NOW));
    assert!(poll!(&mut queued).is_pending());
    let until = NOW.plus(Duration::from_secs(7));
    budget.pause(until);
    budget.pause(NOW);
    assert_eq!(queued.await.err(), Some(NoTicket::Paused { until }));
    let late = budget.ticket(bid(2, Lane::Ahead, NOW), NOW).await;
    assert_eq!(late.err(), Some(NoTicket::Paused { until }));
    assert_eq!(
        (budget.paused(NOW), budget.paused(until)),
        (Some(until), None)
    );
    assert_eq!(budget.room(&Tenant::default(), NOW), 0);
    budget.resume();
    assert_eq!(budget.paused(NOW), None);
}

#[test]
fn tickets_follow_what_the_provider_takes() {
    let budget = budget(16);
    let mut now = NOW;
    let mut finish = |load, pause: u64| {
        now = now.plus(Duration::from_secs(pause));
        take(&budget, 1, Lane::Waiting)
            .unwrap()
            .finish(Duration::from_millis(100), load, now);
        budget.load().1
    };
    assert_eq!(finish(Load::TooMuch, 0), 11);
    assert_eq!(finish(Load::TooMuch, 0), 11, "one overload, one cut");
    assert_eq!((0..20).map(|_| finish(Load::TooMuch, 2)).last(), Some(1));
    assert_eq!((0..200).map(|_| finish(Load::Fine, 0)).last(), Some(16));
    assert_eq!(budget.latency_p95(), Duration::from_millis(100));
}

#[test]
fn one_flow_too_many_is_told_at_once_and_no_tenant_takes_every_place() {
    let budget = budget(1);
    let _running = take(&budget, 0, Lane::Waiting).unwrap();
    let of = |tenant: &str, slot: u64| Bid {
        tenant: Tenant::parse(tenant).unwrap(),
        ..bid(slot, Lane::Waiting, NOW)
    };
    let queue = |tenant: &str, slots: std::ops::Range<usize>| -> Vec<_> {
        let mut queued: Vec<_> = slots
            .map(|slot| Box::pin(budget.ticket(of(tenant, slot as u64), NOW)))
            .collect();
        assert!(queued.iter_mut().all(|one| one.now_or_never().is_none()));
        queued
    };
    let refused = |tenant: &str| {
        let late = budget.ticket(of(tenant, 0), NOW).now_or_never();
        assert_eq!(late.unwrap().err(), Some(NoTicket::Full), "{tenant}");
    };
    let _loud = queue("loud", 1..1 + QUEUE_MAX - QUEUE_KEPT);
    refused("loud");
    let _quiet = queue("quiet", QUEUE_MAX..QUEUE_MAX + QUEUE_KEPT);
    refused("quiet");
}

#[test]
fn a_budget_outlives_a_change_of_its_settings() {
    let budgets = Budgets::new(Arc::new(Notify::new()));
    let acme = ProviderName::parse("acme").unwrap();
    let before = budgets.of(&acme, limits(2, None));
    let _running = take(&before, 1, Lane::Waiting);
    let after = budgets.of(&acme, limits(5, None));
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(after.load(), (1, 5));
}
