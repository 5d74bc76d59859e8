//! One connection, over TCP or a Unix socket: bytes out, bytes in.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::servers::Address;

/// Room that is kept free for what comes: an answer of one token, and all but one of 32, come in one piece.
const ROOM_BYTES: usize = 16 * 1024;

/// A connection.
#[derive(Debug)]
pub enum Line {
    /// Sends what it is given without delay.
    Tcp(TcpStream),
    /// Over a path.
    Unix(UnixStream),
}

// === impl Line ===

impl Line {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody is there.
    pub async fn connect(address: &Address) -> Result<Self> {
        Ok(match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.with_context(|| address.to_string())?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Self::Unix(stream.with_context(|| path.display().to_string())?)
            }
        })
    }

    /// Sends all of it.
    ///
    /// # Errors
    ///
    /// When the connection ended.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await?,
            Self::Unix(stream) => stream.write_all(bytes).await?,
        }
        Ok(())
    }

    /// Appends what came.
    ///
    /// # Errors
    ///
    /// When the connection ended.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> Result<()> {
        into.reserve(ROOM_BYTES);
        let read = match self {
            Self::Tcp(stream) => stream.read_buf(into).await?,
            Self::Unix(stream) => stream.read_buf(into).await?,
        };
        ensure!(read > 0, "the server hung up");
        Ok(())
    }
}
