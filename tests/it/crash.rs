//! A short run of what `docs/reliability.md` describes: `kill -9` at moments drawn from a seed, with the issuer's ledger as
//! the judge. The long runs are `cargo run --release --package keyfob-tests --bin crash`.

use keyfob_tests::crash::{self, Kind, Plan, Report};

/// Fixed, so that two runs aim alike; what the machine makes of it differs all the same.
const SEED: u64 = 2026;
/// A dozen kills meet every aim but the rarest, and take seconds.
const KILLS: usize = 12;
const CREDENTIALS: usize = 4;

async fn run(issuer: Kind) -> anyhow::Result<Report> {
    let plan = Plan {
        kills: KILLS,
        seed: SEED,
        credentials: CREDENTIALS,
        issuer,
        memory: false,
    };
    let report = crash::run(plan, |_| {}).await?;
    println!("seed {SEED}\n{report}");
    assert_eq!(report.killed(), KILLS);
    assert!(report.is_clean(), "seed {SEED}\n{report}");
    // The run met what it is about: grants rotated, and kills fell between.
    assert!(report.rotations.kept > 0 && report.secrets > 0, "{report}");
    Ok(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_rotation_that_was_told_and_replays_no_grant() -> anyhow::Result<()> {
    run(Kind::Strict).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_certified_server_sees_no_replay_over_kills() -> anyhow::Result<()> {
    run(Kind::OidcProvider).await.map(drop)
}
