//! Accepts connections and serves them: bounds on how many there are and how long each may dawdle, and an end that
//! lets everybody finish.
//!
//! Ending goes in two steps. *Drain*: open connections finish what they are doing and close; new ones are still taken
//! and get one answer each, so that a health check reads "draining" and not "gone". *Stop*: nobody is taken any more.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
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
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

use super::data::{self, Call};
use super::listen::Listener;
use super::reply::{Content, Reply};
use super::{Front, Served};
use crate::daemon::authn::{Peer, San};

/// Open connections of one plane: each costs some tens of KiB at most; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How often a connection is looked at for a sign of life, and how long a new one may stay silent.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks in a row without one after which it is closed: a head takes, or a connection idles between two, 30 s or up to
/// one look longer. That is longer than health checks are apart.
const QUIET_LOOKS_MAX: u32 = 3;
/// How often an HTTP/2 client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
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
    /// Told of the first request.
    first: CancellationToken,
    /// The first request came.
    spoke: AtomicBool,
    /// A request came since somebody looked.
    asked: AtomicBool,
    /// It is HTTP/2, which has signs of life of its own.
    pinged: AtomicBool,
    /// Answers that are being made or sent.
    open: AtomicUsize,
}

/// An answer that is being made or sent.
struct Open(Arc<Conversation>);

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
            first: CancellationToken::new(),
            spoke: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            pinged: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let service = service_fn(|request: Request<Incoming>| {
            let span = tracing::debug_span!("http", method = %request.method(), path = request.uri().path());
            let open = Open::new(&conversation);
            let answer = async move { Ok::<_, Infallible>(open.answer(request).await) };
            answer.instrument(span)
        });
        let mut http = auto::Builder::new(Tracked(self.tracker.clone()));
        // Heads and idle connections are timed below: a timer set for each request costs more than finding a token.
        http.http1()
            .header_read_timeout(None)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX));
        let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
        let mut look = pin!(tokio::time::sleep(LOOK_EVERY));
        let mut wind_down = pin!(async {
            self.drain.cancelled().await;
            if late {
                conversation.first.cancelled().await;
            }
        });
        let (mut quiet_looks, mut waiting, mut winding_down) = (0, false, false);
        poll_fn(|context| {
            // Both wake this task, which is the same one each time, and say by a word that they did: asking them each time
            // that a request wakes it would take a lock each time.
            while (!waiting || look.is_elapsed()) && look.as_mut().poll(context).is_ready() {
                if !conversation.goes_on(&mut quiet_looks) {
                    return Poll::Ready(());
                }
                look.as_mut().reset(Instant::now() + LOOK_EVERY);
                waiting = false;
            }
            let draining = conversation.draining.load(Ordering::Acquire);
            if (!waiting || draining) && !winding_down {
                winding_down = wind_down.as_mut().poll(context).is_ready();
                if winding_down {
                    connection.as_mut().graceful_shutdown();
                }
            }
            waiting = true;
            // How a connection ended concerns its client: whatever it asked has been answered or told above.
            connection.as_mut().poll(context).map(drop)
        })
        .await;
    }
}

// === impl Conversation ===

impl Conversation {
    /// Looks for a sign of life since the last look.
    fn goes_on(&self, quiet_looks: &mut u32) -> bool {
        // HTTP/2 asks its client by itself; until the first request nobody knows which HTTP it is.
        let alive = self.asked.swap(false, Ordering::AcqRel)
            || self.open.load(Ordering::Acquire) > 0
            || self.pinged.load(Ordering::Acquire);
        *quiet_looks = if alive { 0 } else { *quiet_looks + 1 };
        *quiet_looks < QUIET_LOOKS_MAX && self.spoke.load(Ordering::Acquire)
    }

    /// Notes that a request came.
    fn heard(&self, version: http::Version) {
        self.asked.store(true, Ordering::Release);
        if !self.spoke.load(Ordering::Acquire) {
            let pinged = version >= http::Version::HTTP_2;
            self.pinged.store(pinged, Ordering::Release);
            self.spoke.store(true, Ordering::Release);
            self.first.cancel();
        }
    }

    async fn routed(&self, router: &Router, request: Request<Incoming>) -> Response<Content> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        // On the heap, so that the future of the usual call is small.
        match Box::pin(router.clone().oneshot(request)).await {
            Ok(response) => response.map(Content::Routed),
            Err(never) => match never {},
        }
    }
}

// === impl Open ===

impl Open {
    fn new(conversation: &Arc<Conversation>) -> Self {
        conversation.open.fetch_add(1, Ordering::AcqRel);
        Self(conversation.clone())
    }

    /// Answers a request; what is returned keeps the connection open until it was sent.
    async fn answer(self, request: Request<Incoming>) -> Response<Reply<Self>> {
        let version = request.version();
        self.0.heard(version);
        let mut response = match &self.0.served {
            // Nearly everything that a data plane is asked. The router would find the same function, and cost more than it.
            Served::Data(front, router) => match Call::of(request.method(), request.uri().path()) {
                Some(call) => {
                    let answer = data::answer(front, call, &self.0.peer, request).await;
                    answer.map(|body| Content::Whole(Some(body)))
                }
                None => self.0.routed(router, request).await,
            },
            Served::Routed(router) => self.0.routed(router, request).await,
        };
        if version < http::Version::HTTP_2 && self.0.draining.load(Ordering::Acquire) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response.map(|content| Reply::new(content, self))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
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
