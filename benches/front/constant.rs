//! A server of hyper and tokio alone, as the daemon uses them, that reads a request and answers with as many bytes as it is
//! told to: what a request costs before anything is looked up. The suite `front` starts it.
//!
//! `constant ADDRESS SOCKET BYTES`

#![expect(
    clippy::disallowed_methods,
    reason = "it ends when it is killed, and waits for nobody"
)]

use std::convert::Infallible;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &'static str| arguments.next().context(what);
    let (address, socket) = (next("an address")?, next("a socket's path")?);
    let bytes = next("how many bytes")?.parse().context("how many bytes")?;
    let answer = Bytes::from("h".repeat(bytes));
    let tcp = TcpListener::bind(&address).await.context(address)?;
    let unix = UnixListener::bind(&socket).context(socket)?;
    loop {
        tokio::select! {
            accepted = tcp.accept() => {
                let (io, _) = accepted?;
                io.set_nodelay(true)?;
                tokio::spawn(serve(io, answer.clone()));
            }
            accepted = unix.accept() => {
                tokio::spawn(serve(accepted?.0, answer.clone()));
            }
        }
    }
}

async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, answer: Bytes) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(told(request, answer).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    // How a connection ended concerns its client.
    let _ = connection.await;
}

/// Reads all that was asked, and answers.
async fn told(request: Request<Incoming>, answer: Bytes) -> Response<Full<Bytes>> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(answer));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
