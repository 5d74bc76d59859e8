//! The sockets: accepting, refusing, and answers that go wrong on purpose.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::behaviour::Behaviour;
use super::endpoints::{self, Asked, Plain};

/// Connections waiting to be accepted: a stampede of a thousand callers must not meet a full queue.
const BACKLOG: u32 = 1024;
/// The largest request; token requests are a few KiB.
const REQUEST_MAX_BYTES: usize = 64 * 1024;
/// Before trying again when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Asks the acceptor to refuse connections or to take them again, and to say when it is so.
pub(super) type Refusing = (bool, oneshot::Sender<()>);

/// Where the issuer listens. `holder` is bound and never listens: it keeps the port while connections are refused.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    holder: TcpSocket,
    listener: TcpListener,
}

/// Notes in the ledger, when it is dropped, that an answer is out.
struct Answered(Arc<Shared>);

/// The request ends without an answer.
#[derive(Debug)]
struct Dropped;

// === impl Door ===

impl Door {
    pub(super) fn open() -> io::Result<Self> {
        let holder = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = holder.local_addr()?;
        Ok(Self {
            address,
            listener: bind(address)?.listen(BACKLOG)?,
            holder,
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts until told to stop.
pub(super) async fn accept(
    door: Door,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    mut refusing: mpsc::Receiver<Refusing>,
    stop: CancellationToken,
) {
    let Door {
        address,
        holder: _holder,
        listener,
    } = door;
    let mut listener = Some(listener);
    let mut era = stop.child_token();
    let mut connections = 0;
    loop {
        let accepting = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some((refuse, done)) = refusing.recv() => {
                if refuse {
                    listener = None;
                    era.cancel();
                    era = stop.child_token();
                } else if listener.is_none() {
                    listener = bind(address).and_then(|socket| socket.listen(BACKLOG)).ok();
                }
                // Whoever asked may have left.
                let _ = done.send(());
                continue;
            }
            accepted = accepting => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections += 1;
        let (shared, tls, era, number) = (shared.clone(), tls.clone(), era.clone(), connections);
        let tracker = shared.tracker.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = era.cancelled() => {}
                () = connection(stream, tls, shared, number) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>, number: u64) {
    let (stream, certificate) = match tls {
        None => (Either::Left(stream), false),
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => {
                let certificate = stream.get_ref().1.peer_certificates().is_some();
                (Either::Right(stream), certificate)
            }
            Err(_) => return,
        },
    };
    let reset = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, reset) = (shared.clone(), reset.clone());
        Box::pin(async move { answer(&shared, request, number, certificate, &reset).await })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // How it ends is the client's affair, or a behaviour's.
    let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    shared.ledger.left(number, shared.clock.now());
    let stream = connection.into_parts().io.into_inner();
    if reset.load(Ordering::Relaxed) {
        let socket = match &stream {
            Either::Left(socket) => socket,
            Either::Right(tls) => tls.get_ref().0,
        };
        // Without lingering, closing is a reset. Where that fails it is an early end, which is as good.
        let _ = socket.set_zero_linger();
    }
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    connection: u64,
    certificate: bool,
    reset: &AtomicBool,
) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, REQUEST_MAX_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(whole(Plain::empty(StatusCode::PAYLOAD_TOO_LARGE))),
    };
    let asked = Asked {
        method: &head.method,
        uri: &head.uri,
        headers: &head.headers,
        body: &body,
        connection,
        certificate,
    };
    let path = head.uri.path();
    match path {
        "/resource" => return Ok(whole(endpoints::resource(shared, &asked))),
        "/token" | "/revoke" => {}
        _ => return Ok(whole(Plain::empty(StatusCode::NOT_FOUND))),
    }
    let (pause, behaviour) = match shared.script.take() {
        Behaviour::After(pause, inner) => (pause, *inner),
        behaviour => (Duration::ZERO, behaviour),
    };
    let (label, process) = (behaviour.label(), behaviour.processes());
    let honest = if path == "/revoke" {
        endpoints::revoke(shared, &asked, label, process)
    } else {
        let life = match behaviour {
            Behaviour::Lifetime(life) => Some(life),
            _ => None,
        };
        endpoints::token(shared, &asked, life, label, process)
    };
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let answer = spoil(behaviour, honest, reset).await?;
    let told = Answered(shared.clone());
    Ok(answer.map(|body| {
        // The connection drops the body, and this with it, once it has taken the last byte.
        body.map_err(move |error| {
            let _told = &told;
            error
        })
        .boxed_unsync()
    }))
}

/// Turns an honest answer into what the behaviour makes of it.
async fn spoil(
    behaviour: Behaviour,
    honest: Plain,
    reset: &AtomicBool,
) -> Result<Response<Body>, Dropped> {
    let html = HeaderValue::from_static("text/html");
    let plain = HeaderValue::from_static("text/plain");
    let json = HeaderValue::from_static("application/json");
    Ok(match behaviour {
        Behaviour::Normal | Behaviour::Lifetime(_) => whole(honest),
        // One inside the other is waited for once: `answer` took the outer one off.
        Behaviour::Latency(span) | Behaviour::After(span, _) => {
            tokio::time::sleep(span).await;
            whole(honest)
        }
        Behaviour::Status(status) => whole(Plain::text(code(status), plain, "no")),
        Behaviour::Refuse(error) => whole(Plain::json(
            StatusCode::BAD_REQUEST,
            &serde_json::json!({ "error": error }),
        )),
        Behaviour::RateLimited { retry_after } => {
            let mut limited = Plain::text(StatusCode::TOO_MANY_REQUESTS, plain, "slower");
            if let Ok(value) = HeaderValue::from_str(&retry_after) {
                limited.headers.insert(header::RETRY_AFTER, value);
            }
            whole(limited)
        }
        Behaviour::EmptyOk => whole(Plain::text(StatusCode::OK, json, "")),
        Behaviour::Html => whole(Plain::text(
            StatusCode::OK,
            html,
            "<!doctype html><title>Maintenance</title>",
        )),
        Behaviour::WrongTypes => whole(Plain::text(
            StatusCode::OK,
            json,
            r#"{"access_token":{"value":7},"token_type":["Bearer"],"expires_in":"soon","scope":9}"#,
        )),
        Behaviour::TruncatedBody => {
            let half = Bytes::copy_from_slice(&honest.body[..honest.body.len() / 2]);
            // The pause lets the half leave: an error in the same breath would swallow it.
            let cut = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            });
            streamed(honest, stream::once(async { Ok(half) }).chain(cut))
        }
        Behaviour::ResetAfterRequest => {
            reset.store(true, Ordering::Relaxed);
            return Err(Dropped);
        }
        Behaviour::Drip(pause) => {
            let bytes = honest.body.clone();
            let drops = stream::iter(bytes).then(move |byte| async move {
                tokio::time::sleep(pause).await;
                Ok(Bytes::copy_from_slice(&[byte]))
            });
            streamed(honest, drops)
        }
        Behaviour::Oversize(size) => whole(Plain::text(StatusCode::OK, json, vec![b' '; size])),
        Behaviour::Redirect(url) => {
            let mut moved = Plain::empty(StatusCode::TEMPORARY_REDIRECT);
            if let Ok(value) = HeaderValue::from_str(&url) {
                moved.headers.insert(header::LOCATION, value);
            }
            whole(moved)
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Custom {
            status,
            content_type,
            body,
        } => {
            let content_type = HeaderValue::from_str(&content_type).unwrap_or(plain);
            whole(Plain::text(code(status), content_type, body))
        }
    })
}

/// A status as it was asked for; nonsense becomes 500.
fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn whole(answer: Plain) -> Response<Body> {
    let Plain {
        status,
        headers,
        body,
    } = answer;
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Announces the whole body, then sends what the stream gives.
fn streamed(
    answer: Plain,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let length = answer.body.len();
    let mut response = whole(Plain {
        body: Vec::new(),
        ..answer
    });
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() = StreamBody::new(body.map(|chunk| chunk.map(Frame::data))).boxed_unsync();
    response
}

// === impl Answered ===

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.ledger.answered();
    }
}

// === impl Dropped ===

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped on purpose")
    }
}

impl std::error::Error for Dropped {}
