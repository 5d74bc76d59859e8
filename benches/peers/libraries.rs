//! The libraries: one token, on one thread and on two.

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use criterion::Criterion;
use futures_util::FutureExt;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, CacheableResource, Credentials, EntityTag,
};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri};
use huskarl::authorizer::HttpAuthorizer;
use huskarl::cache::TokenSource;
use keyfob::TokenHandle;
use keyfob_benches::cached::TOKEN_BYTES;
use keyfob_benches::issuer::{Fetch, Issuer};
use keyfob_benches::pair;
use keyfob_benches::peers::aws::Identities;
use keyfob_benches::peers::azure::{Asking, Pipeline};
use keyfob_benches::peers::huskarl::Tokens;
use keyfob_benches::peers::ours::Ours;
use keyfob_benches::peers::{google, huskarl as huskarl_peer};
use tokio::runtime::Runtime;

pub const TOKEN: &str = "a token";
pub const HEADER: &str = "a header to send";
pub const TWO: &str = "a token, two threads";

/// The libraries, each with its token.
pub struct Libraries {
    ours: Ours,
    handle: TokenHandle,
    /// Ours again, with the clock that is chosen where a handle's few nanoseconds matter.
    ticked: Ours,
    ticked_handle: TokenHandle,
    huskarl: Arc<Tokens>,
    authorizer: HttpAuthorizer,
    google: Credentials,
    google_tokens: AccessTokenCredentials,
    google_tag: EntityTag,
    aws: Identities,
    azure: Pipeline,
}

// === impl Libraries ===

impl Libraries {
    pub async fn new(issuer: &Issuer) -> Result<Self> {
        let fetch = Fetch::connect(issuer).await?;
        let (ours, handle) = warm(Ours::new(issuer).await?).await?;
        let (ticked, ticked_handle) = warm(Ours::ticked(issuer).await?).await?;
        let huskarl = huskarl_peer::tokens(issuer, fetch.clone())?;
        huskarl.token().await?;
        let google = google::credentials(issuer)?;
        let CacheableResource::New { entity_tag, .. } = google.headers(Extensions::new()).await?
        else {
            anyhow::bail!("the first headers are new");
        };
        let google_tokens = google::access_tokens(issuer)?;
        google_tokens.access_token().await?;
        let aws = Identities::new(fetch.clone())?;
        let identity = aws.identity().await;
        identity.map_err(anyhow::Error::from_boxed)?;
        let azure = Pipeline::new(fetch);
        azure.send(&mut Asking::new()).await?;
        Ok(Self {
            ours,
            handle,
            ticked,
            ticked_handle,
            authorizer: huskarl_peer::authorizer(Arc::clone(&huskarl)),
            huskarl,
            google,
            google_tokens,
            google_tag: entity_tag,
            aws,
            azure,
        })
    }

    /// Whether each of them has a header of the same length: what is measured is the same, and no error.
    pub async fn check(&self) -> Result<()> {
        let mut handle = self.handle.clone();
        let ours = handle
            .get()
            .ok()
            .context("none by handle")?
            .header()
            .clone();
        let expected = "Bearer ".len() + TOKEN_BYTES;
        ensure!(ours.len() == expected, "{} bytes by handle", ours.len());
        let Ours {
            broker,
            caller,
            request,
        } = &self.ours;
        let by_key = broker.token(caller, request).await?.token.header().clone();
        ensure!(by_key == ours, "another one by key");
        let mut theirs = vec![
            self.authorizer.get_headers(&Method::GET, &uri()).await?,
            map(self.aws.header().await.map_err(anyhow::Error::from_boxed)?),
        ];
        match self.google.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => theirs.push(data),
            CacheableResource::NotModified => bail!("nothing was said of what is known"),
        }
        for headers in theirs {
            let length = headers.get(AUTHORIZATION).map(HeaderValue::len);
            ensure!(length == Some(expected), "{length:?} bytes");
        }
        let again = self.google.headers(self.unmodified_since()).await?;
        let known = matches!(again, CacheableResource::NotModified);
        ensure!(known, "the tag is not of its token");
        let tokens = self.google_tokens.access_token().await?;
        ensure!(tokens.token.len() == TOKEN_BYTES, "another length");
        let mut asking = Asking::new();
        self.azure.send(&mut asking).await?;
        ensure!(asking.header_bytes() == expected, "another length");
        Ok(())
    }

    /// What each of them hands out first.
    pub fn tokens(&self, c: &mut Criterion, runtime: &Runtime) {
        let mut group = c.benchmark_group(TOKEN);
        let mut handle = self.handle.clone();
        group.bench_function("keyfob, TokenHandle::get (borrow)", |b| {
            b.iter(|| black_box(&mut handle).get().is_ok());
        });
        let mut ticked = self.ticked_handle.clone();
        group.bench_function("keyfob, TokenHandle::get (borrow), ticked clock", |b| {
            b.iter(|| black_box(&mut ticked).get().is_ok());
        });
        group.bench_function("keyfob, TokenHandle::get and clone the Arc", |b| {
            b.iter(|| black_box(&mut handle).get().map(Arc::clone).ok());
        });
        let Ours {
            broker,
            caller,
            request,
        } = &self.ours;
        group.bench_function("keyfob, Broker::with_token, by key (borrow)", |b| {
            b.iter(|| broker.with_token(caller, black_box(request), |token, _| token.generation()));
        });
        let ticked = &self.ticked.broker;
        group.bench_function(
            "keyfob, Broker::with_token, by key (borrow), ticked clock",
            |b| {
                b.iter(|| {
                    ticked.with_token(caller, black_box(request), |token, _| token.generation())
                });
            },
        );
        group.bench_function("keyfob, Broker::token, by key", |b| {
            b.to_async(runtime)
                .iter(async || broker.token(caller, black_box(request)).await);
        });
        group.bench_function("huskarl, token", |b| {
            b.to_async(runtime).iter(|| self.huskarl.token());
        });
        group.bench_function("google-cloud-auth, access_token", |b| {
            b.to_async(runtime)
                .iter(|| self.google_tokens.access_token());
        });
        group.bench_function("aws-smithy-runtime, identity", |b| {
            b.to_async(runtime).iter(|| self.aws.identity());
        });
        group.finish();
    }

    /// What a caller needs who sends a request.
    pub fn headers(&self, c: &mut Criterion, runtime: &Runtime) {
        let mut group = c.benchmark_group(HEADER);
        let mut handle = self.handle.clone();
        group.bench_function("keyfob, TokenHandle::get and clone the header", |b| {
            b.iter(|| {
                let token = black_box(&mut handle).get();
                token.map(|token| token.header().clone()).ok()
            });
        });
        group.bench_function("keyfob, the same in a HeaderMap of its own", |b| {
            b.iter(|| {
                let token = black_box(&mut handle).get();
                token.map(|token| map(token.header().clone())).ok()
            });
        });
        let Ours {
            broker,
            caller,
            request,
        } = &self.ours;
        group.bench_function("keyfob, Broker::with_token, by key, header cloned", |b| {
            b.iter(|| {
                let request = black_box(request);
                broker.with_token(caller, request, |token, _| token.header().clone())
            });
        });
        group.bench_function("keyfob, Broker::token, by key, header cloned", |b| {
            b.to_async(runtime).iter(async || {
                let issued = broker.token(caller, black_box(request)).await;
                issued.map(|issued| issued.token.header().clone())
            });
        });
        group.bench_function("keyfob, by key, in a HeaderMap of its own", |b| {
            b.to_async(runtime).iter(async || {
                let issued = broker.token(caller, black_box(request)).await;
                issued.map(|issued| map(issued.token.header().clone()))
            });
        });
        let uri = uri();
        group.bench_function("huskarl, get_headers", |b| {
            b.to_async(runtime)
                .iter(|| self.authorizer.get_headers(&Method::GET, &uri));
        });
        group.bench_function("google-cloud-auth, headers", |b| {
            b.to_async(runtime)
                .iter(|| self.google.headers(Extensions::new()));
        });
        group.bench_function("google-cloud-auth, headers, unmodified since", |b| {
            b.to_async(runtime)
                .iter(|| self.google.headers(self.unmodified_since()));
        });
        group.bench_function("aws-smithy-runtime, identity and a header of it", |b| {
            b.to_async(runtime).iter(|| self.aws.header());
        });
        group.bench_function("azure_core, policy (transport included)", |b| {
            b.to_async(runtime).iter_custom(async |iterations| {
                let mut asking = Asking::new();
                timed(iterations, async || self.azure.send(&mut asking).await).await
            });
        });
        group.bench_function("azure_core, that transport alone", |b| {
            b.to_async(runtime).iter_custom(async |iterations| {
                let mut asking = Asking::new();
                timed(iterations, async || self.azure.send_bare(&mut asking).await).await
            });
        });
        group.finish();
    }

    fn unmodified_since(&self) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(self.google_tag.clone());
        extensions
    }

    pub fn two_threads(&self, c: &mut Criterion, runtime: &Runtime) {
        let mut group = c.benchmark_group(TWO);
        group.bench_function("keyfob, TokenHandle::get (borrow)", |b| {
            b.iter_custom(|iterations| {
                let (mut one, mut other) = (self.handle.clone(), self.handle.clone());
                pair::alike(
                    iterations,
                    move || assert!(black_box(&mut one).get().is_ok()),
                    move || assert!(black_box(&mut other).get().is_ok()),
                )
            });
        });
        let mut row = |name: &str, get: &(dyn Fn() -> bool + Sync)| {
            group.bench_function(name, |b| {
                b.iter_custom(|iterations| {
                    let get = || assert!(get(), "it is in memory");
                    pair::alike(iterations, get, get)
                });
            });
        };
        let Ours {
            broker,
            caller,
            request,
        } = &self.ours;
        row("keyfob, Broker::with_token, by key (borrow)", &|| {
            let read = broker.with_token(caller, black_box(request), |token, _| token.generation());
            read.is_some()
        });
        row("keyfob, Broker::token, by key", &|| {
            at_once(broker.token(caller, black_box(request))).is_ok()
        });
        row("huskarl, token", &|| at_once(self.huskarl.token()).is_ok());
        row("google-cloud-auth, access_token", &|| {
            at_once(self.google_tokens.access_token()).is_ok()
        });
        // It makes a timer before it looks; timers are made on a runtime.
        row("aws-smithy-runtime, identity (enters a runtime)", &|| {
            let _on = runtime.enter();
            at_once(self.aws.identity()).is_ok()
        });
        group.bench_function("azure_core, policy (transport included)", |b| {
            b.iter_custom(|iterations| {
                let (mut one, mut other) = (Asking::new(), Asking::new());
                pair::alike(
                    iterations,
                    || assert!(at_once(self.azure.send(&mut one)).is_ok()),
                    || assert!(at_once(self.azure.send(&mut other)).is_ok()),
                )
            });
        });
        group.finish();
    }
}

/// Gets its token, and a handle to it.
async fn warm(ours: Ours) -> Result<(Ours, TokenHandle)> {
    ours.broker.token(&ours.caller, &ours.request).await?;
    let handle = ours.broker.handle(&ours.caller, &ours.request).await?;
    Ok((ours, handle))
}

/// Nobody is there; it is never asked.
fn uri() -> Uri {
    Uri::from_static("https://127.0.0.1/")
}

/// What the libraries make for each request.
fn map(header: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, header);
    headers
}

/// What a future has that need not wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it is in memory")
}

/// A batch of what needs something of its own from one time to the next.
#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is time itself"
)]
async fn timed<T, E>(iterations: u64, mut get: impl AsyncFnMut() -> Result<T, E>) -> Duration {
    let start = std::time::Instant::now();
    for _ in 0..iterations {
        assert!(black_box(get().await).is_ok());
    }
    start.elapsed()
}
