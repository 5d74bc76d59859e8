//! `aws-smithy-runtime`: the identity cache that every client of AWS's SDK has, over a resolver of our own. A time limit is
//! set, so that the cache need not compute one for each request.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::{SystemTimeSource, TimeSource};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::endpoints::StaticUriEndpointResolver;
use aws_smithy_runtime::client::retries::strategy::NeverRetryStrategy;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{AuthScheme, AuthSchemeId, Sign};
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity, ResolveIdentity, SharedIdentityCache,
    SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::{GetIdentityResolver, RuntimeComponents};
use aws_smithy_types::config_bag::ConfigBag;
use http::HeaderValue;

use crate::issuer::Fetch;

/// Longer than any herd waits.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
const SCHEME: AuthSchemeId = AuthSchemeId::new("bearer");

/// The cache and what it is asked with.
#[derive(Debug)]
pub struct Identities {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: ConfigBag,
}

/// What an identity holds here.
struct Token(String);

/// Where identities come from.
#[derive(Debug)]
struct FromIssuer(Fetch);

/// The components must name a scheme; nothing is signed.
#[derive(Debug)]
struct Scheme;

// === impl Identities ===

impl Identities {
    /// A cold cache.
    ///
    /// # Errors
    ///
    /// Never: the components are complete.
    pub fn new(fetch: Fetch) -> Result<Self> {
        let resolver = SharedIdentityResolver::new(FromIssuer(fetch));
        let cache = IdentityCache::lazy().load_timeout(LOAD_TIMEOUT).build();
        let options = vec![SCHEME];
        let components = RuntimeComponents::builder("benches")
            .with_auth_scheme(Scheme)
            .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(options)))
            .with_endpoint_resolver(Some(StaticUriEndpointResolver::http_localhost(80)))
            .with_identity_cache(Some(cache.clone()))
            .with_identity_resolver(SCHEME, resolver.clone())
            .with_retry_strategy(Some(NeverRetryStrategy::new()))
            .with_sleep_impl(Some(TokioSleep::new()))
            .with_time_source(Some(SystemTimeSource::new()))
            .build()?;
        Ok(Self {
            cache,
            resolver,
            components,
            config: ConfigBag::base(),
        })
    }

    /// An identity, as the SDK asks for one before each request. To be polled on a runtime with timers.
    ///
    /// # Errors
    ///
    /// When the issuer fails.
    pub async fn identity(&self) -> Result<Identity, BoxError> {
        let resolver = self.resolver.clone();
        self.cache
            .resolve_cached_identity(resolver, &self.components, &self.config)
            .await
    }

    /// A header of it, made as the SDK's signer for bearer tokens makes it.
    ///
    /// # Errors
    ///
    /// As [`Identities::identity`].
    pub async fn header(&self) -> Result<HeaderValue, BoxError> {
        let identity = self.identity().await?;
        let Token(token) = identity.data().ok_or("ours")?;
        Ok(HeaderValue::from_str(&format!("Bearer {token}"))?)
    }
}

// === impl Token ===

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

// === impl FromIssuer ===

impl ResolveIdentity for FromIssuer {
    fn resolve_identity<'a>(
        &'a self,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async move {
            let asked: SystemTime = SystemTimeSource::new().now();
            let fetched = self.0.token().await?;
            let end = asked + fetched.lifetime();
            Ok(Identity::new(Token(fetched.token), Some(end)))
        })
    }
}

// === impl Scheme ===

impl AuthScheme for Scheme {
    fn scheme_id(&self) -> AuthSchemeId {
        SCHEME
    }

    fn identity_resolver(&self, all: &dyn GetIdentityResolver) -> Option<SharedIdentityResolver> {
        all.identity_resolver(SCHEME)
    }

    fn signer(&self) -> &dyn Sign {
        unreachable!("no request is sent")
    }
}
