//! The sandbox against plugins that mean harm, or were built wrong.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyfob::model::contract::{
    Auth, Body, Call, Cause, Expiry, HttpResponse, PluginFault, PolicyPlugin, ProviderPlugin,
    Query, Refusal, Rejection, Reply, Revocation, RevokeStep, Rotation, SealedValue, Segment, Step,
    Verdict,
};
use keyfob::wasm::limits::COMPONENT_MAX_BYTES;
use keyfob::wasm::{Catalog, LoadCode, LoadError, LoadedPlugin, Runtime};
use keyfob_tests::guests;

/// One engine for the process, as in production.
fn runtime() -> Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    Arc::clone(RUNTIME.get_or_init(|| Runtime::new().expect("this machine runs WebAssembly")))
}

/// One catalog for tests that do not count compilations.
fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| Catalog::new(runtime()))
}

async fn hostile() -> LoadedPlugin {
    catalog()
        .load(guests::hostile())
        .await
        .expect("the hostile guest loads when it is honest")
}

async fn provider() -> Arc<dyn ProviderPlugin> {
    hostile()
        .await
        .provider
        .expect("the hostile guest is a provider")
}

async fn policy() -> Arc<dyn PolicyPlugin> {
    hostile()
        .await
        .policy
        .expect("the hostile guest is a policy")
}

async fn refused(bytes: Arc<[u8]>) -> LoadError {
    catalog().load(bytes).await.expect_err("it must not load")
}

fn call(word: &str) -> Call {
    Call {
        now: 1_700_000_000,
        entropy: vec![7; 32],
        settings: word.into(),
        tenant: "default".into(),
        subject: Some("alice".into()),
        scopes: vec!["a".into(), "b".into()],
        audience: None,
        refresh_token: Some(SealedValue {
            handle: "grant".into(),
        }),
        held: vec![(
            "h".into(),
            SealedValue {
                handle: "held".into(),
            },
        )],
        memo: vec![("m".into(), "kept".into())],
        cause: Cause::First,
    }
}

fn query(word: &str) -> Query {
    Query {
        now: 1_700_000_000,
        tenant: "default".into(),
        caller: "billing".into(),
        attributes: vec![("team".into(), "money".into())],
        provider: "acme".into(),
        subject: None,
        scopes: vec!["a".into(), "b".into()],
        audience: None,
        settings: word.into(),
    }
}

/// What `refresh` says when it is asked to do `word`.
async fn refresh(word: &str) -> Result<Result<Step, Refusal>, PluginFault> {
    provider().await.refresh(&call(word), &[]).await
}

async fn fault(word: &str) -> PluginFault {
    match refresh(word).await {
        Err(fault) => fault,
        Ok(_) => panic!("{word} went unpunished"),
    }
}

// === what works ===

#[tokio::test]
async fn every_function_of_both_worlds_answers() {
    let plugin = provider().await;
    assert_eq!(plugin.description().name, "hostile");
    assert_eq!(plugin.description().version, "1.2.3");
    assert_eq!(plugin.digest(), hostile().await.digest);
    assert_eq!(plugin.digest().len(), 64);

    let needs = plugin.configure("{}").await.unwrap().unwrap();
    assert_eq!(needs.secrets, ["client_secret"]);
    assert_eq!(needs.rotation, Rotation::Grace);
    let mistakes = plugin.configure("mistakes").await.unwrap().unwrap_err();
    assert_eq!(mistakes[0].at, "/token_url");

    let Step::Send(request) = plugin.refresh(&call("{}"), &[]).await.unwrap().unwrap() else {
        panic!("the first step is a request");
    };
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", "https://login.example/token")
    );
    assert!(matches!(request.body, Body::Form(ref form) if form[0].name == "grant_type"));
    let Some(Auth::Basic { password, .. }) = request.auth else {
        panic!("it authenticates")
    };
    assert_eq!(password, [Segment::Secret("client_secret".into())]);

    let response = HttpResponse {
        status: 200,
        headers: vec![("date".into(), "now".into())],
        body: b"handle-1".to_vec(),
        note: None,
    };
    let done = plugin
        .refresh(&call("{}"), &[Reply::Response(response)])
        .await
        .unwrap();
    let Ok(Step::Done(tokens)) = done else {
        panic!("the second step is the last")
    };
    assert_eq!(tokens.access_token.handle, "handle-1");
    assert_eq!(tokens.expires, Expiry::FromAnswer(60));

    let Err(Refusal::Transient { reason, after }) = refresh("refuse").await.unwrap() else {
        panic!("it refuses when told to");
    };
    assert_eq!(
        (reason.code.as_str(), reason.message.as_str()),
        ("outage", "later  perhaps")
    );
    assert_eq!(after, Some(Duration::from_secs(7)));

    let what = Revocation {
        call: call("{}"),
        token: SealedValue { handle: "t".into() },
        holds: keyfob::model::contract::Holds::AccessToken,
    };
    let step = plugin.revoke(&what, &[]).await.unwrap();
    assert!(matches!(step, Ok(RevokeStep::Unsupported)));

    let rejection = Rejection {
        status: 403,
        www_authenticate: Some("Bearer".into()),
        settings: "{}".into(),
    };
    assert_eq!(plugin.classify(&rejection).await, Ok(Verdict::ScopeMissing));

    let policy = policy().await;
    let allowance = policy.decide(&query("{}")).await.unwrap().unwrap();
    assert_eq!(allowance.scopes, ["a", "b"]);
    assert_eq!(allowance.max_lifetime, Some(Duration::from_secs(30)));
    let denial = policy.decide(&query("deny")).await.unwrap().unwrap_err();
    assert_eq!(denial.code, "not_listed");
}

#[tokio::test]
async fn every_step_meets_a_fresh_instance() {
    let plugin = provider().await;
    for _ in 0..5 {
        let needs = plugin.configure("{}").await.unwrap().unwrap();
        assert_eq!(
            needs.grace,
            Some(Duration::from_secs(1)),
            "the guest remembered a call"
        );
    }
}

#[tokio::test]
async fn a_core_module_becomes_the_component_it_describes() {
    let from_module = catalog()
        .load(guests::hostile_module().into())
        .await
        .unwrap();
    assert!(from_module.provider.is_some() && from_module.policy.is_some());
    // What is kept can be loaded again, and is then the same plugin.
    let again = catalog()
        .load(Arc::clone(&from_module.component))
        .await
        .unwrap();
    assert_eq!(again.digest, from_module.digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_bytes_compile_once() {
    let catalog = Arc::new(Catalog::new(runtime()));
    let loads = (0..8).map(|_| {
        let catalog = Arc::clone(&catalog);
        async move { catalog.load(guests::hostile()).await }
    });
    let loaded = futures_util::future::join_all(loads).await;
    assert!(loaded.iter().all(Result::is_ok));
    catalog.load(guests::hostile()).await.unwrap();
    assert_eq!(catalog.compilations(), 1);
    catalog
        .load(guests::hostile_at_birth("other-bytes"))
        .await
        .unwrap();
    assert_eq!(catalog.compilations(), 2);
}

#[tokio::test]
async fn a_load_that_is_given_up_does_not_spoil_the_next() {
    let catalog = Catalog::new(runtime());
    let mut load = Box::pin(catalog.load(guests::hostile()));
    assert!(futures_util::poll!(&mut load).is_pending());
    drop(load);
    assert!(catalog.load(guests::hostile()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_of_many_plugins_at_once_all_succeed() {
    let plugins = futures_util::future::join_all((0..8).map(|n| async move {
        let bytes = guests::hostile_at_birth(&format!("crowd-{n}"));
        catalog().load(bytes).await.unwrap().provider.unwrap()
    }));
    let plugins = plugins.await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..400 {
        let plugin = Arc::clone(&plugins[n % plugins.len()]);
        calls.spawn(async move {
            plugin
                .refresh(&call("{}"), &[])
                .await
                .map(|step| step.is_ok())
        });
    }
    while let Some(joined) = calls.join_next().await {
        assert_eq!(joined.unwrap(), Ok(true));
    }
}

// === plugins that misbehave when called ===

#[tokio::test]
async fn a_panic_is_reported_in_the_plugins_own_words() {
    let PluginFault::Trap(text) = fault("panic").await else {
        panic!("a panic is a trap")
    };
    assert!(
        text.contains("told to") && text.contains("lib.rs"),
        "{text}"
    );
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");

    let PluginFault::Trap(text) = fault("panic-at-length").await else {
        panic!("so is this")
    };
    assert!(text.starts_with("panicked at") && text.len() <= 1000);
}

#[tokio::test]
async fn a_trap_without_words_is_reported_with_its_reason() {
    let PluginFault::Trap(text) = fault("trap").await else {
        panic!("it is a trap")
    };
    assert!(text.contains("unreachable"), "{text}");
    let PluginFault::Trap(text) = fault("recurse").await else {
        panic!("it is a trap")
    };
    assert!(text.contains("stack"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_trapped_answers_the_next_call() {
    for word in ["panic", "loop", "allocate"] {
        fault(word).await;
        assert!(refresh("{}").await.unwrap().is_ok(), "after {word}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_endless_loop_ends_and_meanwhile_others_make_progress() {
    static PROGRESS: AtomicU64 = AtomicU64::new(0);
    let plugin = provider().await;
    let mut other = tokio::task::JoinSet::new();
    other.spawn(async {
        loop {
            PROGRESS.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let before = PROGRESS.load(Relaxed);
    let ended = plugin.refresh(&call("loop"), &[]).await;
    assert!(matches!(ended, Err(PluginFault::Deadline(_))));
    // One thread for both: every turn of the other task is one that the guest gave up.
    let turns = PROGRESS.load(Relaxed) - before;
    other.shutdown().await;
    assert!(
        turns >= 10,
        "only {turns} turns while the guest was spinning"
    );
}

#[tokio::test]
async fn a_caller_who_gives_up_on_a_hanging_plugin_leaves_nothing_behind() {
    let plugin = provider().await;
    for _ in 0..100 {
        let looping = call("loop");
        let mut hanging = plugin.refresh(&looping, &[]);
        // Runs until the end of its first epoch.
        assert!(futures_util::poll!(&mut hanging).is_pending());
        drop(hanging);
    }
    assert!(refresh("{}").await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_plugin_does_not_keep_another_from_its_turn() {
    let hanging = catalog()
        .load(guests::hostile_at_birth("hanging"))
        .await
        .unwrap();
    let hanging = hanging.provider.unwrap();
    let mut hung = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let plugin = Arc::clone(&hanging);
        hung.spawn(async move { plugin.refresh(&call("loop"), &[]).await.is_err() });
    }
    tokio::task::yield_now().await;
    assert!(refresh("{}").await.unwrap().is_ok());
    assert!(!hung.is_empty());
    hung.shutdown().await;
}

#[tokio::test]
async fn memory_without_end_meets_the_limit_and_the_host_stays_small() {
    assert_eq!(fault("allocate").await, PluginFault::Limit("memory"));
    let before = resident_bytes();
    for _ in 0..20 {
        assert_eq!(fault("allocate").await, PluginFault::Limit("memory"));
    }
    // Twenty guests took 32 MiB each; other tests of this process may hold as much again while this is read.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 400 << 20, "the host grew by {grown} bytes");
}

/// Memory of this process, or zero where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[tokio::test]
async fn an_answer_without_measure_is_not_copied() {
    assert_eq!(fault("huge-answer").await, PluginFault::Limit("answer"));
    assert_eq!(fault("huge-list").await, PluginFault::Limit("answer"));
}

#[tokio::test]
async fn an_answer_the_contract_forbids_names_what_is_wrong() {
    let PluginFault::Broken(what) = fault("many-headers").await else {
        panic!("it is broken")
    };
    assert_eq!(what, "headers: 65 entries, at most 64");
    let silent = provider().await.configure("refuse-silently").await;
    assert!(matches!(silent, Err(PluginFault::Broken(_))));
}

#[tokio::test]
async fn a_policy_is_held_as_tightly_as_a_provider() {
    let policy = policy().await;
    for (word, label) in [
        ("panic", "trap"),
        ("loop", "deadline"),
        ("allocate", "limit"),
    ] {
        let fault = policy.decide(&query(word)).await.unwrap_err();
        assert_eq!(fault.label(), label);
    }
}

// === plugins that are not let in ===

#[tokio::test]
async fn a_plugin_that_misbehaves_in_describe_is_not_loaded() {
    for (word, says) in [
        ("loop", "used up"),
        ("allocate", "memory limit"),
        ("huge-describe", "answer limit"),
        ("panic", "told to"),
        ("trap", "unreachable"),
        ("lie-name", "name"),
        ("lie-version", "version"),
        ("lie-summary", "summary"),
        ("lie-schema", "settings-schema"),
    ] {
        let error = refused(guests::hostile_at_birth(word)).await;
        assert_eq!(error.code(), LoadCode::Describe, "{word}: {error}");
        assert!(error.what().contains(says), "{word}: {error}");
        assert!(!error.fix().is_empty());
    }
}

#[tokio::test]
async fn an_endless_start_is_cut_off_like_any_other_loop() {
    let error = refused(guests::hostile_at_birth("endless-start")).await;
    assert_eq!(error.label(), "describe");
    assert!(error.what().contains("used up"), "{error}");
}

#[tokio::test]
async fn an_import_is_named_together_with_its_fix() {
    let error = refused(guests::importing("wasi:clocks/monotonic-clock@0.2.6")).await;
    assert_eq!(error.label(), "unknown_import");
    assert!(
        error.what().contains("`wasi:clocks/monotonic-clock@0.2.6`"),
        "{error}"
    );
    assert!(error.fix().contains("wasm32-unknown-unknown"), "{error}");

    let error = refused(guests::importing("keyfob:types/types@0.1.0")).await;
    assert!(
        error.fix().contains("export keyfob:types/types@0.1.0;"),
        "{error}"
    );

    let error = refused(guests::core_importing("t:t/clock", "now")).await;
    assert_eq!(error.label(), "unknown_import");
    assert!(error.what().contains("`t:t/clock#now`"), "{error}");
}

#[tokio::test]
async fn a_world_that_is_missing_or_does_not_fit_is_told_apart() {
    let error = refused(guests::exporting(&["acme:tools/hammer@1.0.0"])).await;
    assert_eq!(error.label(), "no_world");
    assert!(error.what().contains("acme:tools/hammer"), "{error}");

    let error = refused(guests::exporting(&["keyfob:provider/provider@0.2.0"])).await;
    assert_eq!(error.label(), "wrong_version");
    assert!(
        error.what().contains("0.2.0") && error.what().contains("0.1.0"),
        "{error}"
    );

    let names = ["keyfob:types/types@0.1.0", "keyfob:provider/provider@0.1.4"];
    let error = refused(guests::exporting(&names)).await;
    assert_eq!(error.label(), "wrong_type");
    assert!(
        error.what().contains("0.1.4") && error.what().contains("0.1.0"),
        "{error}"
    );
    assert!(error.what().contains("describe"), "{error}");

    let error = refused(guests::provider_of_numbers()).await;
    assert_eq!(error.label(), "wrong_type", "{error}");
    assert!(
        error.what().contains("0.1.3") && error.what().contains("0.1.0"),
        "{error}"
    );
    assert!(
        error.what().contains("expected `record` found `u32`"),
        "{error}"
    );
}

#[tokio::test]
async fn bytes_that_are_no_plugin_are_refused() {
    assert_eq!(
        refused(b"hello, world"[..].into()).await.label(),
        "not_wasm"
    );
    assert_eq!(
        refused(vec![0; COMPONENT_MAX_BYTES + 1].into())
            .await
            .label(),
        "too_large"
    );

    let whole = guests::hostile();
    for part in 1..16 {
        let cut = &whole[..whole.len() * part / 16];
        assert_eq!(
            refused(cut.into()).await.label(),
            "invalid",
            "cut at {part}/16"
        );
    }
}
