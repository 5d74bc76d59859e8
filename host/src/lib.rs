//! Keyfob owns the lifecycle of OAuth access tokens so that no other service has to.
//!
//! A caller asks for a token; Keyfob hands one out of memory, renews it before anyone notices, and never has two
//! refreshes of one credential under way at once. What differs between authorization servers ships as plugins:
//! WebAssembly components that import nothing, see no secret and no token, and are swapped while requests are served.
//!
//! This crate is the library and, with the feature `daemon`, the program around it. To run the program, read the
//! README; to write a plugin, `docs/plugins.md`; to embed the library, go on here.
//!
//! # Embedding
//!
//! A [`Broker`] is built once, with everything that is wrong told at once. A [`TokenHandle`] stands for one principal's
//! token at one route: [`TokenHandle::get`] compares a few words and allocates nothing, [`TokenHandle::token`] waits
//! where there is nothing to hand out yet.
//!
//! ```no_run
//! use keyfob::{
//!     Broker, BrokerSettings, CallerSettings, PluginSource, Principal, ProviderName, ProviderSettings,
//!     ScopeSet, SecretSettings, SecretSource, Tenant, TokenRequest,
//! };
//! use serde_json::json;
//!
//! # async fn gateway() -> Result<(), Box<dyn std::error::Error>> {
//! let acme = ProviderName::parse("acme")?;
//! let token_url = "https://login.acme.example/oauth2/token";
//!
//! let mut provider = ProviderSettings::new(acme.clone(), PluginSource::Builtin("oauth2".into()));
//! provider.allow = vec![token_url.into()];
//! provider.settings = json!({ "token_url": token_url, "client_id": "gateway" });
//! provider.secrets = vec![SecretSettings::new("client_secret", SecretSource::File("/run/secrets/acme".into()))];
//! provider.scopes = ScopeSet::parse(["orders.read"])?;
//!
//! let broker = Broker::builder()
//!     .settings(BrokerSettings {
//!         providers: vec![provider],
//!         callers: vec![CallerSettings {
//!             name: "orders-route".into(),
//!             tenant: Tenant::default(),
//!             rules: json!({ "allow": [{ "provider": "acme", "scopes": ["orders.read"] }] }),
//!         }],
//!         ..BrokerSettings::default()
//!     })
//!     .build()
//!     .await?;
//!
//! // Once for each route; then a clone for each worker.
//! let caller = Principal::new("orders-route", Tenant::default(), Vec::new());
//! let mut handle = broker.handle(&caller, &TokenRequest::new(acme)).await?;
//!
//! // For each request: out of memory, or the one refresh that everybody waits for.
//! let header = match handle.get() {
//!     Ok(token) => token.header().clone(),
//!     Err(_) => handle.token().await?.header().clone(),
//! };
//! # let _ = header;
//! broker.shutdown(std::time::Duration::from_secs(8)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Rooms
//!
//! Dependencies point down only. A line of code knows its room: what names wasmtime is in `wasm`, what opens a socket
//! outward in `upstream`, what reads the environment in `daemon`; a test keeps it so.
//!
//! | room | what lives there |
//! |---|---|
//! | [`daemon`] | the program: configuration file, who is asking, two HTTP planes, command line, demo |
//! | [`broker`] | the story: `token`, `reject`, `handle`, and what operators see and do |
//! | `authorize` | the only place that can make a permit, without which no caller reaches cache or flights |
//! | [`cache`] | one slot a key, the index by key and by remembered decision, handles |
//! | [`flight`], [`gate`] | who obtains and who waits; one presentation of a credential at a time |
//! | `refresh`, `revoke`, `unsaved` | perform the effects that the model decides on; `refresh` is the only spawner of flights, `unsaved` keeps what the store did not take |
//! | [`schedule`] | wakes keys before their tokens end, within what each provider can take |
//! | [`snapshot`], [`settings`], [`secrets`] | what is in force, what was asked for, where secrets are read |
//! | [`wasm`] | the sandbox |
//! | [`upstream`] | the only way out |
//! | [`store`] | durable records of credentials, gated by version |
//! | [`observe`] | events become log lines, metrics, timelines and the audit log |
//! | [`keys`], [`model`] | signing keys; and every decision, pure: no waiting, no files, no sockets, no clock |
//!
//! # The life of a token request
//!
//! 1. Somebody authenticates the caller and makes a [`Principal`]: the embedder, or the daemon.
//! 2. [`Broker::token`] looks the principal's request up among the remembered decisions. A fresh token behind one is the
//!    answer: one hash, no lock but the slot's, no allocation.
//! 3. Otherwise the snapshot is read once and policy is asked. Its permit names the [`TokenKey`], and the key has a slot.
//! 4. A token in the slot that is ending is answered all the same, and a refresh is started behind the caller's back.
//!    With none, the caller joins the slot's flight. The first to join leads: a task of the broker's is spawned, and the
//!    leader waits like everybody else, each with a deadline counted from its own arrival. Whoever leaves costs nothing.
//! 5. The task looks in the store for a token that a restart or an eviction left there, and lands with it if it is still
//!    good. Otherwise it takes a ticket of the provider's budget, passes the credential's gate, reads its record and drives a
//!    [`Flow`](model::flow::Flow): `advance(self, input, now) → (Flow, Effect)`. An effect is *ask the plugin*, *send*,
//!    *commit an intent*, *commit what came back*, *land*. A grant that may be single-use is marked before it leaves; a
//!    grant that came back is committed before the plugin reads the answer. There is no other path.
//! 6. Landing changes the slot first (a token under the next generation, or a remembered failure with its back-off), then
//!    leaves the table of flights, then wakes everyone who waits with the one result.
//! 7. The scheduler files when the new token is due. An idle key is not renewed again.
//!
//! # Shared mutable state
//!
//! All of it. No lock is taken while another is held, with three exceptions: a slot's cell is a leaf and may be taken
//! under the cache's accounts and under the scheduler's filed entries; a scrape holds `rendering`, which nothing else
//! takes, while it reads; and a thread of the store holds the database while it looks for a data key. *Awaited* says whether it is held across an `.await`; what is, is a queue and guards no
//! token.
//!
//! | what | where | guarded by | written by | awaited |
//! |---|---|---|---|---|
//! | what is in force | `core` `snapshot` | `RwLock<Arc<_>>`, held for a pointer | swap, roll back, reload | no |
//! | what a roll back goes back to; one change at a time | `core` `changing` | tokio `Mutex` | swap, roll back, reload | yes: a plugin compiles |
//! | policy epoch | `cache::PolicyEpoch` | atomic | whatever changes policy, rules or defaults | no |
//! | correlation ids | `core` `correlations` | atomic | every failure | no |
//! | credentials by state, as last counted | `core` `census` | `Mutex` | a scrape | no |
//! | what the store did not take | `unsaved::Unsaved` `records`, `wake` | `Mutex`; `Notify` | flights that could not record, the task that records later | no |
//! | tokens on their way into the store | `refresh::keep` `next`, `failing` | `Mutex`; atomic | a token that was published, the task that writes it | no |
//! | required providers that had a token; whether the store answered | `core` `obtained`, `store_away` | `Mutex`; atomic | readiness; each load and commit | no |
//! | whether the store was found damaged; one order to it at a time | `core` `store_damaged`, `tending` | atomic; tokio `Mutex`, never waited for | verify; orders to the store | yes: an order reads or writes the whole file |
//! | turns at each secret file | `secrets::SecretReader` `turns` | `Mutex`; a `Semaphore` a file | a read | yes: a queue |
//! | tasks, and the orders to stop | `core` `tracker`, `quiet`, `stop` | `TaskTracker`, `CancellationToken` | `refresh`, `setup`, shutdown | no |
//! | key → slot, decision → slot | `cache::Cache` `slots`, `asks` | scc maps: readers take no lock | new and leaving keys, under the accounts | no |
//! | who brought in what | `cache::Cache` `accounts` | `Mutex` | a new key or decision, an eviction | no |
//! | slot numbers; how many keys and decisions there are | `cache::Cache` `next_slot`, `keys`, `decisions` | atomics; the last two change under the accounts | a new key; whatever comes or leaves | no |
//! | token, generation and end of a key | `cache::Slot` `shown`, `words` | atomics; read under a guard of `sdd`, changed under the cell | publish, withdraw, close | no |
//! | due time, last use, pins of a key | `cache::Slot` | atomics | plan; a hit, once a second; handles and flights | no |
//! | failure, rejections, permit of a key | `cache::Slot` `cell` | `Mutex`, a leaf | publish, withdraw, close, reject, fail, permit | no |
//! | who watches which key; what each watch has to look at | `watchers::Watchers` `put_up`; `Bell` `marks` | `Mutex`; one a watch, taken inside the first | a watch that comes, goes or finds another key; publish, withdraw, another policy | no |
//! | copies of a shared handle | `cache::SharedTokenHandle` | one `Mutex` a copy | its threads | no |
//! | the time, if ticked | `cache::Ticks` | atomic | its thread, a hundred times a second | no |
//! | thread numbers | `cache::handle` | static atomic, thread-local | a thread's first use of a shared handle | no |
//! | flights that can be joined | `flight::Flights` `joinable` | `Mutex` | join, land, disown | no |
//! | seats or result of a flight | `flight` `state` | `Mutex`, one a flight | join, leave, land | no |
//! | gates in use | `gate::Gates` `gates` | `Mutex` | a flight that comes or leaves | no |
//! | one presentation of a credential at a time | `gate` `turn` | tokio `Mutex<()>`, one a credential | flights | yes: that is its purpose |
//! | what is due when | `schedule::Scheduler` `filed` | `Mutex` | plan, and the scheduler's loop | no |
//! | nudges to that loop | `schedule` `sooner`, `freed` | `Notify` | an early entry; a ticket that comes back, a rate that allows another | no |
//! | nudge to whoever keeps time for the rates | `schedule::budget` `paced` | `Notify` | a flight that a rate holds back | no |
//! | what a provider takes: running, queue, pace, pause, latencies | `schedule::Budget` `state` | `Mutex`, one a provider | flights | no |
//! | budgets by provider | `schedule::Budgets` | `Mutex` | a provider's first flight, reload | no |
//! | credentials, tokens, logs | [`store::Store`]; `store::memory` `rows` | `Mutex`, commits gated by version | flights, operators | no |
//! | who may send next | `store::lease` `held` | `Mutex` | flights | no |
//! | the same in a file: the open database, the key it is sealed with | `store::embedded` `current` | `RwLock`, on blocking threads only | opening it again after a fault, another sealing key, a rewrite of the file | no |
//! | commits that a kill must not take along | `store::embedded::journal` `state` | `Mutex`, for one write to the kernel | commits, and the thread that answers them | no |
//! | whether the store closes | `store::embedded` `closing` | atomic | its drop | no |
//! | what waits for the disk | `store::embedded` `requests`, `reading` | bounded channel to the one thread that writes; `Semaphore` | flights, operators | yes: queues |
//! | data keys that were opened | `store::vault` `open` | `Mutex` | the first row of a tenant | no |
//! | what opening a file would write to it | `store::embedded::untouched` `written` | `Mutex` | the check before a file is opened in earnest | no |
//! | counters and gauges | `observe::Metrics` | their own atomics and locks; `rendering`: `Mutex`, `source`: `OnceLock` | every event; a scrape | no |
//! | label values seen | `observe::labels` `seen` | `RwLock` | the first event with a value | no |
//! | timelines | `observe::Timeline` `pages` | `Mutex` | every event about a key | no |
//! | what waits for the audit log | `observe::audit::Queue` `state` | `Mutex`, `Condvar`; not held while anything is written | audited events, the one thread that writes | no |
//! | who hears of the audit log; whether its thread has ended | `observe::audit` `Tell`, `Audit` `ended` | `RwLock`; `Mutex`, `Condvar` | start; the thread | no |
//! | instances that exist, compilers that run | `wasm::Runtime` `slots`, `compilers` | `Semaphore`s | every call into a plugin; every load | yes: queues |
//! | instances of one plugin | `wasm` `turns` | `Semaphore`, one a plugin | every call into it | yes: a queue |
//! | guests running; the engine's epoch | `wasm::ticker` | atomics | every call; the epoch thread | no |
//! | plugins loaded, by digest | `wasm::cache` `entries`; each a `OnceCell` | `Mutex`; the cell waits for its first load | loads | the cell: yes |
//! | compilations so far | `wasm::Catalog` | atomic | loads | no |
//! | idle connections | `upstream::HttpUpstream` | inside the HTTP client, one pool a provider | requests that carry no grant | no |
//! | the client for requests that carry a grant | `upstream::HttpUpstream` `single` | `OnceLock` | the first such request | no |
//! | whether a request's body was handed over | `upstream`, one request | atomic | the connection | no |
//! | callers, operators, certificates in force | `daemon::server::Front` `live` | `RwLock<Arc<_>>` | reload | no |
//! | draining; notices this second | `daemon::server::Front` | atomics | shutdown; refused requests | no |
//! | that one of them changed | `daemon::server::Front` `changes` | tokio `watch` | reload, shutdown | yes: watches do |
//! | connections | `daemon::server::Connections` | `TaskTracker`, two `CancellationToken`s, a `Semaphore` a plane | accept, drain | yes: a queue |
//! | where lines and spans go | `daemon::logging` | the global subscriber, set once | start | no |
//! | tallies of the demo | `daemon::demo` | atomics | its callers | no |
//! | the issuer's book, ledger, script; recorded events; canaries; a test's clock | [`testing`] | `Mutex`es, a `watch` each for ledger and recorder, an atomic | tests and the demo | no |

pub mod broker;
pub mod cache;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod flight;
pub mod gate;
pub mod keys;
pub mod model;
pub mod observe;
pub mod schedule;
pub mod secrets;
pub mod settings;
pub mod snapshot;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod upstream;
pub mod wasm;

mod authorize;
mod core;
mod refresh;
mod revoke;
mod shim;
mod unsaved;
mod watchers;

pub use broker::{
    Broker, BrokerSettings, Builder, Issued, PolicySettings, Readiness, RejectOutcome,
    RejectReport, StartError, SwapError, Swapped, TokenHandle, Watch, WatchEvent,
};
pub use cache::{CacheLimits, NotReady};
pub use model::error::{Error, ErrorKind, Retry};
pub use model::event::{Event, Observer};
pub use model::key::{
    Audience, BadName, CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey,
};
pub use model::policy::{Principal, TokenRequest};
pub use model::secret::Secret;
pub use model::time::UnixTime;
pub use model::token::{AccessToken, Generation};
pub use settings::{
    CallerSettings, PluginSource, ProviderSettings, RefreshSettings, SecretSettings, SecretSource,
};
