//! An issuer that takes its time, counts who comes, and fails when told to; and the request that peers make to it. It is no
//! part of what is measured: it has a thread of its own, and checks nothing.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cached::TOKEN_BYTES;

/// As many requests at once as the largest herd has callers, so that whoever lets them all through is not slowed down by us.
const STREAMS_MAX: u32 = 20_000;
/// As common issuers have it, and longer than any suite.
const LIFETIME_SECS: u64 = 3_600;
/// What every request says; nobody reads it.
const FORM: &[u8] = b"grant_type=client_credentials&client_id=svc&client_secret=correct-horse";

/// A token endpoint on loopback: whatever is asked, the answer is another token. Dropping it closes it.
pub struct Issuer {
    desk: Arc<Desk>,
    address: SocketAddr,
    /// Its thread ends when this is dropped.
    _open: oneshot::Sender<()>,
}

/// What the connections share.
struct Desk {
    takes: Duration,
    calls: AtomicU64,
    /// Of the next token; 0: as all others.
    next_secs: AtomicU64,
    failing: AtomicBool,
}

/// The cheapest way to it: one connection that stays, for any number of requests at once.
#[derive(Clone, Debug)]
pub struct Fetch {
    way: SendRequest<Full<Bytes>>,
    url: String,
}

/// A token as the issuer states it.
#[derive(Debug, Deserialize)]
pub struct Fetched {
    /// The token itself.
    #[serde(rename = "access_token")]
    pub token: String,
    /// How long it lives.
    pub expires_in: u64,
}

/// Why there is no token. Without a backtrace: a thousand of those would be measured too.
#[derive(Clone, Debug)]
pub struct Failed(String);

// === impl Issuer ===

impl Issuer {
    /// Each answer takes so long.
    ///
    /// # Errors
    ///
    /// When no socket or thread can be had.
    pub fn start(takes: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            takes,
            calls: AtomicU64::new(0),
            next_secs: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        });
        let (open, closed) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::clone(&desk);
        thread::Builder::new()
            .name("issuer".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, shared) => {}
                        _ = closed => {}
                    }
                });
            })?;
        Ok(Self {
            desk,
            address,
            _open: open,
        })
    }

    /// Where tokens are.
    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// How often it was asked.
    pub fn calls(&self) -> u64 {
        self.desk.calls.load(Ordering::SeqCst)
    }

    /// The next token lives for so many seconds, which is less than the others.
    pub fn next_lives(&self, secs: u64) {
        self.desk.next_secs.store(secs, Ordering::SeqCst);
    }

    /// Whether it answers 500 from now on.
    pub fn fail(&self, failing: bool) {
        self.desk.failing.store(failing, Ordering::SeqCst);
    }
}

// === impl Desk ===

impl Desk {
    async fn answer(&self) -> Response<Full<Bytes>> {
        let serial = self.calls.fetch_add(1, Ordering::SeqCst);
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        let (status, body) = if self.failing.load(Ordering::SeqCst) {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                r#"{"error":"server_error"}"#.to_owned(),
            )
        } else {
            let lifetime = match self.next_secs.swap(0, Ordering::SeqCst) {
                0 => LIFETIME_SECS,
                next => next,
            };
            let body = format!(
                r#"{{"access_token":"{serial:0>TOKEN_BYTES$}","token_type":"Bearer","expires_in":{lifetime}}}"#
            );
            (StatusCode::OK, body)
        };
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .header("cache-control", "no-store")
            .body(Full::new(body.into()))
            .expect("made of constants")
    }
}

async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("inside the runtime");
    let mut connections = JoinSet::new();
    loop {
        // What may fail here is a connection that its client gave up already.
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(STREAMS_MAX);
            let service = service_fn(|request: Request<Incoming>| {
                let desk = Arc::clone(&desk);
                async move {
                    // Read to the end first: a client that is still sending would see its connection broken.
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(desk.answer().await)
                }
            });
            // How a connection ends is its client's business.
            let _ = builder
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

// === impl Fetch ===

impl Fetch {
    /// Opens the connection; it lives as long as the runtime it was opened on.
    ///
    /// # Errors
    ///
    /// When there is no such issuer.
    #[expect(
        clippy::disallowed_methods,
        reason = "a suite has no tracker: its tasks end with its runtime"
    )]
    pub async fn connect(issuer: &Issuer) -> Result<Self> {
        let socket = tokio::net::TcpStream::connect(issuer.address).await?;
        let (way, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self {
            way,
            url: issuer.token_url(),
        })
    }

    /// Sends a request of somebody's own making.
    ///
    /// # Errors
    ///
    /// When no complete answer came back.
    pub async fn send(&self, request: Request<Bytes>) -> hyper::Result<Response<Bytes>> {
        let mut way = self.way.clone();
        way.ready().await?;
        let response = way.send_request(request.map(Full::new)).await?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(
            parts,
            body.collect().await?.to_bytes(),
        ))
    }

    /// Asks for a token.
    ///
    /// # Errors
    ///
    /// When the issuer fails.
    ///
    /// # Panics
    ///
    /// Never: the URL is good.
    pub async fn token(&self) -> Result<Fetched, Failed> {
        let request = Request::post(&self.url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from_static(FORM))
            .expect("a good URL");
        let response = self.send(request).await.map_err(Failed::new)?;
        if !response.status().is_success() {
            return Err(Failed::new(response.status()));
        }
        serde_json::from_slice(response.body()).map_err(Failed::new)
    }
}

// === impl Failed ===

impl Failed {
    /// Because of this.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the issuer: {}", self.0)
    }
}

impl std::error::Error for Failed {}

// === impl Fetched ===

impl Fetched {
    /// How long it lives.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.expires_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_call_is_counted_and_a_failing_issuer_fails() {
        let issuer = Issuer::start(Duration::ZERO).unwrap();
        issuer.next_lives(7);
        let fetch = Fetch::connect(&issuer).await.unwrap();
        let one = fetch.token().await.unwrap();
        let other = fetch.token().await.unwrap();
        assert_ne!(one.token, other.token);
        assert_eq!((one.token.len(), one.expires_in), (TOKEN_BYTES, 7));
        assert_eq!(other.expires_in, LIFETIME_SECS);
        issuer.fail(true);
        assert!(fetch.token().await.is_err());
        assert_eq!(issuer.calls(), 3);
    }
}
