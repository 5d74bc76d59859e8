//! From bytes to plugins: checked, compiled and asked who they are, or refused with a reason.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_lc_rs::digest::{SHA256, digest};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::cache::{Cache, Digest};
use super::error::{LoadCode, LoadError};
use super::inspect::{self, Inspected};
use super::limits::COMPONENT_MAX_BYTES;
use super::panic_text::printable;
use super::policy::Policy;
use super::provider::Provider;
use super::runtime::Runtime;
use crate::model::contract::{PolicyPlugin, ProviderPlugin};

/// Loads plugins, and remembers them: identical bytes compile once.
pub struct Catalog {
    runtime: Arc<Runtime>,
    loaded: Cache<LoadedPlugin>,
    compilations: AtomicU64,
}

/// A component that passed every check, as the worlds it exports. At least one is there.
#[derive(Clone)]
pub struct LoadedPlugin {
    /// What it is as a provider.
    pub provider: Option<Arc<dyn ProviderPlugin>>,
    /// What it is as a policy.
    pub policy: Option<Arc<dyn PolicyPlugin>>,
    /// SHA-256 of [`component`](Self::component), lower-case hexadecimal.
    pub digest: String,
    /// The component that runs: the bytes given, or what a core module became. Loading it again gives the same plugin.
    pub component: Arc<[u8]>,
}

/// What the blocking part of a load makes.
struct Compiled {
    inspected: Inspected,
    code: Component,
    digest: String,
}

impl Catalog {
    /// An empty catalog whose plugins run in `runtime`.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self {
            runtime,
            loaded: Cache::new(),
            compilations: AtomicU64::new(0),
        }
    }

    /// The plugin that `bytes` are: a component, or a core module that carries its WIT and is made one here.
    ///
    /// # Errors
    ///
    /// A [`LoadError`] that says what is wrong with the bytes and what to change. Failures are not remembered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: a compilation under way ends by itself, and the next load starts afresh.
    pub async fn load(&self, bytes: Arc<[u8]>) -> Result<LoadedPlugin, LoadError> {
        if bytes.len() > COMPONENT_MAX_BYTES {
            return Err(LoadError::new(
                LoadCode::TooLarge,
                format!(
                    "{} bytes; a plugin has at most {COMPONENT_MAX_BYTES}",
                    bytes.len()
                ),
                "build it optimised for size and without debug information",
            ));
        }
        let source = sha256_aside(Arc::clone(&bytes)).await?;
        let cell = self.loaded.entry(source);
        let loaded = cell.get_or_try_init(|| self.admit(source, bytes)).await?;
        Ok(loaded.clone())
    }

    /// How many times the compiler ran to its end. Stays where it is while identical bytes are loaded again.
    pub fn compilations(&self) -> u64 {
        self.compilations.load(Relaxed)
    }

    async fn admit(&self, source: Digest, bytes: Arc<[u8]>) -> Result<LoadedPlugin, LoadError> {
        let Compiled {
            inspected,
            code,
            digest,
        } = self
            .runtime
            .compile(move |engine| compile(engine, &bytes))
            .await?;
        self.compilations.fetch_add(1, Relaxed);
        // A number: the pointers of the range must not live across an await.
        let code_bytes = {
            let image = code.image_range();
            image.end.addr() - image.start.addr()
        };
        let mut loaded = LoadedPlugin {
            provider: None,
            policy: None,
            digest,
            component: inspected.component,
        };
        if let Some(version) = inspected.provider {
            let digest = loaded.digest.clone();
            let provider = Provider::open(&self.runtime, &code, &version, digest).await?;
            loaded.provider = Some(Arc::new(provider));
        }
        if let Some(version) = inspected.policy {
            let digest = loaded.digest.clone();
            let policy = Policy::open(&self.runtime, &code, &version, digest).await?;
            loaded.policy = Some(Arc::new(policy));
        }
        self.loaded.filled(&source, code_bytes);
        Ok(loaded)
    }
}

fn compile(engine: &Engine, bytes: &Arc<[u8]>) -> Result<Compiled, LoadError> {
    let inspected = inspect::inspect(bytes, engine.get_wasm_features())?;
    let code = Component::from_binary(engine, &inspected.component).map_err(|error| {
        let reason = printable(&inspect::chain(&error), 500);
        LoadError::new(
            LoadCode::Compile,
            format!("cannot be compiled: {reason}"),
            "keep to one memory of at most 32 MiB and build with a released toolchain",
        )
    })?;
    let digest = hex(&sha256(&inspected.component));
    Ok(Compiled {
        inspected,
        code,
        digest,
    })
}

/// The digest of `bytes`, off the async threads: 32 MiB take tens of milliseconds.
async fn sha256_aside(bytes: Arc<[u8]>) -> Result<Digest, LoadError> {
    tokio::task::spawn_blocking(move || sha256(&bytes))
        .await
        .map_err(|_| {
            LoadError::new(
                LoadCode::Host,
                "the process is shutting down",
                "load the plugin again once it is up",
            )
        })
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog")
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

// === impl LoadedPlugin ===

impl fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPlugin")
            .field("provider", &self.provider)
            .field("policy", &self.policy)
            .field("digest", &self.digest)
            .field("component_bytes", &self.component.len())
            .finish()
    }
}
