//! The five acts. Each sets the issuer up, lets callers loose, and measures its promise.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Verdict;
use super::stage::{LIFETIME, Stage};
use super::swarm::{Got, Load, rush, span};
use super::view::View;
use crate::broker::{RejectOutcome, RejectReport, builtin};
use crate::model::error::ErrorKind;
use crate::testing::issuer::Behaviour;

/// Callers of a stampede.
const CROWD: usize = 1_000;
/// Callers of a steady load.
const WORKERS: usize = 50;
/// How long a slow issuer takes: far longer than any answer out of memory.
const SLOW: Duration = Duration::from_millis(1_000);
/// A caller that took this long waited for the slow issuer.
const WAITED: Duration = Duration::from_millis(500);
/// The longest that anybody may wait for a failure that is known. A promise about 250 ms, with room for a busy machine.
const KNOWN_FAILURE: Duration = Duration::from_millis(1_000);
/// How long a recovery may take: the first back-off is a second at most.
const RECOVERY: Duration = Duration::from_secs(5);
const SWAPS: u64 = 20;

/// Act 1: nobody has a token, everybody wants it.
pub(super) async fn stampede(stage: &Stage, view: &mut View) -> io::Result<Verdict> {
    view.act(
        "1  cold stampede",
        "1,000 callers, no token yet, an issuer that takes 300 ms",
    )?;
    stage
        .issuer
        .behave(Behaviour::Latency(Duration::from_millis(300)));
    let before = stage.calls();
    let got = rush(stage, &stage.request("orders.read"), CROWD).await;
    stage.issuer.behave(Behaviour::Normal);
    let tokens: HashSet<_> = got
        .iter()
        .filter_map(|g| g.result.as_ref().ok())
        .map(|i| i.token.generation())
        .collect();
    let failed = got.iter().filter(|g| g.result.is_err()).count();
    let calls = stage.calls() - before;
    view.verdict(Verdict {
        act: "cold stampede",
        promise: "1,000 callers, one issuer call, one token",
        measured: format!(
            "{calls} issuer call, {} token, {failed} failed, last answer after {}",
            tokens.len(),
            slowest(&got),
        ),
        held: calls == 1 && tokens.len() == 1 && failed == 0,
    })
}

/// Act 2: the token ends, the issuer is slow, and nobody notices.
pub(super) async fn ahead(stage: &Stage, view: &mut View) -> io::Result<Verdict> {
    view.act(
        "2  refresh ahead",
        "steady callers, tokens of 12 s, an issuer that takes a second",
    )?;
    stage.issuer.behave(Behaviour::Latency(SLOW));
    let request = stage.request("orders.write");
    rush(stage, &request, 1).await;
    let before = stage.calls();
    let load = Load::start(stage, &request, WORKERS);
    let until = Instant::now() + LIFETIME + Duration::from_secs(2);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
        view.live(&format!(
            "{}, issuer calls {}",
            load.tally().line(),
            stage.calls() - before
        ));
    }
    let tally = load.stop().await;
    stage.issuer.behave(Behaviour::Normal);
    let calls = stage.calls() - before;
    let slowest = tally.slowest_nanos.load(Ordering::Relaxed);
    let expired = tally.expired.load(Ordering::Relaxed);
    let failed = tally.failed.load(Ordering::Relaxed);
    view.verdict(Verdict {
        act: "refresh ahead",
        promise: "over the token's end nobody waits for the issuer",
        measured: format!("{}, expired {expired}, issuer calls {calls}", tally.line()),
        // The stampede's token is renewed in this time too where somebody asked for it again.
        held: u128::from(slowest) < WAITED.as_nanos()
            && expired == 0
            && failed == 0
            && (1..=3).contains(&calls),
    })
}

/// Act 3: the issuer fails. Callers meet the memory of it, not the issuer; valid tokens are served on.
pub(super) async fn failing(stage: &Stage, view: &mut View) -> io::Result<Verdict> {
    view.act(
        "3  failing issuer",
        "1,000 callers on a cold key, every issuer answer is a 503",
    )?;
    let warm = stage.request("orders.write");
    rush(stage, &warm, 1).await;
    stage.issuer.behave(Behaviour::Status(503));
    let before = stage.calls();
    let cold = stage.request("billing.read");
    let got = rush(stage, &cold, CROWD).await;
    let calls = stage.calls() - before;
    let unavailable = got
        .iter()
        .filter(|g| matches!(&g.result, Err(error) if error.kind() == ErrorKind::Unavailable))
        .count();
    let in_time = got.iter().all(|g| g.waited < KNOWN_FAILURE);
    let served = rush(stage, &warm, 1).await.iter().all(|g| g.result.is_ok());
    stage.issuer.behave(Behaviour::Normal);
    let healed = Instant::now();
    let mut recovered = None;
    while recovered.is_none() && healed.elapsed() < RECOVERY {
        if rush(stage, &cold, 1).await.iter().all(|g| g.result.is_ok()) {
            recovered = Some(healed.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    view.verdict(Verdict {
        act: "failing issuer",
        promise: "one attempt, everybody told at once, recovery by itself",
        measured: format!(
            "{calls} attempt, {unavailable} told \"unavailable\" within {}, other key served: {served}, recovered: {}",
            slowest(&got),
            recovered.map_or("no".to_owned(), |took| format!("{:.1} s", took.as_secs_f64())),
        ),
        held: calls == 1 && unavailable == CROWD && in_time && served && recovered.is_some(),
    })
}

/// Act 4: a resource refuses a token that should be good for longer.
pub(super) async fn rejected(stage: &Stage, view: &mut View) -> io::Result<Verdict> {
    view.act(
        "4  rejected token",
        "the issuer revokes a live token, 100 callers report the 401",
    )?;
    let request = stage.request("billing.write");
    let first = rush(stage, &request, 1).await;
    let Some(old) = first.iter().filter_map(|g| g.result.as_ref().ok()).next() else {
        return view.verdict(Verdict {
            act: "rejected token",
            promise: "one replacement for everybody",
            measured: "no token to begin with".to_owned(),
            held: false,
        });
    };
    let generation = old.token.generation().number();
    stage.issuer.revoke(old.token.raw());
    let before = stage.calls();
    let outcomes = report(stage, &request, generation, 100).await;
    let calls = stage.calls() - before;
    let replaced = outcomes
        .iter()
        .filter(|(active, outcome)| {
            *active && !matches!(outcome, Some(RejectOutcome::Kept { .. }) | None)
        })
        .count();
    let late = report(stage, &request, generation, 50).await;
    let late_calls = stage.calls() - before - calls;
    let already = late
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Some(RejectOutcome::AlreadyReplaced)))
        .count();
    view.verdict(Verdict {
        act: "rejected token",
        promise: "one replacement for everybody, late reports cost nothing",
        measured: format!(
            "{calls} issuer call for 100 reports, {replaced} got a live token; {already} late reports, {late_calls} calls",
        ),
        held: calls == 1 && replaced == 100 && already == 50 && late_calls == 0,
    })
}

/// Reports a rejection from many callers at once: whether each then holds a live token, and what it was told.
async fn report(
    stage: &Stage,
    request: &crate::model::policy::TokenRequest,
    generation: u64,
    callers: usize,
) -> Vec<(bool, Option<RejectOutcome>)> {
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let (broker, caller, request) =
            (stage.broker.clone(), stage.caller.clone(), request.clone());
        set.spawn(async move {
            let challenge = r#"Bearer error="invalid_token""#.to_owned();
            let report = RejectReport {
                generation,
                status: Some(401),
                www_authenticate: Some(challenge),
            };
            broker.reject(&caller, &request, &report).await
        });
    }
    let answers = set.join_all().await;
    answers
        .into_iter()
        .map(|answer| match answer {
            Ok((issued, outcome)) => (stage.issuer.is_active(issued.token.raw()), Some(outcome)),
            Err(_) => (false, None),
        })
        .collect()
}

/// Act 5: another plugin, twenty times, while callers call; and some that are refused.
pub(super) async fn swap(stage: &Stage, view: &mut View) -> io::Result<Verdict> {
    view.act(
        "5  hot swap",
        "20 swaps under load, then garbage and a plugin of the wrong kind",
    )?;
    let request = stage.request("orders.write");
    let provider = stage.provider.as_str();
    let revision = || stage.broker.provider(provider).map_or(0, |p| p.revision);
    let before = revision();
    let load = Load::start(stage, &request, WORKERS);
    let mut swapped = 0;
    let mut refused = Vec::new();
    for _ in 0..SWAPS {
        let component: Arc<[u8]> = builtin("oauth2").unwrap_or_default().into();
        match stage
            .broker
            .swap_provider(provider, component, "demo")
            .await
        {
            Ok(_) => swapped += 1,
            Err(error) => view.note(&format!("a swap failed: {error}"))?,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        view.live(&format!("{}, revision {}", load.tally().line(), revision()));
    }
    let wrong: [(&str, Arc<[u8]>); 2] = [
        ("garbage", b"this is no component"[..].into()),
        ("a policy", builtin("allowlist").unwrap_or_default().into()),
    ];
    for (what, component) in wrong {
        match stage
            .broker
            .swap_provider(provider, component, "demo")
            .await
        {
            Ok(_) => view.note(&format!("{what} was taken"))?,
            Err(error) => refused.push(error.code),
        }
    }
    let tally = load.stop().await;
    let failed = tally.failed.load(Ordering::Relaxed);
    let grown = revision() - before;
    view.verdict(Verdict {
        act: "hot swap",
        promise: "no failed call, what is wrong is refused and the old one serves",
        measured: format!(
            "{swapped} swaps, {}, revision +{grown}, refused: {}",
            tally.line(),
            refused.join(", "),
        ),
        held: swapped == SWAPS && grown >= SWAPS && failed == 0 && refused.len() == 2,
    })
}

fn slowest(got: &[Got]) -> String {
    let longest = got.iter().map(|g| g.waited).max().unwrap_or_default();
    span(u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX))
}
