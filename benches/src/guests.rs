//! A plugin in our sandbox, called by itself: what `bare` is compared with.

use std::sync::Arc;

use keyfob::model::contract::{
    Call, Cause, HttpResponse, PolicyPlugin, ProviderPlugin, Query, Rejection, Reply, SealedValue,
    Step,
};
use keyfob::wasm::{Catalog, Runtime};

use crate::stage;

/// `builtin:oauth2` and `builtin:allowlist`, and what a refresh and a decision ask of them.
pub struct Guest {
    provider: Arc<dyn ProviderPlugin>,
    policy: Arc<dyn PolicyPlugin>,
    call: Call,
    reply: Reply,
    query: Query,
    rejection: Rejection,
}

// === impl Guest ===

impl Guest {
    /// Loads both.
    ///
    /// # Panics
    ///
    /// When this machine runs no WebAssembly.
    pub async fn new() -> Self {
        let catalog = Catalog::new(Runtime::new().expect("an engine"));
        let load = async |component: &[u8]| catalog.load(component.into()).await.expect("a plugin");
        let provider = load(stage::oauth2()).await.provider.expect("a provider");
        let policy = load(stage::allowlist()).await.policy.expect("a policy");
        let call = Call {
            now: 1_700_000_000,
            entropy: vec![7; 32],
            settings: stage::oauth2_settings().into(),
            tenant: "default".to_owned(),
            subject: None,
            scopes: vec!["read".to_owned()],
            audience: None,
            refresh_token: None,
            held: Vec::new(),
            memo: Vec::new(),
            cause: Cause::Expiring,
        };
        let token = SealedValue {
            handle: format!("sealed:{}", "0".repeat(32)),
        };
        let body = format!(
            r#"{{"access_token":"{}","token_type":"Bearer","expires_in":300,"scope":"read"}}"#,
            token.handle
        );
        let reply = Reply::Response(HttpResponse {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.into_bytes(),
            note: None,
        });
        let query = Query {
            now: 1_700_000_000,
            tenant: "default".to_owned(),
            caller: "billing".to_owned(),
            attributes: Vec::new(),
            provider: "acme".to_owned(),
            subject: Some("ada".to_owned()),
            scopes: vec!["read".to_owned()],
            audience: None,
            settings: stage::rules(["acme"]).to_string().into(),
        };
        let rejection = Rejection {
            status: 401,
            www_authenticate: Some(r#"Bearer error="invalid_token""#.to_owned()),
            settings: stage::oauth2_settings().into(),
        };
        Self {
            provider,
            policy,
            call,
            reply,
            query,
            rejection,
        }
    }

    /// The two steps of a refresh.
    ///
    /// # Panics
    ///
    /// When the plugin does something else than ask for a token and take it.
    pub async fn refresh(&self) {
        let first = self.provider.refresh(&self.call, &[]).await;
        assert!(matches!(first, Ok(Ok(Step::Send(_)))));
        let replies = std::slice::from_ref(&self.reply);
        let second = self.provider.refresh(&self.call, replies).await;
        assert!(matches!(second, Ok(Ok(Step::Done(_)))));
    }

    /// A decision about one caller.
    ///
    /// # Panics
    ///
    /// When it is none, or no.
    pub async fn decide(&self) {
        let decided = self.policy.decide(&self.query).await;
        assert!(matches!(decided, Ok(Ok(_))));
    }

    /// What a resource's refusal means.
    ///
    /// # Panics
    ///
    /// When the plugin does not say.
    pub async fn classify(&self) {
        let verdict = self.provider.classify(&self.rejection).await;
        assert!(verdict.is_ok());
    }
}
