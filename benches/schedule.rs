//! What does it cost to know when a million tokens are due, and does knowing it help? An entry of the scheduler next to the
//! structures it could be; a broker that renews for an hour; one that begins with everything overdue; and one whose other
//! providers are slow, limited or crowded.
//!
//! All but the first table runs in simulated time on one thread, with issuers that are functions, so that processor time is
//! ours and the sandbox's. The second table takes minutes to fill; `-- 50000` takes as many tokens instead of a million, which
//! are then renewed as often.

use std::time::Duration;

use futures_util::future::join_all;
use keyfob::{Principal, Tenant};
use keyfob_benches::entries::entries;
use keyfob_benches::guests::Guest;
use keyfob_benches::live::Counting;
use keyfob_benches::record::Record;
use keyfob_benches::simulated::{Manner, Offered, World};
use keyfob_benches::spent::spent;
use keyfob_benches::stage;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tokens of the second table.
const TOKENS: usize = 1_000_000;
/// How long before their ends tokens are renewed: a share of their lives, five minutes at most (the library's defaults), and on
/// average half of that.
const AHEAD: f64 = 0.2;
const AHEAD_MAX_SECONDS: f64 = 300.0;
/// What a million tokens of an hour come to, each renewed about once in 57 minutes.
const MILLION_A_SECOND: f64 = 1e6 / (3_600.0 - AHEAD_MAX_SECONDS / 2.0);
/// Tokens that begin at the same moment there.
const STEP: usize = 250;
/// Parts of a token's life: as often everything is used there, so that it counts as in use (the broker renews what was asked
/// for in the last ten minutes).
const PARTS: usize = 8;
/// How many of them are measured.
const PARTS_MEASURED: usize = 4;
/// Callers that come at once where everything is overdue.
const OVERDUE: usize = 10_000;
/// What the issuer may be asked a second there.
const RATE: f64 = 50.0;
/// Keys of the provider, or tenant, that is to be left alone by the others.
const NEIGHBOURS: usize = 500;
/// Keys of the other, and callers that come for them at once.
const CROWD: usize = 3_000;

fn alone() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // What the broker has done elsewhere is counted for as long as the thread lives that did it.
    builder.thread_keep_alive(Duration::from_secs(3_600));
    builder.enable_all().build().expect("a runtime")
}

/// A broker that renews, a million tokens of an hour at a time.
fn steady(record: &mut Record, tokens: usize) {
    // As many renewals a second as of a million tokens that live an hour.
    let age = tokens as f64 / MILLION_A_SECOND;
    let lifetime = (age / (1.0 - AHEAD / 2.0)).min(age + AHEAD_MAX_SECONDS / 2.0);
    let lifetime = Duration::from_secs_f64(lifetime);
    let group = "renewals of a million tokens that live an hour, on one thread";
    let alone = alone();
    let guest = alone.block_on(Guest::new());
    let warm = || {
        for _ in 0..500 {
            alone.block_on(guest.refresh());
        }
    };
    warm();
    let before = spent();
    (0..4).for_each(|_| warm());
    let sandbox = (spent() - before).as_secs_f64() / 2_000.0;

    let offered = [offered("acme", Manner::Prompt, None)];
    let (renewals, took, simulated) = alone.block_on(async {
        let world = World::new(&offered, lifetime, tokens).await;
        let caller = stage::caller();
        // Whoever uses a token keeps it renewed.
        let use_all = async |of: usize| {
            for user in 0..of {
                world.obtain(&caller, "acme", user).await;
            }
        };
        let newcomers = tokens / PARTS;
        for part in 1..=PARTS {
            // Their renewals are as far apart as if they had come over the time that a token is kept.
            for step in (0..newcomers).step_by(STEP) {
                for user in step..newcomers.min(step + STEP) {
                    let user = (part - 1) * newcomers + user;
                    world.obtain(&caller, "acme", user).await;
                }
                tokio::time::sleep(Duration::from_secs_f64(age * STEP as f64 / tokens as f64))
                    .await;
            }
            use_all(part * newcomers).await;
        }
        let (asked, seen) = (world.asked("acme").len(), world.left("acme").len());
        let (mut took, mut simulated) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..PARTS_MEASURED {
            let span = lifetime / PARTS as u32;
            let before = spent();
            tokio::time::sleep(span).await;
            took += spent() - before;
            simulated += span;
            use_all(newcomers * PARTS).await;
        }
        let left = world.left("acme").split_off(seen);
        let renewals = world.asked("acme").len() - asked;
        assert!(left.iter().all(|left| *left > 0.0), "a token ended");
        world.broker.shutdown(Duration::from_secs(1)).await;
        (renewals as f64, took.as_secs_f64(), simulated.as_secs_f64())
    });
    let each = took / renewals;
    let note = format!("{tokens} tokens for {simulated:.0} simulated seconds");
    record.row(
        group,
        "renewals a second",
        renewals / simulated,
        "1/s",
        &note,
    );
    record.row(group, "processor time of a renewal", each * 1e6, "µs", "");
    record.row(
        group,
        "of it in the sandbox: both steps",
        sandbox * 1e6,
        "µs",
        "measured alone",
    );
    let share = |each: f64| 100.0 * each * MILLION_A_SECOND;
    record.row(
        group,
        "of a core",
        share(each),
        "%",
        "at a million tokens' renewals",
    );
    record.row(
        group,
        "of a core without the sandbox",
        share(each - sandbox),
        "%",
        "",
    );
}

fn offered(name: &'static str, manner: Manner, rate: Option<f64>) -> Offered {
    Offered { name, manner, rate }
}

/// Everything is overdue, and everybody comes at once.
fn restart(record: &mut Record) {
    let group = format!("{OVERDUE} callers of ended tokens at once, {RATE} a second allowed");
    let offered = [offered("acme", Manner::Prompt, Some(RATE))];
    let asked = alone().block_on(async {
        let world = World::new(&offered, Duration::from_secs(3_600), OVERDUE).await;
        let caller = stage::caller();
        join_all((0..OVERDUE).map(|user| world.obtain(&caller, "acme", user))).await;
        let asked = world.asked("acme");
        world.broker.shutdown(Duration::from_secs(1)).await;
        asked
    });
    let busiest = |span: Duration| {
        let within = |(at, first): (usize, &tokio::time::Instant)| {
            asked[at..].partition_point(|other| *other - *first < span)
        };
        asked.iter().enumerate().map(within).max().unwrap_or(0) as f64
    };
    let took = (*asked.last().expect("many") - asked[0]).as_secs_f64();
    record.row(&group, "requests", asked.len() as f64, "calls", "");
    let second = busiest(Duration::from_secs(1));
    record.row(
        &group,
        "the busiest second",
        second,
        "calls",
        "a second's worth may be saved up",
    );
    let minute = busiest(Duration::from_secs(60)) / 60.0;
    record.row(
        &group,
        "the busiest minute, a second of it",
        minute,
        "calls",
        "",
    );
    record.row(&group, "until all had a token", took, "s", "simulated");
    let floor = OVERDUE as f64 / RATE;
    record.row(&group, "floor: the callers by the rate", floor, "s", "");
}

/// Whether one's tokens are renewed in time while others have a hard time.
fn fairness(record: &mut Record) {
    let secs = Duration::from_secs;
    let quiet = Principal::new(
        "billing",
        Tenant::parse("quiet").expect("a name"),
        Vec::new(),
    );
    let loud = Principal::new(
        "billing",
        Tenant::parse("loud").expect("a name"),
        Vec::new(),
    );
    let cases = [
        (
            "alone",
            "quiet",
            None,
            offered("other", Manner::Prompt, None),
        ),
        (
            "beside a slow issuer, 5 s an answer",
            "quiet",
            None,
            offered("other", Manner::Slow(secs(5)), None),
        ),
        (
            "beside one that answers 429",
            "quiet",
            None,
            offered("other", Manner::Limited(secs(5)), None),
        ),
        (
            "beside 3,000 callers at another provider of 20 a second",
            "quiet",
            None,
            offered("other", Manner::Prompt, Some(20.0)),
        ),
        (
            "beside 3,000 callers of another tenant at the same provider of 20 a second",
            "quiet",
            Some(20.0),
            offered("quiet", Manner::Prompt, None),
        ),
    ];
    for (case, provider, rate, other) in cases {
        let crowded = other.name;
        let mut all = vec![offered("quiet", Manner::Prompt, rate)];
        all.extend((crowded != "quiet").then_some(other));
        let (left, failed) = alone().block_on(async {
            let world = World::new(&all, secs(600), NEIGHBOURS + CROWD).await;
            for user in 0..NEIGHBOURS {
                world.obtain(&quiet, provider, user).await;
            }
            let (world, loud) = (&world, &loud);
            let crowd = join_all((0..CROWD).map(|user| async move {
                // Not before the neighbours' tokens are about to be renewed.
                tokio::time::sleep(secs(500)).await;
                if case != "alone" {
                    // Comes again as it is told to, for as long as the neighbours are watched.
                    let _ =
                        tokio::time::timeout(secs(600), world.obtain(loud, crowded, user)).await;
                }
            }));
            let watch = async {
                let mut failed = 0;
                for _ in 0..100 {
                    tokio::time::sleep(secs(10)).await;
                    let asked = (0..NEIGHBOURS).map(|user| world.ask(&quiet, provider, user));
                    failed += join_all(asked)
                        .await
                        .iter()
                        .filter(|it| it.is_err())
                        .count();
                }
                failed
            };
            let (_, failed) = tokio::join!(crowd, watch);
            let left = world.left(provider);
            world.broker.shutdown(secs(1)).await;
            (left, failed)
        });
        let group = format!("{NEIGHBOURS} tokens of ten minutes, asked for every 10 s");
        let least = left.iter().copied().fold(f64::INFINITY, f64::min);
        record.row(
            &group,
            &format!("{case}: callers without a token"),
            failed as f64,
            "calls",
            "",
        );
        record.row(
            &group,
            &format!("{case}: least life left at a renewal"),
            least,
            "s",
            "",
        );
        let mean = left.iter().sum::<f64>() / left.len() as f64;
        record.row(
            &group,
            &format!("{case}: mean life left at a renewal"),
            mean,
            "s",
            "",
        );
    }
}

fn main() -> anyhow::Result<()> {
    let tokens = std::env::args().find_map(|argument| argument.parse().ok());
    let mut record = Record::new("schedule");
    entries(&mut record);
    steady(&mut record, tokens.unwrap_or(TOKENS));
    restart(&mut record);
    fairness(&mut record);
    record.save()?;
    Ok(())
}
