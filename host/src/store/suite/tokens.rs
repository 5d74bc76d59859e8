//! What every backend promises about access tokens.

use std::sync::Arc;
use std::time::Duration;

use super::{key, with_grant};
use crate::model::credential::{Credential, Fingerprint, Version};
use crate::model::key::{Audience, ScopeSet, TokenKey};
use crate::model::time::UnixTime;
use crate::model::token::{Generation, ObtainedToken, TokenRecord};
use crate::store::Store;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// A key of a token.
pub(crate) fn token_key(subject: &str) -> TokenKey {
    TokenKey {
        credential: key(subject),
        audience: None,
        scopes: ScopeSet::default(),
    }
}

/// A token that ends so many seconds later.
pub(crate) fn token(value: &str, ends: u64) -> TokenRecord {
    TokenRecord {
        token: ObtainedToken {
            value: value.into(),
            token_type: "Bearer".into(),
            expires: NOW.plus(Duration::from_secs(ends)),
            issued: NOW,
            scopes: ScopeSet::parse(["read"]).unwrap(),
            extra: vec![("instance_url".into(), "https://x".into())],
        },
        generation: Generation::from_number(41).unwrap(),
        fingerprint: Fingerprint([5; 32]),
        obtained_at: Version(0),
    }
}

/// The token that a store has for a key.
pub(crate) async fn token_of(store: &dyn Store, key: &TokenKey) -> Option<String> {
    let kept = store.load_token(key).await.unwrap();
    kept.map(|record| record.token.value.expose().clone())
}

pub(crate) async fn a_token_comes_back_until_it_is_replaced_or_forgotten(store: Arc<dyn Store>) {
    let ada = token_key("ada");
    assert!(store.load_token(&ada).await.unwrap().is_none());
    store.keep_token(&ada, token("one", 60)).await.unwrap();
    let kept = store.load_token(&ada).await.unwrap().unwrap();
    let expected = token("one", 60);
    assert_eq!(kept.token.value.expose(), "one");
    assert_eq!(kept.token.token_type, "Bearer");
    assert_eq!(kept.token.expires, expected.token.expires);
    assert_eq!(kept.token.issued, NOW);
    assert_eq!(kept.token.scopes, expected.token.scopes);
    assert_eq!(kept.token.extra[0].1.expose(), "https://x");
    assert_eq!(
        (kept.generation, kept.fingerprint, kept.obtained_at),
        (
            expected.generation,
            expected.fingerprint,
            expected.obtained_at
        )
    );
    store.keep_token(&ada, token("two", 30)).await.unwrap();
    assert_eq!(token_of(&*store, &ada).await.unwrap(), "two");

    // Another audience or scope is another token.
    let narrower = TokenKey {
        scopes: ScopeSet::parse(["read"]).unwrap(),
        ..ada.clone()
    };
    let elsewhere = TokenKey {
        audience: Some(Audience::parse("read").unwrap()),
        ..ada.clone()
    };
    store.keep_token(&narrower, token("n", 60)).await.unwrap();
    store.keep_token(&elsewhere, token("e", 60)).await.unwrap();
    for (key, value) in [(&ada, "two"), (&narrower, "n"), (&elsewhere, "e")] {
        assert_eq!(token_of(&*store, key).await.unwrap(), value);
    }
    // A credential is not a row because it has tokens.
    assert_eq!(
        store.load(&ada.credential).await.unwrap().version,
        Version(0)
    );
}

pub(crate) async fn a_token_that_was_withdrawn_meanwhile_is_not_kept(store: Arc<dyn Store>) {
    let ada = token_key("ada");
    let obtained_at = |version| TokenRecord {
        obtained_at: Version(version),
        ..token("t", 60)
    };
    let with = |withdrawn| Credential {
        withdrawn: Version(withdrawn),
        ..with_grant("g")
    };
    // Of a history that is not this one: its tenant was shredded.
    store.keep_token(&ada, obtained_at(1)).await.unwrap();
    assert_eq!(token_of(&*store, &ada).await, None);
    for (version, withdrawn) in [(0, 1), (1, 1), (2, 3)] {
        store
            .commit(&ada.credential, Version(version), with(withdrawn))
            .await
            .unwrap();
    }
    store.keep_token(&ada, obtained_at(2)).await.unwrap();
    assert_eq!(token_of(&*store, &ada).await, None);
    store.keep_token(&ada, obtained_at(3)).await.unwrap();
    assert!(token_of(&*store, &ada).await.is_some());
}

pub(crate) async fn tokens_that_are_over_are_forgotten_in_the_order_of_their_ends(
    store: Arc<dyn Store>,
) {
    for ends in [50, 10, 40, 20, 30] {
        let key = token_key(&format!("until {ends}"));
        store.keep_token(&key, token("t", ends)).await.unwrap();
    }
    // What was prolonged is not over.
    let prolonged = token_key("until 20");
    store.keep_token(&prolonged, token("t", 60)).await.unwrap();
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    assert_eq!(store.forget_tokens(at(10), 10).await, Ok(0));
    assert_eq!(store.forget_tokens(at(45), 2).await, Ok(2));
    for (ends, there) in [(10, false), (20, true), (30, false), (40, true), (50, true)] {
        let key = token_key(&format!("until {ends}"));
        assert_eq!(token_of(&*store, &key).await.is_some(), there, "{ends}");
    }
    assert_eq!(store.forget_tokens(at(45), 10).await, Ok(1));
    assert_eq!(store.forget_tokens(at(45), 10).await, Ok(0));
    assert_eq!(store.forget_tokens(at(61), 10).await, Ok(2));
}
