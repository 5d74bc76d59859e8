//! What does a refresh cost? Three tables: without a network, next to the sandbox alone; over loopback, next to a bare POST to
//! the same issuer; and what durability adds, next to one commit of a row by the engine itself, on the same file system.
//! Trust the ratios within one run.
//!
//! Rows that wait for the disk say more about the disk than about us. `TMPDIR` says which disk it is. The rows of
//! instructions run this suite once more under valgrind, which is slow and exact: a refresh takes no decision by chance.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use keyfob::Secret;
use keyfob::model::contract::Rotation;
use keyfob::model::credential::{Credential, Version};
use keyfob::model::key::CredentialKey;
use keyfob::model::time::SystemClock;
use keyfob::model::transport::{Delivery, OutgoingRequest, Upstream};
use keyfob::store::Store;
use keyfob::store::embedded::EmbeddedStore;
use keyfob::store::memory::MemoryStore;
use keyfob::upstream::{HttpUpstream, TransportSettings};
use keyfob::{ProviderName, Subject, Tenant};
use keyfob_benches::bare::{Bare, Setup};
use keyfob_benches::guests::Guest;
use keyfob_benches::hand::Hand;
use keyfob_benches::instructions::{self, Row};
use keyfob_benches::record::Record;
use keyfob_benches::stage::{self, Place, Stage};
use redb::{Database, Durability, TableDefinition};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// About what a sealed credential takes.
const ROW_BYTES: usize = 1024;
/// How many commits are under way at once where a flush can be shared.
const TOGETHER: u64 = 64;
/// 32 bytes of base64.
const SEALING_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");

/// The groups, in the order of the tables.
const GROUPS: [&str; 5] = [
    "refresh, no network",
    "refresh, loopback",
    "engine",
    "store",
    "refresh",
];

fn runtime() -> Runtime {
    Runtime::new().expect("threads")
}

/// For an issuer that is to take nothing of our thread.
fn elsewhere() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(1).enable_all().build();
    built.expect("a thread")
}

/// Everything on the thread that asks.
fn alone() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
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

/// Without a network: what is the sandbox's, and what is ours. On one thread, so that no row waits for another core to wake up;
/// the last row is the same on a runtime as a gateway has one.
fn within(c: &mut Criterion) {
    let mut group = c.benchmark_group("refresh, no network");
    let alone = alone();
    let bare = bare(Setup::OURS);
    group.bench_function("floor: both steps, bare wasmtime", |b| {
        b.iter(|| alone.block_on(bare.refresh()).expect("two answers"));
    });
    let guest = alone.block_on(Guest::new());
    group.bench_function("both steps, our sandbox", |b| {
        b.iter(|| alone.block_on(guest.refresh()));
    });
    for (name, rotation) in [
        ("a whole refresh, never rotates", Rotation::Never),
        ("a whole refresh, single use", Rotation::SingleUse),
    ] {
        let stage = alone.block_on(within_stage(rotation));
        group.bench_function(name, |b| b.iter(|| alone.block_on(stage.refresh())));
        alone.block_on(stage.end());
    }
    let many = runtime();
    let stage = many.block_on(within_stage(Rotation::Never));
    group.bench_function("the same, never rotates, two threads", |b| {
        b.iter(|| many.block_on(stage.refresh()));
    });
    many.block_on(stage.end());
    group.finish();
}

fn within_stage(rotation: Rotation) -> impl Future<Output = Stage> {
    Stage::new(Place::Within, rotation, Arc::new(MemoryStore::new()))
}

/// Over loopback: an issuer on a thread of its own, everything of ours on the one that asks. On a runtime of several threads
/// each hand-over between them is added, as often as the machine's scheduler likes.
fn loopback(c: &mut Criterion) {
    let mut group = c.benchmark_group("refresh, loopback");
    let (elsewhere, runtime) = (elsewhere(), alone());
    let clock = Arc::new(Hand::at_present());
    let (issuer, grant) = elsewhere.block_on(async {
        let issuer = stage::issuer(&clock, Rotation::Never);
        let grant = issuer.issue_refresh_token("svc", "ada").expect("a client");
        (issuer, grant)
    });
    let (authority, path) = parts(issuer.token_url());
    let form = format!("grant_type=refresh_token&refresh_token={grant}&scope=read");
    let request = |builder: http::request::Builder| {
        builder
            .method("POST")
            .header(AUTHORIZATION, stage::AUTHORIZATION)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
    };

    let mut sender = runtime.block_on(connect(authority));
    group.bench_function("floor: a bare POST on a connection that is kept", |b| {
        b.iter(|| {
            let bare = http::Request::builder().uri(path);
            let bare = request(bare).header(HOST, authority);
            let bare = bare.body(Full::from(form.clone())).expect("a request");
            runtime.block_on(async {
                sender.ready().await.expect("it is kept");
                let answer = sender.send_request(bare).await.expect("an answer");
                assert!(answer.status().is_success());
                let body = answer.into_body().collect().await.expect("all of it");
                black_box(body.to_bytes())
            })
        });
    });

    let transport = TransportSettings {
        insecure_http: true,
        ..TransportSettings::default()
    };
    let upstream = HttpUpstream::new(&transport, Arc::new(SystemClock)).expect("a client");
    for (name, carries_grant) in [
        ("our way out alone, a connection that is kept", false),
        ("our way out alone, a connection of its own", true),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let ours = request(http::Request::builder()).body(()).expect("headers");
                let ours = OutgoingRequest {
                    method: ours.method().clone(),
                    url: issuer.token_url().parse().expect("a URL"),
                    headers: ours.headers().clone(),
                    body: Secret::new(form.clone().into_bytes()),
                    carries_grant,
                };
                let sent = upstream.send(ours, Duration::from_secs(10));
                let delivery = runtime.block_on(sent);
                assert!(
                    matches!(delivery, Delivery::Answered(answer) if answer.status.is_success())
                );
            });
        });
    }
    for (name, rotation) in [
        ("a whole refresh, never rotates", Rotation::Never),
        ("a whole refresh, single use", Rotation::SingleUse),
    ] {
        let store = Arc::new(MemoryStore::new());
        let stage = runtime.block_on(Stage::new(
            Place::Elsewhere(elsewhere.handle().clone()),
            rotation,
            store,
        ));
        group.bench_function(name, |b| b.iter(|| runtime.block_on(stage.refresh())));
        runtime.block_on(stage.end());
    }
    group.finish();
}

/// Host with port, and path.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("plain");
    rest.split_at(rest.find('/').expect("a path"))
}

/// A connection of hyper's to the issuer, kept by a task.
async fn connect(authority: &str) -> SendRequest<Full<Bytes>> {
    let socket = TcpStream::connect(authority).await.expect("loopback");
    socket.set_nodelay(true).expect("a socket");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (sender, connection) = shaken.expect("an issuer");
    #[expect(clippy::disallowed_methods, reason = "a bench has no tracker")]
    tokio::spawn(connection);
    sender
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
        let stage = runtime.block_on(Stage::new(Place::Loopback, rotation, store));
        group.bench_function(name, |b| b.iter(|| runtime.block_on(stage.refresh())));
        runtime.block_on(stage.end());
    }
    group.finish();
}

/// The same rows as [`within`], counted.
const COUNTED: [Row; 4] = [
    ("floor: both steps, bare wasmtime", || {
        let alone = alone();
        let bare = bare(Setup::OURS);
        Box::new(move || alone.block_on(bare.refresh()).expect("two answers"))
    }),
    ("both steps, our sandbox", || {
        let alone = alone();
        let guest = alone.block_on(Guest::new());
        Box::new(move || alone.block_on(guest.refresh()))
    }),
    ("a whole refresh, never rotates", || whole(Rotation::Never)),
    ("a whole refresh, single use", || whole(Rotation::SingleUse)),
];

fn whole(rotation: Rotation) -> Box<dyn FnMut()> {
    let alone = alone();
    let stage = alone.block_on(within_stage(rotation));
    Box::new(move || alone.block_on(stage.refresh()))
}

fn bare(setup: Setup) -> Bare {
    Bare::new(setup, stage::oauth2(), &stage::oauth2_settings()).expect("a plugin")
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = within, loopback, engine, store, refresh
}

fn main() -> anyhow::Result<()> {
    if instructions::counts(&COUNTED) {
        return Ok(());
    }
    let mut record = Record::new("refresh");
    benches();
    Criterion::default().configure_from_args().final_summary();
    record.criterion(&GROUPS)?;
    instructions::record(
        &mut record,
        "refresh, no network: instructions, a byte of memory put back counts as one",
        &COUNTED,
    )?;
    record.save()?;
    Ok(())
}
