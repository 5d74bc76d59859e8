//! Sockets to listen on. A Unix socket appears under its name with its permissions already set, replaces one that a
//! dead process left behind, and never one that is answered.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::daemon::config::Listen;

/// Who may connect to a Unix socket: its owner and its group. Keys are asked for besides, where callers have keys.
const SOCKET_MODE: u32 = 0o660;
/// The longest text that is added to the name of a socket while it is being made: a dot and a process id.
pub(in crate::daemon) const BIND_SUFFIX_MAX_BYTES: usize = 11;

/// A socket that listens.
pub enum Listener {
    /// On TCP.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener, SocketFile),
}

/// A socket's file; removed on drop, unless somebody else has replaced it.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode when it was made.
    identity: (u64, u64),
}

// === impl Listener ===

impl Listener {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// The system's, with the address in its words.
    pub async fn bind(address: &Listen) -> io::Result<Self> {
        let explained = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        match address {
            Listen::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .map_err(explained),
            Listen::Unix(path) => bind_unix(path).map_err(explained),
        }
    }

    /// Where it listens; with the port that the system chose.
    pub fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(_, file) => Ok(Listen::Unix(file.path.clone())),
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    make_way(path)?;
    // Bound under a private name, then renamed: there is no moment at which others could connect to it, and none at
    // which the name is missing.
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(private);
    let _ = fs::remove_file(&private);
    let made = UnixListener::bind(&private).and_then(|listener| {
        fs::set_permissions(&private, fs::Permissions::from_mode(SOCKET_MODE))?;
        let found = fs::symlink_metadata(&private)?;
        fs::rename(&private, path)?;
        let identity = (found.dev(), found.ino());
        Ok(Listener::Unix(
            listener,
            SocketFile {
                path: path.to_owned(),
                identity,
            },
        ))
    });
    if made.is_err() {
        let _ = fs::remove_file(&private);
    }
    made
}

/// Makes sure that nothing of value is at this path.
fn make_way(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is no socket",
        ));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process answers there",
        )),
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Ok(address) => write!(f, "Listener({address})"),
            Err(_) => f.write_str("Listener"),
        }
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.sock");
        let address = Listen::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead process leaves its socket behind");

        let first = Listener::bind(&address).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let second = Listener::bind(&address).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert!(second.to_string().contains("k.sock"));
        drop(first);
        assert!(!path.exists(), "a listener tidies up");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(Listener::bind(&Listen::Unix(path.clone())).await.is_err());
        assert_eq!(fs::read_to_string(path).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_listener_does_not_remove_its_successors_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.sock");
        let first = Listener::bind(&Listen::Unix(path.clone())).await.unwrap();
        fs::remove_file(&path).unwrap();
        // Its own inode is still open, so the successor's cannot be the same.
        let _second = Listener::bind(&Listen::Unix(path.clone())).await.unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn port_zero_becomes_a_real_port() {
        let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let Listen::Tcp(address) = Listener::bind(&any).await.unwrap().address().unwrap() else {
            panic!("TCP stays TCP");
        };
        assert_ne!(address.port(), 0);
    }
}
