//! What operators do to the store as a whole: verify, compact, back up, replace its sealing key, forget a tenant. Each order
//! runs to its end without whoever gave it, and is told once.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::Broker;
use super::status::{KeyRotated, OrderError, Shredded};
use crate::model::event::Event;
use crate::model::key::Tenant;
use crate::model::secret::Secret;
use crate::settings::SecretSource;
use crate::store::{Unreachable, Upkeep};

/// Who verifies a store that was too long to be read when it was opened.
const ITSELF: &str = "keyfob";

// === impl Broker ===

impl Broker {
    /// Reads the whole store and compares it with what was written last; answers how many rows it has.
    ///
    /// # Errors
    ///
    /// [`OrderError`]. A store that is not what was written to it makes the process `degraded` until it verifies again.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn verify_store(&self, by: &str) -> Result<u64, OrderError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.order(async move { broker.verify(&by).await }).await
    }

    /// Verifies a store that was not read when it was opened, behind everybody's back.
    pub fn verify_in_background(&self) {
        let upkeep = self.0.store.upkeep();
        if upkeep.is_some_and(|upkeep| !upkeep.verified_at_open()) {
            let broker = self.clone();
            self.0.spawn(async move {
                // Whatever comes of it was told.
                let _ = broker.verify(ITSELF).await;
            });
        }
    }

    async fn verify(&self, by: &str) -> Result<u64, OrderError> {
        let core = &self.0;
        let upkeep = self.upkeep()?;
        let _alone = core.tending.try_lock().map_err(|_| OrderError::Busy)?;
        let verified = tokio::select! {
            verified = upkeep.verify() => verified,
            // It reads only: a process that ends does not wait for it.
            () = core.stop.cancelled() => return Err(ending()),
        };
        core.store_damaged
            .store(verified.is_err(), Ordering::Relaxed);
        let (code, detail) = match &verified {
            Ok(rows) => ("store_verified", format!("it has {rows} rows")),
            Err(fault) => ("store_damaged", fault.0.clone()),
        };
        if by == ITSELF {
            core.emit(&Event::Notice { code, detail });
        }
        self.told("verify", by, verified, |rows| format!("{rows} rows"))
    }

    /// Writes the store anew, so that nothing is left in its file of what was replaced; answers its bytes before and after.
    /// Loads and commits wait for it.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; the file is as it was.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn compact_store(&self, by: &str) -> Result<[u64; 2], OrderError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.order(async move {
            let upkeep = broker.upkeep()?;
            let _alone = broker.0.tending.try_lock().map_err(|_| OrderError::Busy)?;
            broker.compact(upkeep, &by).await
        })
        .await
    }

    async fn compact(&self, upkeep: &dyn Upkeep, by: &str) -> Result<[u64; 2], OrderError> {
        let compacted = upkeep.compact().await;
        self.told("compact", by, compacted, |[before, after]| {
            format!("{before} bytes before, {after} after")
        })
    }

    /// Writes a copy of the store as of now to a path where there is nothing; answers its bytes.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; there is no copy.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn backup_store(&self, to: PathBuf, by: &str) -> Result<u64, OrderError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.order(async move {
            let upkeep = broker.upkeep()?;
            let _alone = broker.0.tending.try_lock().map_err(|_| OrderError::Busy)?;
            let copied = upkeep.backup(&to).await;
            broker.told("backup", &by, copied, |bytes| {
                format!("{bytes} bytes to {}", to.display())
            })
        })
        .await
    }

    /// Seals the store with another key: 32 bytes of base64. The old one opens it no more.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; after [`OrderError::Failed`] the file may be sealed with either.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn rotate_sealing_key(
        &self,
        next: Secret<String>,
        by: &str,
    ) -> Result<KeyRotated, OrderError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.order(async move {
            let upkeep = broker.upkeep()?;
            let _alone = broker.0.tending.try_lock().map_err(|_| OrderError::Busy)?;
            if upkeep.is_sealed_with(next.clone()).await {
                let words = "the store is sealed with this key already";
                return Err(OrderError::Inapplicable(words.to_owned()));
            }
            let rotated = upkeep.rotate_key(next).await;
            let [from, to] = broker.told("rotate_key", &by, rotated, |[from, to]| {
                format!("from the key {from} to the key {to}")
            })?;
            let compacted = broker.compact(upkeep, &by).await.is_ok();
            Ok(KeyRotated {
                from,
                to,
                compacted,
            })
        })
        .await
    }

    /// A secret as it is now.
    ///
    /// # Errors
    ///
    /// What is wrong with its source, without its value.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn read_secret(&self, source: &SecretSource) -> Result<Secret<String>, String> {
        let read = self.0.secrets.read(source).await;
        read.map_err(|fault| fault.to_string())
    }

    /// Whether this is the key that the store is sealed with; none for a store that is not sealed.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn is_sealed_with(&self, sealing_key: Secret<String>) -> Option<bool> {
        let upkeep = self.0.store.upkeep()?;
        Some(upkeep.is_sealed_with(sealing_key).await)
    }

    /// Forgets everything of a tenant: its credentials, the keys that would open what is left of them in any copy of the file
    /// made from now on, and its tokens in memory. It may be used again at once, and then is a new one.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; after [`OrderError::Failed`] it may or may not have happened.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on without its caller.
    pub async fn shred_tenant(&self, tenant: Tenant, by: &str) -> Result<Shredded, OrderError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.order(async move {
            let core = &broker.0;
            let upkeep = broker.upkeep()?;
            // It waits for nobody: a tenant that must go goes now.
            broker.withdraw_tenant(&tenant);
            let shredded = upkeep.shred(&tenant).await;
            // Once more: a flight may have landed meanwhile. And whatever was answered, for it may have happened.
            broker.withdraw_tenant(&tenant);
            let credentials = broker.told("shred", &by, shredded, |credentials| {
                format!("the tenant {tenant}, credentials: {credentials}")
            })?;
            let compacted = match core.tending.try_lock() {
                Ok(_alone) => broker.compact(upkeep, &by).await.is_ok(),
                Err(_) => false,
            };
            Ok(Shredded {
                credentials,
                compacted,
            })
        })
        .await
    }

    /// Takes every token of a tenant out of callers' hands. A flight that was under way when its record went finds that when
    /// it lands; nobody joins it any more.
    fn withdraw_tenant(&self, tenant: &Tenant) {
        let core = &self.0;
        core.unsaved.forget(tenant);
        let slots = core.cache.slots().into_iter();
        for slot in slots.filter(|slot| slot.tenant() == tenant) {
            core.flights.disown(&slot.id());
            slot.withdraw();
            core.watchers.changed(&slot.key());
            slot.clear_failure();
        }
    }

    fn upkeep(&self) -> Result<&dyn Upkeep, OrderError> {
        self.0.store.upkeep().ok_or_else(|| {
            let words = "credentials are kept in memory only: there is no file to do this to; add [store] to the configuration";
            OrderError::Inapplicable(words.to_owned())
        })
    }

    /// Tells operators what came of an order.
    fn told<T>(
        &self,
        what: &'static str,
        by: &str,
        done: Result<T, Unreachable>,
        words: impl FnOnce(&T) -> String,
    ) -> Result<T, OrderError> {
        let (detail, refused) = match &done {
            Ok(done) => (words(done), None),
            Err(Unreachable(why)) => (String::new(), Some(why.clone())),
        };
        self.0.emit(&Event::StoreKept {
            what,
            detail,
            refused,
            by: by.to_owned(),
        });
        done.map_err(|Unreachable(why)| OrderError::Failed(why))
    }

    /// Runs an order to its end, whether or not whoever gave it still listens.
    async fn order<T: Send + 'static>(
        &self,
        order: impl Future<Output = Result<T, OrderError>> + Send + 'static,
    ) -> Result<T, OrderError> {
        self.0.spawn(order).await.unwrap_or_else(|_| Err(ending()))
    }
}

fn ending() -> OrderError {
    OrderError::Failed("the process is ending".to_owned())
}
