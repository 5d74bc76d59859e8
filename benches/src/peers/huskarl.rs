//! `huskarl`: its cache over a client credentials grant, as in its example `cached_client`.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::Request;
use huskarl::authorizer::HttpAuthorizer;
use huskarl::cache::{GrantTokenSource, InMemoryRefreshTokenStore, InMemoryTokenCache};
use huskarl::core::client_auth::NoAuth;
use huskarl::core::http::{HttpClient, HttpResponse, Idempotency};
use huskarl::core::platform::MaybeSendBoxFuture;
use huskarl::core::{Error, RetryAdvice};
use huskarl::grant::client_credentials::{
    ClientCredentialsGrant, ClientCredentialsGrantParameters,
};

use crate::issuer::{Fetch, Issuer};

/// The cache.
pub type Tokens =
    InMemoryTokenCache<GrantTokenSource<ClientCredentialsGrant, InMemoryRefreshTokenStore>>;

/// Its requests go this way.
struct Way(Fetch);

/// A cold cache.
///
/// # Errors
///
/// Never: the URL is good.
pub fn tokens(issuer: &Issuer, fetch: Fetch) -> Result<Arc<Tokens>> {
    let token_url = issuer.token_url().parse();
    let grant = ClientCredentialsGrant::builder()
        .client_id("svc".to_owned())
        .client_auth(NoAuth)
        .http_client(Way(fetch))
        .token_endpoint(token_url.map_err(|error| anyhow!("{error:?}"))?)
        .build();
    let source = GrantTokenSource::builder()
        .grant(grant)
        .grant_parameters(ClientCredentialsGrantParameters::builder().build())
        .refresh_store(InMemoryRefreshTokenStore::default())
        .build();
    Ok(Arc::new(
        InMemoryTokenCache::builder().source(source).build(),
    ))
}

/// What makes headers of its tokens.
pub fn authorizer(tokens: Arc<Tokens>) -> HttpAuthorizer {
    HttpAuthorizer::builder().cache(tokens).build()
}

// === impl Way ===

impl HttpClient for Way {
    fn execute(
        &self,
        request: Request<Bytes>,
        _: Idempotency,
    ) -> MaybeSendBoxFuture<'_, Result<HttpResponse, Error>> {
        Box::pin(async move {
            let response = self.0.send(request).await;
            let response = response.map_err(|error| Error::new(RetryAdvice::RETRY, error))?;
            let (parts, body) = response.into_parts();
            Ok(HttpResponse {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        })
    }
}
