//! `azure_core`: the policy that puts a bearer token into every request of a client of Azure's. Its cache has no door of its
//! own, so the policy is asked, and the transport behind it does nothing.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{AUTHORIZATION, Headers};
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Context, Method, Request, StatusCode};
use azure_core::time::OffsetDateTime;
use azure_core::{Bytes, Error};

use crate::issuer::Fetch;

/// The policy, and what stands for the network behind it.
#[derive(Clone, Debug)]
pub struct Pipeline {
    policy: BearerTokenAuthorizationPolicy,
    transport: [Arc<dyn Policy>; 1],
}

/// A request that is sent again and again.
pub struct Asking {
    context: Context<'static>,
    request: Request,
}

/// Where its tokens come from.
struct FromIssuer(Fetch);

/// Answers everything, at once.
#[derive(Debug)]
struct Nowhere;

// === impl Pipeline ===

impl Pipeline {
    /// A cold one.
    pub fn new(fetch: Fetch) -> Self {
        let credential = Arc::new(FromIssuer(fetch));
        Self {
            policy: BearerTokenAuthorizationPolicy::new(credential, ["read"]),
            transport: [Arc::new(Nowhere)],
        }
    }

    /// Puts the header into a request and sends it nowhere.
    ///
    /// # Errors
    ///
    /// When the issuer fails.
    pub async fn send(&self, asking: &mut Asking) -> azure_core::Result<()> {
        let Asking { context, request } = asking;
        let sent = self.policy.send(context, request, &self.transport);
        sent.await.map(drop)
    }

    /// The same without the policy: what of it is not the token's.
    ///
    /// # Errors
    ///
    /// Never.
    pub async fn send_bare(&self, asking: &mut Asking) -> azure_core::Result<()> {
        let Asking { context, request } = asking;
        let sent = self.transport[0].send(context, request, &[]);
        sent.await.map(drop)
    }
}

// === impl Asking ===

impl Asking {
    /// To a server that is never asked.
    ///
    /// # Panics
    ///
    /// Never: the URL is good.
    pub fn new() -> Self {
        let url = "https://127.0.0.1/".parse().expect("a good URL");
        Self {
            context: Context::new(),
            request: Request::new(url, Method::Get),
        }
    }

    /// How long the header is that the policy put in; 0: none.
    pub fn header_bytes(&self) -> usize {
        let header = self.request.headers().get_optional_str(&AUTHORIZATION);
        header.map_or(0, str::len)
    }
}

impl Default for Asking {
    fn default() -> Self {
        Self::new()
    }
}

// === impl FromIssuer ===

// Written out, because the macro that these traits are declared with is no dependency of ours.
impl TokenCredential for FromIssuer {
    fn get_token<'s, 'a, 'b, 'c, 'f>(
        &'s self,
        _: &'a [&'b str],
        _: Option<TokenRequestOptions<'c>>,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AccessToken>> + Send + 'f>>
    where
        Self: 'f,
        's: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        Box::pin(async {
            let asked = OffsetDateTime::now_utc();
            let fetched = self.0.token().await;
            let fetched = fetched.map_err(|error| Error::new(ErrorKind::Credential, error))?;
            let end = asked + fetched.lifetime();
            Ok(AccessToken::new(fetched.token, end))
        })
    }
}

impl fmt::Debug for FromIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromIssuer")
    }
}

// === impl Nowhere ===

impl Policy for Nowhere {
    fn send<'s, 'a, 'b, 'c, 'f>(
        &'s self,
        _: &'a Context<'_>,
        _: &'b mut Request,
        _: &'c [Arc<dyn Policy>],
    ) -> Pin<Box<dyn Future<Output = PolicyResult> + Send + 'f>>
    where
        Self: 'f,
        's: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        let answer = AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), Bytes::new());
        Box::pin(ready(Ok(answer)))
    }
}
