//! Accepts connections and serves them: bounds on how many there are and how long each may dawdle, and an end that
//! lets everybody finish.
//!
//! Ending goes in two steps. *Drain*: open connections finish what they are doing and close; new ones are still taken
//! and get one answer each, so that a health check reads "draining" and not "gone". *Stop*: nobody is taken any more.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::routing::Router;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

use super::answer::Reply;
use super::data::{self, Call};
use super::listen::Listener;
use super::{Front, Served};
use crate::daemon::authn::{Peer, San};

/// Open connections of one plane: each costs some tens of KiB at most; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a new connection may stay silent.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a head may take, and how long a connection may idle between two: longer than health checks are apart.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// The most headers of a request.
const HEADERS_MAX: usize = 64;
/// The largest head of a request.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How long to wait when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener and what it answers with.
pub struct Plane {
    /// `data` or `admin`.
    pub name: &'static str,
    /// Where connections come from.
    pub listener: Listener,
    /// What they get.
    pub served: Served,
}

/// Every open connection of the process, and how to end them.
#[derive(Clone, Default)]
pub struct Connections {
    tracker: TaskTracker,
    drain: CancellationToken,
    /// Set just before `drain` is: what every answer looks at without a lock.
    draining: Arc<AtomicBool>,
    stop: CancellationToken,
}

/// One connection, as each of its requests sees it.
struct Conversation {
    served: Served,
    peer: Peer,
    draining: Arc<AtomicBool>,
    /// Set by the first request.
    spoke: AtomicBool,
    /// Told of the first request.
    first: CancellationToken,
}

/// Runs what hyper spawns (HTTP/2 streams) under the tracker.
#[derive(Clone)]
struct Tracked(TaskTracker);

// === impl Connections ===

impl Connections {
    /// Accepts connections of a plane until [`Connections::finish`] is through or [`Connections::stop`] is called.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops accepting; open connections go on.
    pub async fn accept(&self, plane: &Plane, front: &Arc<Front>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accept = async {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else {
                    return;
                };
                let accepted = match &plane.listener {
                    Listener::Tcp(listener) => {
                        listener.accept().await.map(|(io, _)| Accepted::Tcp(io))
                    }
                    Listener::Unix(listener, _) => {
                        listener.accept().await.map(|(io, _)| Accepted::Unix(io))
                    }
                };
                match accepted {
                    Ok(accepted) => {
                        let connection =
                            self.clone()
                                .serve(accepted, plane.served.clone(), front.clone());
                        self.tracker.spawn(async move {
                            connection.await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        front.notice("accept_failed", format!("{} plane: {error}", plane.name));
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Lets open connections finish, at most this long; then nobody is accepted any more. True when all finished.
    ///
    /// # Cancel safety
    ///
    /// Draining cannot be taken back; dropping this only stops the waiting.
    pub async fn finish(&self, within: Duration) -> bool {
        self.draining.store(true, Ordering::Release);
        self.drain.cancel();
        self.tracker.close();
        let finished = tokio::time::timeout(within, self.tracker.wait())
            .await
            .is_ok();
        self.stop.cancel();
        finished
    }

    /// Accepts nobody any more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    async fn serve(self, accepted: Accepted, served: Served, front: Arc<Front>) {
        match accepted {
            Accepted::Unix(io) => {
                let uid = io.peer_cred().ok().map(|peer| peer.uid());
                let names = Arc::default();
                self.serve_http(io, Peer { uid, names }, served).await;
            }
            Accepted::Tcp(io) => {
                // Answers are small and written whole: waiting to fill a packet would only delay them.
                let _ = io.set_nodelay(true);
                let Some(tls) = front.live().tls.clone() else {
                    return self.serve_http(io, Peer::default(), served).await;
                };
                let handshake = TlsAcceptor::from(tls).accept(io);
                let Ok(Ok(io)) = tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await else {
                    return;
                };
                let certificate = io
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(<[CertificateDer<'_>]>::first);
                let names = certificate
                    .map(|certificate| San::all_of(certificate))
                    .unwrap_or_default();
                self.serve_http(io, Peer { uid: None, names }, served).await;
            }
        }
    }

    async fn serve_http<IO>(self, io: IO, peer: Peer, served: Served)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let late = self.draining.load(Ordering::Acquire);
        let conversation = Arc::new(Conversation {
            served,
            peer,
            draining: self.draining.clone(),
            spoke: AtomicBool::new(false),
            first: CancellationToken::new(),
        });
        let service = service_fn(|request: Request<Incoming>| {
            let span = tracing::debug_span!("http", method = %request.method(), path = request.uri().path());
            let conversation = conversation.clone();
            let answer = async move { Ok::<_, Infallible>(conversation.answer(request).await) };
            answer.instrument(span)
        });
        let mut http = auto::Builder::new(Tracked(self.tracker.clone()));
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD_WITHIN)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX));
        let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
        let silent = async {
            // Until hyper knows which HTTP it speaks, none of its own timeouts runs.
            tokio::time::sleep(FIRST_REQUEST_WITHIN).await;
            if conversation.spoke.load(Ordering::Acquire) {
                std::future::pending::<()>().await;
            }
        };
        let wind_down = async {
            self.drain.cancelled().await;
            if late {
                conversation.first.cancelled().await;
            }
        };
        tokio::select! {
            // How a connection ended concerns its client: whatever it asked has been answered or told above.
            _ = connection.as_mut() => return,
            () = silent => return,
            () = wind_down => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

// === impl Conversation ===

impl Conversation {
    async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        if !self.spoke.swap(true, Ordering::AcqRel) {
            self.first.cancel();
        }
        let one = request.version() < http::Version::HTTP_2;
        let mut response = match &self.served {
            // Nearly everything that a data plane is asked: the router would find the same function, and cost more than it.
            Served::Data(front, router) => match Call::of(request.method(), request.uri().path()) {
                Some(call) => {
                    let answer = data::answer(front, call, &self.peer, request).await;
                    answer.map(|body| Reply::Whole(Some(body)))
                }
                None => self.routed(router, request).await,
            },
            Served::Routed(router) => self.routed(router, request).await,
        };
        if one && self.draining.load(Ordering::Acquire) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    async fn routed(&self, router: &Router, request: Request<Incoming>) -> Response<Reply> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        match Box::pin(router.clone().oneshot(request)).await {
            Ok(response) => response.map(Reply::Routed),
            Err(never) => match never {},
        }
    }
}

/// A connection before anything was said.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

// === impl Tracked ===

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
