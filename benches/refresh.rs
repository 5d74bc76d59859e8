//! What durability costs a refresh, next to what it cannot be cheaper than: one commit of a row by the engine itself, on
//! the same file system. Trust the ratios within one run.
//!
//! Rows that wait for the disk say more about the disk than about us. `TMPDIR` says which disk it is.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use keyfob::broker::BrokerSettings;
use keyfob::model::contract::Rotation;
use keyfob::model::credential::{Credential, Version};
use keyfob::model::key::CredentialKey;
use keyfob::model::time::{Clock, SystemClock, UnixTime};
use keyfob::store::Store;
use keyfob::store::embedded::EmbeddedStore;
use keyfob::store::memory::MemoryStore;
use keyfob::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig, RefreshRotation};
use keyfob::{
    Broker, CallerSettings, PluginSource, Principal, ProviderName, ProviderSettings, ScopeSet,
    Secret, SecretSettings, SecretSource, Subject, Tenant, TokenRequest,
};
use redb::{Database, Durability, TableDefinition};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// About what a sealed credential takes.
const ROW_BYTES: usize = 1024;
/// How many commits are under way at once where a flush can be shared.
const TOGETHER: u64 = 64;
/// How long the issuer's tokens live; the clock is put forward by more for each refresh.
const LIFETIME: Duration = Duration::from_secs(300);
/// 32 bytes of base64.
const SEALING_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");

/// A clock that is put forward by hand, so that a token ends whenever the next refresh is to be measured.
#[derive(Debug)]
struct Hand(AtomicU64);

impl Hand {
    fn forward(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("small");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn runtime() -> Runtime {
    Runtime::new().expect("threads")
}

fn key(subject: &str) -> CredentialKey {
    CredentialKey {
        tenant: Tenant::default(),
        provider: ProviderName::parse("acme").expect("a name"),
        subject: Some(Subject::parse(subject).expect("a name")),
    }
}

fn embedded(folder: &TempDir) -> EmbeddedStore {
    let path = folder.path().join("keyfob.redb");
    EmbeddedStore::open(&path, &SEALING_KEY.into()).expect("a folder of our own")
}

/// The engine alone: how it commits a row in one phase, and as we have it commit.
fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    for (name, quick_repair) in [
        ("floor: one phase", false),
        ("floor: two phases, as we use it", true),
    ] {
        let folder = TempDir::new().expect("a folder");
        let database = Database::create(folder.path().join("bare.redb")).expect("a database");
        let row = vec![7; ROW_BYTES];
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut write = database.begin_write().expect("the only writer");
                write
                    .set_durability(Durability::Immediate)
                    .expect("no savepoint");
                write.set_quick_repair(quick_repair);
                let mut rows = write.open_table(ROWS).expect("a table");
                rows.insert(1, row.as_slice()).expect("room");
                drop(rows);
                write.commit().expect("a disk");
            });
        });
    }
    group.finish();
}

/// Our store alone.
fn store(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    let store = embedded(&folder);
    let credential = Credential {
        refresh_token: Some(Secret::new("r".repeat(ROW_BYTES * 3 / 4))),
        ..Credential::default()
    };
    let mut version = Version(0);
    let ada = key("ada");
    group.bench_function("commit", |b| {
        b.iter(|| {
            let commit = store.commit(&ada, version, credential.clone());
            version = runtime.block_on(commit).expect("the only writer");
        });
    });
    let many: Vec<_> = (0..TOGETHER)
        .map(|number| key(&format!("user {number}")))
        .collect();
    let mut version = Version(0);
    group.throughput(criterion::Throughput::Elements(TOGETHER));
    group.bench_function("64 commits at once", |b| {
        b.iter(|| {
            let commits = many
                .iter()
                .map(|key| store.commit(key, version, credential.clone()));
            let done = runtime.block_on(futures_util::future::join_all(commits));
            version = done
                .into_iter()
                .map(|done| done.expect("nobody else"))
                .max()
                .expect("some");
        });
    });
    group.finish();
}

/// A broker, an issuer on loopback, and one credential.
struct Stage {
    clock: Arc<Hand>,
    /// Ends with the stage.
    _issuer: Issuer,
    broker: Broker,
    caller: Principal,
    request: TokenRequest,
}

impl Stage {
    async fn new(rotation: Rotation, store: Arc<dyn Store>) -> Self {
        let clock = Arc::new(Hand(AtomicU64::new(SystemClock.now().as_millis())));
        let rotates = match rotation {
            Rotation::Never => RefreshRotation::Never,
            _ => RefreshRotation::SingleUse,
        };
        let client = Client::new("svc", ClientAuth::Basic("correct-horse".into()))
            .scopes(&["read"])
            .rotation(rotates);
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![client],
            lifetime: LIFETIME,
            clock: clock.clone(),
            ..IssuerConfig::default()
        })
        .expect("loopback has a free port");
        let acme = ProviderName::parse("acme").expect("a name");
        let mut provider =
            ProviderSettings::new(acme.clone(), PluginSource::Builtin("oauth2".into()));
        provider.allow = vec![issuer.token_url().into()];
        provider.insecure_http = true;
        provider.settings = json!({
            "token_url": issuer.token_url(), "client_id": "svc", "grant": "refresh_token",
        });
        let secret = SecretSource::Value("correct-horse".into());
        provider.secrets = vec![SecretSettings::new("client_secret", secret)];
        provider.scopes = ScopeSet::parse(["read"]).expect("a scope");
        provider.refresh.rotation = rotation;
        let rules =
            json!({ "allow": [{ "provider": "acme", "subjects": ["*"], "scopes": ["*"] }] });
        let broker = Broker::builder()
            .clock(clock.clone())
            .store(store)
            .settings(BrokerSettings {
                providers: vec![provider],
                callers: vec![CallerSettings {
                    name: "billing".into(),
                    tenant: Tenant::default(),
                    rules,
                }],
                ..BrokerSettings::default()
            })
            .build()
            .await
            .expect("a broker");
        let grant = issuer.issue_refresh_token("svc", "ada").expect("a client");
        let imported = broker
            .import_credential(key("ada"), Secret::new(grant), "bench")
            .await;
        imported.expect("a new grant");
        let subject = Subject::parse("ada").expect("a name");
        let stage = Self {
            clock,
            _issuer: issuer,
            broker,
            caller: Principal::new("billing", Tenant::default(), Vec::new()),
            request: TokenRequest::new(acme).subject(subject),
        };
        // The first refresh learns how the grant behaves, which is a commit of its own.
        stage.refresh().await;
        stage
    }

    /// The token has ended: a caller waits for the next one.
    async fn refresh(&self) {
        self.clock.forward(LIFETIME * 2);
        let token = self.broker.token(&self.caller, &self.request).await;
        assert!(black_box(token).is_ok());
    }
}

/// From a caller's question to the answer, an issuer on loopback in between.
fn refresh(c: &mut Criterion) {
    let mut group = c.benchmark_group("refresh");
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let [never, single] = &folders;
    let stores: [(&str, Rotation, Arc<dyn Store>); 4] = [
        (
            "never rotates, memory",
            Rotation::Never,
            Arc::new(MemoryStore::new()),
        ),
        (
            "single use, memory",
            Rotation::SingleUse,
            Arc::new(MemoryStore::new()),
        ),
        (
            "never rotates, embedded",
            Rotation::Never,
            Arc::new(embedded(never)),
        ),
        (
            "single use, embedded",
            Rotation::SingleUse,
            Arc::new(embedded(single)),
        ),
    ];
    for (name, rotation, store) in stores {
        let runtime = runtime();
        let stage = runtime.block_on(Stage::new(rotation, store));
        group.bench_function(name, |b| b.iter(|| runtime.block_on(stage.refresh())));
        runtime.block_on(stage.broker.shutdown(Duration::from_secs(1)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = engine, store, refresh
}
criterion_main!(benches);
