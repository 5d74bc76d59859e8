//! The store in a file of this machine, on redb. Here is the store as others see it; `open` has what is refused, `tables`,
//! `tokens` and `logs` what is read, `rows` what is written, `writer` the thread that does, `journal` what a kill must not take
//! along meanwhile, `live` the database and its faults, `upkeep` and `rewrite` what is done to the file as a whole, `untouched` a file that is only looked at. The engine's
//! types stay in this folder.
//!
//! Answered is durable: a commit is answered once the disk has it. The format is described in `docs/store.md`.

mod journal;
mod live;
mod logs;
mod open;
mod rewrite;
mod rows;
mod tables;
mod tokens;
mod untouched;
mod upkeep;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::ReadTransaction;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::journal::{Journal, Noted};
use self::live::Live;
use self::open::Engine;
pub use self::open::OpenError;
use self::tables::Fault;
use self::writer::{Request, Work};
use super::lease::Leases;
pub use super::sealing::KeyId;
use super::sealing::SealingKey;
use super::vault::Vault;
use super::{
    CommitFault, KeptPlugin, Lease, Owner, Page, Revocation, RowChange, Since, Store, Stored,
    TokenRecord, Unreachable, Upkeep,
};
use crate::model::contract::BoxFuture;
use crate::model::credential::{Credential, Version};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;

/// How many threads read at once. A read that misses the cache waits for the disk; more of them would not make it faster,
/// and would take the threads that compile plugins.
const READING_MAX: usize = 8;

/// Whether a text is 32 bytes of base64, as a sealing key must be.
pub fn is_sealing_key(text: &Secret<String>) -> bool {
    SealingKey::parse(text).is_ok()
}

/// Keeps credentials and plugins in a file that this process owns, sealed.
pub struct EmbeddedStore {
    /// Before the database: its file goes while the store's is still owned, or it would be the next owner's that went.
    journal: Arc<Journal>,
    live: Arc<Live>,
    /// Bounds the blocking threads that read.
    reading: Arc<Semaphore>,
    /// To the thread that writes. None only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    /// The file has one owner, so its leases are this process's.
    leases: Leases,
    /// The keys, to note commits with: those that the operator's key seals stay the same when that is replaced.
    vault: Arc<Vault>,
    fingerprints: Secret<[u8; 32]>,
    /// Whether all of it was read and compared when it was opened.
    whole: bool,
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
        let (fingerprints, whole) = (opened.vault.fingerprints().clone(), opened.whole);
        let (vault, journal) = (opened.vault.clone(), Journal::new(path));
        let live = Arc::new(Live::new(path.into(), opened, engine));
        let (requests, writer) = writer::start(live.clone())
            .map_err(|error| OpenError::System(path.into(), error.to_string()))?;
        let reading = Arc::new(Semaphore::new(READING_MAX));
        Ok(Self {
            journal,
            live,
            reading,
            requests: Some(requests),
            writer: Some(writer),
            leases: Leases::default(),
            vault,
            fingerprints,
            whole,
        })
    }

    /// The store in the file at `path`, sealed with either of two keys: while one takes the place of the other, a start must
    /// not depend on whether that happened yet.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedStore::open`]; a file that neither opens is refused as sealed with another than the first.
    pub fn open_with_either(
        path: &Path,
        sealing_key: &Secret<String>,
        next: &Secret<String>,
    ) -> Result<Self, OpenError> {
        match Self::open(path, sealing_key) {
            Err(refusal @ OpenError::WrongSealingKey { .. }) => {
                Self::open(path, next).map_err(|other| match other {
                    OpenError::WrongSealingKey { .. } => refusal,
                    other => other,
                })
            }
            opened => opened,
        }
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
    async fn write(&self, work: Work, noted: Option<Noted>) -> Result<Version, CommitFault> {
        let closed = || CommitFault::from(self.closed());
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        requests
            .send(Request {
                work,
                answer,
                noted,
            })
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Has the writer do what no version gates.
    async fn write_unversioned(&self, work: Work) -> Result<Version, Unreachable> {
        self.write(work, None).await.map_err(|fault| match fault {
            CommitFault::Unreachable(detail) => Unreachable(detail),
            CommitFault::Conflict => self.live.unreachable("there was no version to miss"),
        })
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
        Box::pin(async move {
            let noted = self.journal.note(&self.vault, key, expected, &credential);
            let work = Work::Commit(key.clone(), expected, Box::new(credential));
            self.write(work, noted).await
        })
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a CredentialKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Unreachable>> {
        let after = after.cloned();
        Box::pin(self.read(move |read, vault| tables::scan(read, vault, after.as_ref(), limit)))
    }

    fn acquire<'a>(
        &'a self,
        key: &'a CredentialKey,
        owner: Owner,
        ttl: Duration,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, Unreachable>> {
        Box::pin(async move { Ok(self.leases.acquire(key, owner, ttl, now)) })
    }

    fn release<'a>(&'a self, key: &'a CredentialKey, owner: Owner) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.leases.release(key, owner) })
    }

    fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<RowChange>, Unreachable>> {
        Box::pin(self.read(move |read, vault| logs::changes(read, vault, after, limit)))
    }

    fn revocations(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<Revocation>, Unreachable>> {
        Box::pin(self.read(move |read, vault| logs::revocations(read, vault, after, limit)))
    }

    fn load_token<'a>(
        &'a self,
        key: &'a TokenKey,
    ) -> BoxFuture<'a, Result<Option<TokenRecord>, Unreachable>> {
        let key = key.clone();
        Box::pin(self.read(move |read, vault| tokens::load(read, vault, &key)))
    }

    fn keep_token<'a>(
        &'a self,
        key: &'a TokenKey,
        record: TokenRecord,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        let work = Work::KeepToken(Box::new((key.clone(), record)));
        Box::pin(async move { self.write_unversioned(work).await.map(drop) })
    }

    fn forget_tokens(
        &self,
        before: UnixTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, Unreachable>> {
        Box::pin(async move {
            let work = Work::ForgetTokens(before, limit);
            let forgotten = self.write_unversioned(work).await?;
            Ok(usize::try_from(forgotten.0).unwrap_or(limit))
        })
    }

    fn keep_plugin<'a>(
        &'a self,
        place: &'a str,
        plugin: Option<KeptPlugin>,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        let work = Work::KeepPlugin(place.to_owned(), plugin);
        Box::pin(async move { self.write_unversioned(work).await.map(drop) })
    }

    fn plugins(&self) -> BoxFuture<'_, Result<Vec<(String, KeptPlugin)>, Unreachable>> {
        Box::pin(self.read(tables::plugins))
    }

    fn fingerprint_key(&self) -> Option<Secret<[u8; 32]>> {
        Some(self.fingerprints.clone())
    }

    fn durable(&self) -> bool {
        true
    }

    fn exclusive(&self) -> bool {
        true
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }
}

impl Drop for EmbeddedStore {
    /// Waits until what was accepted is written: afterwards the file is free for the next owner.
    fn drop(&mut self) {
        self.live.close();
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
mod journal_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upkeep_tests;
