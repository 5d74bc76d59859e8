//! The floor of a step: the same component in a bare wasmtime, as its documentation has it, with nothing of ours around it
//! but the bindings. No budget, no turn, no deadline, no check of the answer.
//!
//! The engine is set up as ours is (`keyfob::wasm::Runtime`), so that what differs is what we add; [`Setup`] says what may
//! be tried instead.

use anyhow::Result;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store,
};

use self::bindings::PluginPre;
use self::bindings::exports::keyfob::provider::provider::{
    Call, Cause, Refusal, Rejection, Step, Verdict,
};
use self::bindings::exports::keyfob::types::types::{HttpResponse, Reply};

mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/provider"],
        world: "keyfob:provider/plugin",
        exports: { default: async },
    });
}

/// Guests at once, memories and tables for each: as many as ours has.
const SLOTS: u32 = 64;
const MEMORY_BYTES: usize = 32 << 20;

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How hard the compiler tries.
    pub optimised: bool,
    /// Whether the kernel is asked which pages a guest wrote, so that only those are put back.
    pub scanned: bool,
    /// How much of a memory stays mapped between two guests, in bytes.
    pub resident_bytes: usize,
    /// Whether guests can be interrupted.
    pub epochs: bool,
}

/// A component, of whatever kind, in an engine of its own.
pub struct Loaded {
    engine: Engine,
    pre: InstancePre<()>,
}

/// A provider plugin, and what a refresh asks of it.
pub struct Bare {
    loaded: Loaded,
    pre: PluginPre<()>,
    call: Call,
    reply: Reply,
    rejection: Rejection,
}

/// A component around a module in which there is nothing: both preambles, the module, one instance of it.
const NOTHING: &[u8] = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0\x02\x04\x01\0\0\0";

// === impl Setup ===

impl Setup {
    /// As `keyfob::wasm::Runtime` has it.
    pub const OURS: Self = Self {
        optimised: false,
        scanned: false,
        resident_bytes: 256 << 10,
        epochs: true,
    };

    /// An engine of this kind.
    ///
    /// # Errors
    ///
    /// Where this machine cannot have one.
    pub fn engine(self) -> Result<Engine> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(SLOTS)
            .total_stacks(SLOTS)
            .total_core_instances(SLOTS)
            .total_memories(SLOTS)
            .total_tables(SLOTS)
            .max_memory_size(MEMORY_BYTES)
            .linear_memory_keep_resident(self.resident_bytes)
            .table_keep_resident(64 << 10)
            .pagemap_scan(if self.scanned {
                Enabled::Yes
            } else {
                Enabled::No
            });
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .epoch_interruption(self.epochs)
            .concurrency_support(false)
            .memory_reservation(MEMORY_BYTES as u64)
            .memory_reservation_for_growth(0)
            .memory_guard_size(64 << 10)
            .cranelift_opt_level(if self.optimised {
                OptLevel::Speed
            } else {
                OptLevel::None
            });
        Ok(Engine::new(&config)?)
    }
}

// === impl Loaded ===

impl Loaded {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// When it does not compile.
    pub fn new(setup: Setup, component: &[u8]) -> Result<Self> {
        let engine = setup.engine()?;
        let component = Component::from_binary(&engine, component)?;
        let pre = Linker::new(&engine).instantiate_pre(&component)?;
        Ok(Self { engine, pre })
    }

    /// A component in which there is nothing.
    ///
    /// # Errors
    ///
    /// Where this machine runs none.
    pub fn nothing(setup: Setup) -> Result<Self> {
        Self::new(setup, NOTHING)
    }

    /// Makes an instance and throws it away.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn instantiate(&self) -> Result<()> {
        let mut store = self.store();
        self.pre.instantiate_async(&mut store).await?;
        Ok(())
    }

    fn store(&self) -> Store<()> {
        let mut store = Store::new(&self.engine, ());
        // Never reached: nobody ends epochs here.
        store.set_epoch_deadline(1);
        store
    }
}

// === impl Bare ===

impl Bare {
    /// A plugin, with its settings.
    ///
    /// # Errors
    ///
    /// When it does not load.
    pub fn new(setup: Setup, component: &[u8], settings: &str) -> Result<Self> {
        let loaded = Loaded::new(setup, component)?;
        let pre = PluginPre::new(loaded.pre.clone())?;
        let call = Call {
            now: 1_700_000_000,
            entropy: vec![7; 32],
            settings: settings.to_owned(),
            tenant: "default".to_owned(),
            subject: None,
            scopes: vec!["read".to_owned()],
            audience: None,
            refresh_token: None,
            held: Vec::new(),
            memo: Vec::new(),
            cause: Cause::Expiring,
        };
        let body = format!(
            r#"{{"access_token":"sealed:{}","token_type":"Bearer","expires_in":300,"scope":"read"}}"#,
            "0".repeat(32)
        );
        let reply = Reply::Response(HttpResponse {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.into_bytes(),
            note: None,
        });
        let rejection = Rejection {
            status: 401,
            www_authenticate: Some(r#"Bearer error="invalid_token""#.to_owned()),
            settings: settings.to_owned(),
        };
        Ok(Self {
            loaded,
            pre,
            call,
            reply,
            rejection,
        })
    }

    /// Makes an instance and throws it away.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn instantiate(&self) -> Result<()> {
        self.loaded.instantiate().await
    }

    /// What a resource's refusal means: the shortest call there is.
    ///
    /// # Errors
    ///
    /// When the plugin does not say.
    pub async fn classify(&self) -> Result<()> {
        let mut store = self.loaded.store();
        let plugin = self.pre.instantiate_async(&mut store).await?;
        let plugin = plugin.keyfob_provider_provider();
        let verdict = plugin.call_classify(&mut store, &self.rejection).await?;
        anyhow::ensure!(verdict == Verdict::TokenDead, "{verdict:?}");
        Ok(())
    }

    /// The two steps of a refresh, each in a store and an instance of its own.
    ///
    /// # Errors
    ///
    /// When the plugin does something else than ask for a token and take it.
    pub async fn refresh(&self) -> Result<()> {
        let first = self.step(&[]).await?;
        anyhow::ensure!(matches!(first, Ok(Step::Send(_))), "{first:?}");
        let second = self.step(std::slice::from_ref(&self.reply)).await?;
        anyhow::ensure!(matches!(second, Ok(Step::Done(_))), "{second:?}");
        Ok(())
    }

    async fn step(&self, replies: &[Reply]) -> Result<Result<Step, Refusal>> {
        let mut store = self.loaded.store();
        let plugin = self.pre.instantiate_async(&mut store).await?;
        let plugin = plugin.keyfob_provider_provider();
        Ok(plugin.call_refresh(&mut store, &self.call, replies).await?)
    }
}
