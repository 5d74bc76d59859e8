//! A server that speaks bytes: for what no well-behaved HTTP server would say.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the server says to a connection.
#[derive(Clone)]
pub enum Say {
    /// Nothing, and keep it open.
    Nothing,
    /// To the first request on a connection this, to every later one the end.
    Once(String),
    /// This, over and over, until the client has enough.
    Forever(String),
}

/// A server on loopback that notes the first line of every request. Ends when dropped.
pub struct RawServer {
    /// Where it listens.
    pub address: SocketAddr,
    lines: watch::Sender<Vec<String>>,
    _tasks: JoinSet<()>,
}

impl RawServer {
    /// Starts.
    pub async fn start(say: Say) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let lines = watch::Sender::new(Vec::new());
        let mut tasks = JoinSet::new();
        let noted = lines.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, say.clone(), noted.clone()));
            }
        });
        Ok(Self {
            address,
            lines,
            _tasks: tasks,
        })
    }

    /// The first lines of the requests so far; `TLS` for a handshake.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Waits until this many requests arrived.
    pub async fn wait_for(&self, count: usize) {
        let mut lines = self.lines.subscribe();
        // The sender is `self.lines`, which outlives this borrow: waiting cannot fail.
        let _ = lines.wait_for(|lines| lines.len() >= count).await;
    }
}

async fn serve(mut stream: TcpStream, say: Say, lines: watch::Sender<Vec<String>>) {
    for request in 0.. {
        let Some(line) = read_request(&mut stream).await else {
            return;
        };
        lines.send_modify(|lines| lines.push(line));
        match &say {
            Say::Nothing => std::future::pending().await,
            Say::Once(text) if request == 0 => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
                // An answer without a length ends with the connection.
                if !text.to_ascii_lowercase().contains("content-length") {
                    return;
                }
            }
            Say::Once(_) => return,
            Say::Forever(text) => while stream.write_all(text.as_bytes()).await.is_ok() {},
        }
    }
}

/// The first line of a request whose head and announced body have arrived; bytes that are no HTTP count as they come.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        if bytes[0] == 0x16 {
            return Some("TLS".to_owned());
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| {
                rest.lines()
                    .next()
                    .and_then(|digits| digits.parse().ok())
                    .unwrap_or(0)
            });
        if body.len() >= length {
            return head.lines().next().map(str::to_owned);
        }
    }
}
