//! The engine, one per process, and what all plugins share: the slots guests run in, the turns to compile, the ticker.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store,
};

use super::error::{LoadCode, LoadError};
use super::limits::{self, Budget, Meter};
use super::ticker::Ticker;

/// Runs plugins. One per process: types of one engine mean nothing to another.
pub struct Runtime {
    engine: Engine,
    pooled: bool,
    /// One permit per guest that exists; the pool has as many slots, so taking an instance from it cannot fail.
    pub(super) slots: Semaphore,
    /// Turns to compile. Held inside the blocking task, so that a caller who leaves does not let another compiler in.
    compilers: Arc<Semaphore>,
    pub(super) ticker: Ticker,
}

impl Runtime {
    /// Sets up the engine: instances come from a pool where the address space allows one, else they are made on demand.
    ///
    /// # Errors
    ///
    /// [`LoadCode::Host`] where this machine cannot run WebAssembly or has no thread left.
    pub fn new() -> Result<Arc<Self>, LoadError> {
        // Reserving the pool is the probe: under a tight limit on address space it fails here, and only here.
        let (engine, pooled) = match Engine::new(&config(pool())) {
            Ok(engine) => (engine, true),
            Err(_) => {
                let engine = Engine::new(&config(InstanceAllocationStrategy::OnDemand));
                (
                    engine.map_err(|error| host("cannot run WebAssembly", error))?,
                    false,
                )
            }
        };
        let ticker =
            Ticker::start(engine.weak()).map_err(|error| host("cannot start a thread", error))?;
        Ok(Arc::new(Self {
            engine,
            pooled,
            slots: Semaphore::new(limits::SLOTS as usize),
            compilers: Arc::new(Semaphore::new((cores() / 2).max(1))),
            ticker,
        }))
    }

    /// Whether instances come from a pool. Without one, a step costs about 25 microseconds more.
    pub fn pooled(&self) -> bool {
        self.pooled
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The turns of one plugin. Guests only compute, so more of them than cores would only wait for each other.
    pub(super) fn turns(&self) -> Semaphore {
        Semaphore::new(cores().clamp(2, limits::TURNS_MAX))
    }

    /// An empty store that keeps to `budget`.
    pub(super) fn store(&self, budget: &Budget) -> Store<Meter> {
        let mut store = Store::new(&self.engine, Meter::new(budget));
        store.limiter(|meter| meter);
        store.set_hostcall_fuel(budget.answer_max_bytes);
        store.epoch_deadline_callback(|mut cx| {
            Ok(if cx.data_mut().tick() {
                // Not a plain yield, which would put the guest in front of the tasks it kept waiting.
                wasmtime::UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            } else {
                wasmtime::UpdateDeadline::Interrupt
            })
        });
        // Before anything is instantiated: start functions are guest code too.
        store.set_epoch_deadline(1);
        store
    }

    /// Runs a compiler on a blocking thread, a few at a time.
    ///
    /// # Cancel safety
    ///
    /// The job runs to its end when the caller leaves; its result is dropped.
    pub(super) async fn compile<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Engine) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        let engine = self.engine.clone();
        let turn = async {
            let permit = Arc::clone(&self.compilers).acquire_owned().await;
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                job(&engine)
            });
            task.await
        };
        match timeout(limits::COMPILE_MAX, turn).await {
            Ok(Ok(result)) => result,
            Ok(Err(join)) if join.is_panic() => Err(LoadError::new(
                LoadCode::Compile,
                "the compiler gave up on this plugin",
                "build it with a released toolchain; if it still fails, the file is damaged",
            )),
            Ok(Err(_)) => Err(LoadError::new(
                LoadCode::Host,
                "the process is shutting down",
                "load the plugin again once it is up",
            )),
            Err(_) => Err(LoadError::new(
                LoadCode::Compile,
                format!(
                    "compiling took longer than {} s",
                    limits::COMPILE_MAX.as_secs()
                ),
                "make the plugin smaller, or load it when fewer others are being loaded",
            )),
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("pooled", &self.pooled)
            .finish_non_exhaustive()
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn host(what: &str, error: impl fmt::Display) -> LoadError {
    LoadError::new(
        LoadCode::Host,
        format!("{what}: {error}"),
        "check the limits on address space and threads of this process",
    )
}

fn config(instances: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config.allocation_strategy(instances);
    config.epoch_interruption(true);
    // A start and a swap are felt, and take a sixth less processor time so; a step takes a twentieth more
    // (`benches/guest.rs`).
    config.cranelift_opt_level(OptLevel::None);
    // No contract of ours has async functions, and without them an instance costs a fifth less.
    config.concurrency_support(false);
    // The text of a panic is read from the memory that a trap leaves behind.
    config.coredump_on_trap(true);
    // The default of 4 GiB for each memory would make a pool that many machines refuse.
    config.memory_reservation(limits::MEMORY_MAX_BYTES as u64);
    config.memory_reservation_for_growth(0);
    config.memory_guard_size(64 << 10);
    // Plugins are pure functions: the same bits on every machine.
    config.cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(false);
    // No toolchain of ours needs addresses beyond 4 GiB; what is off cannot be got wrong.
    config.wasm_memory64(false);
    config
}

fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits::SLOTS)
        .total_stacks(limits::SLOTS)
        .total_core_instances(limits::SLOTS * limits::INSTANCES_MAX)
        .total_memories(limits::SLOTS * limits::MEMORIES_MAX)
        .total_tables(limits::SLOTS * limits::TABLES_MAX)
        .max_core_instances_per_component(limits::INSTANCES_MAX)
        .max_memories_per_component(limits::MEMORIES_MAX)
        .max_tables_per_component(limits::TABLES_MAX)
        .max_memory_size(limits::MEMORY_MAX_BYTES)
        .table_elements(limits::TABLE_SLOT_ELEMENTS)
        // Zeroed by hand up to here, given back to the system beyond: cheaper than a system call for a small guest, and ours
        // are. To ask the kernel which pages were written would be cheaper still for large ones (`pagemap_scan`), but it looks
        // at pages in memory only: what a guest wrote and the system swapped out meanwhile, the next one would find.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10);
    InstanceAllocationStrategy::Pooling(pool)
}
