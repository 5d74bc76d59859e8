//! What a restart finds in the store: a token that is still good is served, and the issuer is not asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keyfob::model::error::ErrorKind;
use keyfob::model::event::Event;
use keyfob::model::key::TokenKey;
use keyfob::model::secret::Secret;
use keyfob::model::time::Clock as _;
use keyfob::store::Store;
use keyfob::store::embedded::EmbeddedStore;
use keyfob::store::memory::MemoryStore;
use keyfob::testing::TestClock;
use keyfob::testing::issuer::{Behaviour, RefreshRotation};
use keyfob_tests::hand::Hand;
use keyfob_tests::shaky::{Shaky, Tokens};
use keyfob_tests::stage::{
    ACME, CLIENT, Setting, Stage, client, credential, generation, of, refused, scopes, secret,
    subject, with_scope,
};

const SEALING_KEY: &str = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";
const ALICE: &str = "alice";
const LIFE: Duration = Duration::from_secs(300);
/// Far longer than a write takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder for the store's file, and a clock that jumps.
struct World {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock::new()),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keyfob.redb")
    }

    fn store(&self) -> Arc<dyn Store> {
        open(&self.path())
    }

    fn setting(&self) -> Setting {
        let mut setting = Setting::new().lifetime(LIFE).clock(self.clock.clone());
        setting.store = Some(self.store());
        setting
    }

    /// Ends the process in good order and starts it again.
    async fn restart(&self, stage: &mut Stage) {
        stage.restart(|| self.store(), |_| {}).await;
    }

    /// The file as it is now: what a process that is killed leaves.
    fn crash(&self, name: &str) -> PathBuf {
        let copy = self.dir.path().join(name);
        std::fs::copy(self.path(), &copy).unwrap();
        copy
    }
}

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(path, &SEALING_KEY.into()).unwrap())
}

fn adopted(stage: &Stage) -> usize {
    let like = |event: &Event| matches!(event, Event::TokenAdopted { .. });
    stage.recorder.count(like)
}

/// The key of the provider's own account, as everybody asks for it.
fn own_key() -> TokenKey {
    TokenKey {
        credential: credential(None),
        audience: None,
        scopes: scopes(&["read"]),
    }
}

fn alice() -> keyfob::model::policy::TokenRequest {
    of(ACME).subject(subject(ALICE))
}

/// A stage with Alice's grant and the token that it brought.
async fn with_alice(world: &World) -> Stage {
    let client = client().rotation(RefreshRotation::SingleUse);
    let stage = world.setting().refresh_tokens(client).open().await;
    import(&stage).await;
    stage.billing().token(&alice()).await.unwrap();
    stage
}

/// Hands over a grant that Alice just gave.
async fn import(stage: &Stage) {
    let grant = stage.issuer.issue_refresh_token(CLIENT, ALICE).unwrap();
    let key = credential(Some(ALICE));
    let import = stage
        .broker
        .import_credential(key, Secret::new(grant), "test");
    import.await.unwrap();
}

#[tokio::test]
async fn a_valid_token_is_served_after_a_restart_and_the_issuer_is_not_asked() {
    let world = World::new();
    let mut stage = world.setting().open().await;
    let before = stage.token().await.unwrap();
    world.restart(&mut stage).await;
    // Even an issuer that is down is no matter.
    stage.issuer.behave(Behaviour::Status(503));
    let answers = stage.billing().crowd(20, &of(ACME)).await;
    for after in answers {
        let after = after.unwrap();
        assert_eq!(generation(&after), generation(&before));
        assert_eq!(after.token.header(), before.token.header());
        assert_eq!(after.expires, before.expires);
    }
    assert_eq!(
        (stage.calls(), adopted(&stage), stage.renewals()),
        (1, 1, 1)
    );
    let metrics = stage.broker.metrics().await;
    assert!(metrics.contains("keyfob_tokens_adopted_total{provider=\"acme\"} 1"));
    let explained = format!("{:?}", stage.broker.explain(&own_key()).await);
    assert!(explained.contains("adopted"), "{explained}");
    stage.close().await;
}

#[tokio::test]
async fn a_token_whose_moment_passed_while_the_process_was_down_is_renewed_in_what_is_left() {
    let world = World::new();
    let mut stage = world.setting().open().await;
    stage.token().await.unwrap();
    // Of the window from 239 s to about 298.9 s, three fourths are over.
    world.clock.jump(Duration::from_secs(284));
    world.restart(&mut stage).await;
    let back = world.clock.now().as_secs();
    let token = stage.token().await.unwrap();
    let explained = stage.broker.explain(&own_key()).await.unwrap();
    let due = explained.refresh_at.expect("it is planned");
    let ends = token.token.expires().as_secs();
    assert!((back..ends).contains(&due), "{due} not in {back}..{ends}");
    assert_eq!((stage.calls(), adopted(&stage)), (1, 1));
    stage.close().await;
}

#[tokio::test]
async fn a_token_of_other_settings_or_secrets_is_not_served() {
    type Change = fn(&mut keyfob::broker::BrokerSettings);
    let changes: [(&str, Change, bool); 3] = [
        (
            "nothing that reaches the wire",
            |all| all.providers[0].refresh.ahead = 0.3,
            true,
        ),
        (
            "settings",
            |all| all.providers[0].settings["grant"] = "client_credentials".into(),
            false,
        ),
        (
            "a secret",
            |all| {
                all.providers[0].secrets = vec![secret("client_secret", "another-secret-of-ours")]
            },
            false,
        ),
    ];
    for (what, change, served) in changes {
        let world = World::new();
        let mut stage = world.setting().open().await;
        let before = stage.token().await.unwrap();
        stage.restart(|| world.store(), change).await;
        let after = stage.token().await;
        let same = after.is_ok_and(|after| generation(&after) == generation(&before));
        assert_eq!(same, served, "{what}");
        assert_eq!(
            (stage.calls(), adopted(&stage)),
            if served { (1, 1) } else { (2, 0) },
            "{what}"
        );
        stage.close().await;
    }
}

#[tokio::test]
async fn a_token_of_a_credential_that_was_revoked_is_not_served_not_even_just_before_a_crash() {
    let world = World::new();
    let mut stage = with_alice(&world).await;
    world.restart(&mut stage).await;
    let served = stage.billing().token(&alice()).await.unwrap();
    let (calls, key) = (stage.calls(), credential(Some(ALICE)));
    // Without the revocation, a crash costs nothing.
    let copy = world.crash("before.redb");
    stage.broker.revoke_credential(&key, "test").await.unwrap();
    let revoked = world.crash("after.redb");
    stage.restart(|| open(&copy), |_| {}).await;
    let again = stage.billing().token(&alice()).await.unwrap();
    assert_eq!(generation(&again), generation(&served));
    assert_eq!((stage.calls(), adopted(&stage)), (calls, 2));
    for path in [revoked, world.path()] {
        stage.restart(|| open(&path), |_| {}).await;
        let error = stage.billing().token(&alice()).await.err();
        let kind = error.map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::ReauthorizationRequired));
        assert_eq!((stage.calls(), adopted(&stage)), (calls, 2));
    }
    stage.close().await;
}

#[tokio::test]
async fn a_token_of_a_credential_that_was_replaced_is_not_served() {
    let world = World::new();
    let mut stage = with_alice(&world).await;
    world.restart(&mut stage).await;
    let before = stage.billing().token(&alice()).await.unwrap();
    assert_eq!((stage.calls(), adopted(&stage)), (1, 1));
    import(&stage).await;
    world.restart(&mut stage).await;
    let after = stage.billing().token(&alice()).await.unwrap();
    assert_ne!(generation(&after), generation(&before));
    assert_eq!((stage.calls(), adopted(&stage)), (2, 1));
    // The one that it brought is kept in its place.
    world.restart(&mut stage).await;
    let again = stage.billing().token(&alice()).await.unwrap();
    assert_eq!(generation(&again), generation(&after));
    assert_eq!((stage.calls(), adopted(&stage)), (2, 2));
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    stage.close().await;
}

#[tokio::test]
async fn a_token_that_is_over_is_not_served() {
    let world = World::new();
    let mut stage = world.setting().open().await;
    let before = stage.token().await.unwrap();
    world.clock.jump(LIFE - Duration::from_secs(1));
    world.restart(&mut stage).await;
    let after = stage.token().await.unwrap();
    assert!(generation(&after) > generation(&before));
    assert!(after.expires > world.clock.now().plus(LIFE / 2));
    assert_eq!((stage.calls(), adopted(&stage)), (2, 0));
    stage.close().await;
}

#[tokio::test]
async fn a_kept_token_that_cannot_be_read_is_as_none() {
    for how in [Tokens::Damaged, Tokens::Silent] {
        let world = World::new();
        let mut stage = world.setting().open().await;
        stage.token().await.unwrap();
        let reopen = || {
            let store = Shaky::around(world.store());
            store.set_tokens(how);
            Arc::new(store) as Arc<dyn Store>
        };
        // Half of it is waited for an answer.
        let patience = Duration::from_secs(4);
        stage
            .restart(reopen, |all| all.providers[0].refresh.timeout = patience)
            .await;
        stage.token().await.unwrap();
        assert_eq!((stage.calls(), adopted(&stage)), (2, 0), "{how:?}");
        assert!(!stage.broker.ready().degraded, "credentials are there");
        stage.close().await;
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_kept_cost_nobody_anything_and_operators_hear_of_it_once() {
    let store = Arc::new(Shaky::around(World::new().store()));
    let mut setting = Setting::new();
    setting.store = Some(store.clone());
    let stage = setting.open().await;
    let told = |event: &Event| {
        matches!(
            event,
            Event::Notice {
                code: "token_not_kept",
                ..
            }
        )
    };
    store.set_tokens(Tokens::Damaged);
    for scope in ["read", "write", "orders.read"] {
        stage.billing().token(&with_scope(scope)).await.unwrap();
    }
    let heard = tokio::time::timeout(PATIENCE, stage.recorder.wait_for(told)).await;
    heard.expect("an operator is told");
    // One outage, one notice; another one is told again.
    assert_eq!(stage.recorder.count(told), 1);
    assert!(!stage.broker.ready().degraded);
    stage.close().await;
}

#[tokio::test]
async fn a_kept_token_that_a_resource_rejects_is_renewed() {
    let world = World::new();
    let mut stage = world.setting().open().await;
    let before = stage.token().await.unwrap();
    world.restart(&mut stage).await;
    // The first word after the restart is the rejection.
    let caller = stage.billing();
    let rejection = refused(generation(&before));
    let (after, outcome) = caller.reject(&of(ACME), &rejection).await.unwrap();
    assert_eq!(outcome.label(), "refreshed");
    assert_ne!(generation(&after), generation(&before));
    assert_eq!((stage.calls(), adopted(&stage)), (2, 1));
    drop(caller);
    // And stays away.
    world.restart(&mut stage).await;
    let again = stage.token().await.unwrap();
    assert_eq!(generation(&again), generation(&after));
    assert_eq!(stage.calls(), 2);
    stage.close().await;
}

#[tokio::test]
async fn a_key_that_was_evicted_and_comes_back_costs_no_request() {
    let world = World::new();
    let mut setting = world.setting().room(1, 1);
    let store = world.dir.path().join("second.redb");
    let store = open(&store);
    setting.store = Some(store.clone());
    let stage = setting.open().await;
    let caller = stage.billing();
    let first = caller.token(&with_scope("read")).await.unwrap();
    let key = own_key();
    let kept = async {
        while store.load_token(&key).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.unwrap();
    caller.token(&with_scope("write")).await.unwrap();
    let evicted = |event: &Event| matches!(event, Event::KeyEvicted { .. });
    assert_eq!(stage.recorder.count(evicted), 1);
    let back = caller.token(&with_scope("read")).await.unwrap();
    assert_eq!(generation(&back), generation(&first));
    assert_eq!((stage.calls(), adopted(&stage)), (2, 1));
    drop(caller);
    stage.close().await;
}

#[tokio::test]
async fn a_required_token_that_was_kept_makes_the_process_ready_while_the_issuer_is_down() {
    let world = World::new();
    let mut stage = world
        .setting()
        .acme(|acme| acme.required = true)
        .open()
        .await;
    stage.token().await.unwrap();
    stage.issuer.behave(Behaviour::Hang);
    world.restart(&mut stage).await;
    let like = |event: &Event| matches!(event, Event::TokenAdopted { .. });
    let found = tokio::time::timeout(PATIENCE, stage.recorder.wait_for(like)).await;
    found.expect("nobody has to ask");
    assert!(stage.broker.ready().ready);
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn kept_tokens_that_are_over_are_forgotten_and_the_others_stay() {
    let hand = Hand::take(Duration::ZERO);
    let store = Arc::new(Shaky::around(Arc::new(MemoryStore::new())));
    let mut setting = Setting::new().lifetime(LIFE).clock(hand.clock.clone());
    setting.store = Some(store.clone());
    let stage = setting.open().await;
    let caller = stage.billing();
    let get = |scope: &'static str| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.token(&with_scope(scope)).await.is_ok() })
    };
    stage
        .issuer
        .behave_next(1, Behaviour::Lifetime(Duration::from_secs(30)));
    for scope in ["read", "write"] {
        let asked = get(scope);
        hand.settle(&stage).await;
        assert!(asked.await.unwrap());
        hand.settle(&stage).await;
    }
    let kept = async |scope: &str| {
        let key = TokenKey {
            scopes: scopes(&[scope]),
            ..own_key()
        };
        store.kept.load_token(&key).await.unwrap().is_some()
    };
    assert!(kept("read").await && kept("write").await);
    // Often enough that a file does not grow by what is over.
    hand.pass(Duration::from_secs(61), &stage).await;
    assert!(!kept("read").await);
    assert!(kept("write").await);
    drop(caller);
    drop(hand);
    stage.close().await;
}
