//! What operators do to the file as a whole. Each takes a thread of its own for as long as it takes.

use std::path::Path;

use super::live::Live;
use super::tables::Fault;
use super::{EmbeddedStore, Unreachable, Upkeep};
use crate::model::contract::BoxFuture;
use crate::model::key::Tenant;
use crate::model::secret::Secret;
use crate::store::sealing::SealingKey;

impl EmbeddedStore {
    /// Does `work` on a thread of its own: reading, loads have theirs.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Live) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Unreachable> {
        let live = self.live.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&live).map_err(|fault| live.unreachable(fault))
        });
        done.await.map_err(|_| self.closed())?
    }
}

impl Upkeep for EmbeddedStore {
    fn verified_at_open(&self) -> bool {
        self.whole
    }

    fn is_sealed_with(&self, sealing_key: Secret<String>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let Ok(key) = SealingKey::parse(&sealing_key) else {
                return false;
            };
            let same = self.aside(move |live| Ok(live.sealed_with() == key.id));
            same.await.unwrap_or(false)
        })
    }

    fn verify(&self) -> BoxFuture<'_, Result<u64, Unreachable>> {
        Box::pin(self.aside(Live::verify))
    }

    fn rotate_key(
        &self,
        sealing_key: Secret<String>,
    ) -> BoxFuture<'_, Result<[String; 2], Unreachable>> {
        Box::pin(async move {
            let to = SealingKey::parse(&sealing_key).map_err(|bad| self.live.unreachable(bad))?;
            let ids = self.aside(|live| live.rotate_key(to)).await?;
            Ok(ids.map(|id| id.to_string()))
        })
    }

    fn shred<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<u64, Unreachable>> {
        let tenant = tenant.clone();
        Box::pin(self.aside(move |live| {
            let shredded = live.write(|rows| rows.shred(&tenant));
            // Whether it happened or not, what is needed is opened again.
            live.forget_data_keys();
            shredded
        }))
    }

    fn compact(&self) -> BoxFuture<'_, Result<[u64; 2], Unreachable>> {
        let journal = self.journal.clone();
        Box::pin(self.aside(move |live| {
            // It holds what was replaced, too.
            journal.empty();
            live.compact()
        }))
    }

    fn backup<'a>(&'a self, to: &'a Path) -> BoxFuture<'a, Result<u64, Unreachable>> {
        let to = to.to_owned();
        Box::pin(self.aside(move |live| live.backup(&to)))
    }
}
