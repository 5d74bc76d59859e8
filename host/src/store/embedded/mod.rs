//! The store in a file of this machine, on redb. Here is the store as others see it; `open` has what is refused, `tables`
//! what is read, `rows` what is written, `writer` the thread that does, `live` the database and its faults, `untouched` a
//! file that is only looked at. The engine's types stay in this folder.
//!
//! Answered is durable: a commit is answered once the disk has it. The format is described in `docs/store.md`.

mod live;
mod open;
mod rows;
mod tables;
mod untouched;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use redb::ReadTransaction;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::live::Live;
use self::open::Engine;
pub use self::open::OpenError;
use self::tables::Fault;
use self::writer::{Request, Work};
pub use super::sealing::KeyId;
use super::sealing::SealingKey;
use super::vault::Vault;
use super::{CommitFault, KeptPlugin, Store, Stored, Unreachable};
use crate::model::contract::BoxFuture;
use crate::model::credential::{Credential, Version};
use crate::model::key::CredentialKey;
use crate::model::secret::Secret;

/// How many threads read at once. A read that misses the cache waits for the disk; more of them would not make it faster,
/// and would take the threads that compile plugins.
const READING_MAX: usize = 8;

/// Keeps credentials and plugins in a file that this process owns, sealed.
pub struct EmbeddedStore {
    live: Arc<Live>,
    /// Bounds the blocking threads that read.
    reading: Arc<Semaphore>,
    /// To the thread that writes. None only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    fingerprints: Option<Secret<[u8; 32]>>,
}

// === impl EmbeddedStore ===

impl EmbeddedStore {
    /// The store in the file at `path`, made if there is none. `sealing_key` is 32 bytes of base64.
    ///
    /// Blocks while it reads: a file of up to 64 MiB whole, a longer one hardly at all.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what to do. A file that is refused has not been written to.
    pub fn open(path: &Path, sealing_key: &Secret<String>) -> Result<Self, OpenError> {
        Self::open_with(
            path,
            sealing_key,
            open::CHECKED_AT_OPEN_MAX_BYTES,
            Box::new(open::database),
        )
    }

    fn open_with(
        path: &Path,
        sealing_key: &Secret<String>,
        checked_max_bytes: u64,
        engine: Engine,
    ) -> Result<Self, OpenError> {
        let opened = open::open(path, sealing_key, checked_max_bytes, &engine)?;
        let live = Arc::new(Live::new(path.into(), opened, engine));
        let (requests, writer) = writer::start(live.clone())
            .map_err(|error| OpenError::System(path.into(), error.to_string()))?;
        let reading = Arc::new(Semaphore::new(READING_MAX));
        Ok(Self {
            live,
            reading,
            requests: Some(requests),
            writer: Some(writer),
            fingerprints: SealingKey::parse(sealing_key)
                .ok()
                .map(|key| key.fingerprints),
        })
    }

    /// Reads every row and compares them with the ledger; answers how many there are. Rows that were changed, removed or
    /// put back by hand are found here even where no single row shows it. Commits go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] says what is wrong.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing; dropped, the reading goes on unheard.
    pub async fn verify(&self) -> Result<u64, Unreachable> {
        self.read(tables::verify).await
    }

    /// Does `work` on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&ReadTransaction, &Vault) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Unreachable> {
        let turn = self.reading.clone().acquire_owned().await;
        let turn = turn.map_err(|_| self.closed())?;
        let live = self.live.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Given back by the thread: a caller that left does not make room for one more.
            let _turn = turn;
            live.read(work).map_err(|fault| live.unreachable(fault))
        });
        done.await.map_err(|_| self.closed())?
    }

    /// Has the writer do `work`.
    async fn write(&self, work: Work) -> Result<Version, CommitFault> {
        let closed = || CommitFault::from(self.closed());
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        requests
            .send(Request { work, answer })
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    fn closed(&self) -> Unreachable {
        self.live.unreachable("it is closed")
    }
}

impl Store for EmbeddedStore {
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>> {
        let key = key.clone();
        Box::pin(self.read(move |read, vault| tables::load(read, vault, &key)))
    }

    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>> {
        Box::pin(self.write(Work::Commit(key.clone(), expected, Box::new(credential))))
    }

    fn keys(&self, limit: usize) -> BoxFuture<'_, Result<Vec<CredentialKey>, Unreachable>> {
        Box::pin(self.read(move |read, vault| tables::keys(read, vault, limit)))
    }

    fn keep_plugin<'a>(
        &'a self,
        place: &'a str,
        plugin: Option<KeptPlugin>,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            match self.write(Work::KeepPlugin(place.to_owned(), plugin)).await {
                Ok(_) => Ok(()),
                Err(CommitFault::Unreachable(detail)) => Err(Unreachable(detail)),
                Err(CommitFault::Conflict) => {
                    Err(self.live.unreachable("a plugin has no version to miss"))
                }
            }
        })
    }

    fn plugins(&self) -> BoxFuture<'_, Result<Vec<(String, KeptPlugin)>, Unreachable>> {
        Box::pin(self.read(tables::plugins))
    }

    fn fingerprint_key(&self) -> Option<Secret<[u8; 32]>> {
        self.fingerprints.clone()
    }

    fn durable(&self) -> bool {
        true
    }
}

impl Drop for EmbeddedStore {
    /// Waits until what was accepted is written: afterwards the file is free for the next owner.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.live.fmt(f)
    }
}

#[cfg(test)]
mod tests;
