//! How a store of a million credentials takes being opened: time, file and memory. One run, no statistics: each row is
//! seconds long. `cargo bench -p keyfob-benches --bench million -- 100000` takes another number.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyfob::model::credential::{Credential, Fingerprint, Version};
use keyfob::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use keyfob::model::time::{Clock, SystemClock};
use keyfob::model::token::{Generation, ObtainedToken, TokenRecord};
use keyfob::store::embedded::EmbeddedStore;
use keyfob::store::{Store, Upkeep};
use keyfob_benches::record::Record;
use tokio::task::JoinSet;

/// The table about the process that opened the file.
const MEMORY: &str = "memory of the process";
const CREDENTIALS: usize = 1_000_000;
/// Commits under way at once: what the store shares a flush among.
const TOGETHER: usize = 256;
const GRANT_BYTES: usize = 512;
const TOKEN_BYTES: usize = 1024;
const SEALING_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn main() -> anyhow::Result<()> {
    let count = std::env::args().find_map(|argument| argument.parse().ok());
    let count = count.unwrap_or(CREDENTIALS);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(count))
}

async fn measure(count: usize) -> anyhow::Result<()> {
    let mut record = Record::new("million");
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("keyfob.redb");
    let open = || EmbeddedStore::open(&path, &SEALING_KEY.into());

    let store = Arc::new(open()?);
    let start = Instant::now();
    fill(&store, count).await?;
    row(&mut record, "fill, a commit and a token each", start, &path);
    drop(store);

    let before = resident_bytes();
    let start = Instant::now();
    let store = open()?;
    row(&mut record, "open", start, &path);
    let more = mib(resident_bytes().saturating_sub(before));
    record.row(MEMORY, "more after opening", more, "MiB", "");

    let start = Instant::now();
    store.load(&key(count / 2)).await?;
    row(&mut record, "first load", start, &path);
    let start = Instant::now();
    for number in (0..count).step_by((count / 1000).max(1)) {
        store.load(&key(number)).await?;
    }
    row(&mut record, "1,000 loads all over the file", start, &path);
    let start = Instant::now();
    let rows = store.verify().await?;
    row(&mut record, "verify", start, &path);
    anyhow::ensure!(rows == count as u64, "{rows} rows");
    let start = Instant::now();
    store.compact().await?;
    row(&mut record, "compact", start, &path);
    record.row(MEMORY, "at the end", mib(resident_bytes()), "MiB", "");
    record.save()?;
    Ok(())
}

async fn fill(store: &Arc<EmbeddedStore>, count: usize) -> anyhow::Result<()> {
    let mut filling = JoinSet::new();
    for lane in 0..TOGETHER {
        let store = store.clone();
        filling.spawn(async move {
            for number in (lane..count).step_by(TOGETHER) {
                let key = key(number);
                let credential = Credential {
                    refresh_token: Some("g".repeat(GRANT_BYTES).as_str().into()),
                    ..Credential::default()
                };
                store.commit(&key, Version(0), credential).await?;
                let (key, token) = token(key);
                store.keep_token(&key, token).await?;
            }
            anyhow::Ok(())
        });
    }
    filling.join_all().await.into_iter().collect()
}

fn key(number: usize) -> CredentialKey {
    let name = |name: String| Subject::parse(&name).expect("a short name is one");
    CredentialKey {
        tenant: Tenant::default(),
        provider: ProviderName::parse("acme").expect("a short name is one"),
        subject: Some(name(format!("user {number}"))),
    }
}

fn token(credential: CredentialKey) -> (TokenKey, TokenRecord) {
    let now = SystemClock.now();
    let key = TokenKey {
        credential,
        audience: None,
        scopes: ScopeSet::default(),
    };
    let token = ObtainedToken {
        value: "t".repeat(TOKEN_BYTES).as_str().into(),
        token_type: "Bearer".to_owned(),
        expires: now.plus(Duration::from_secs(3600)),
        issued: now,
        scopes: ScopeSet::default(),
        extra: Vec::new(),
    };
    let record = TokenRecord {
        token,
        generation: Generation::first(now),
        fingerprint: Fingerprint([0; 32]),
        obtained_at: Version(1),
    };
    (key, record)
}

fn row(record: &mut Record, what: &str, start: Instant, path: &std::path::Path) {
    let took = start.elapsed().as_secs_f64();
    let file = std::fs::metadata(path).map_or(0, |file| file.len());
    let note = format!("file of {:.0} MiB after it", mib(file));
    record.row("one file", what, took, "s", &note);
}

/// What of this process is in memory (Linux; nothing elsewhere).
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_ascii_whitespace().nth(1);
    pages.and_then(|pages| pages.parse().ok()).unwrap_or(0) * PAGE_BYTES
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
