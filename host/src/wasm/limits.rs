//! Every bound on what a guest may use, each with its reason, and the meter that keeps the ones a store can count.
//!
//! Bounds on single fields of an answer stand in the contract (`wit/`) and are kept by `lift`.

use std::fmt;
use std::time::Duration;

use wasmtime::ResourceLimiter;

/// The largest plugin accepted. Rust guests are some 20 KB, a Python interpreter with its library 18 MB.
pub const COMPONENT_MAX_BYTES: usize = 32 << 20;

/// Waiting for a turn to compile, and compiling. Interpreters were seen to take ten seconds on a loaded machine.
pub(super) const COMPILE_MAX: Duration = Duration::from_secs(60);

/// Linear memory, summed over all memories of a guest. Rust guests start with 1.1 MB, a Python interpreter with 12.
pub const MEMORY_MAX_BYTES: usize = 32 << 20;

/// Table elements, summed over all tables. Large interpreters were seen to need 7 700.
pub(super) const TABLE_MAX_ELEMENTS: usize = 20_000;

/// Elements of a single table: what one slot of the pool reserves.
pub(super) const TABLE_SLOT_ELEMENTS: usize = 10_000;

/// Core instances of one guest: one for Rust, about twenty where an interpreter links its libraries dynamically.
pub(super) const INSTANCES_MAX: u32 = 32;

/// Memories of one guest. Toolchains make one; adapters bring a second.
pub(super) const MEMORIES_MAX: u32 = 2;

/// Tables of one guest: a toolchain makes one per module.
pub(super) const TABLES_MAX: u32 = 16;

/// Guests that run at the same time over all plugins, and the slots of the pool. Guests never wait for anything, so
/// more than a few per core gains nothing; the number leaves room for many plugins to take their turns at once.
pub(super) const SLOTS: u32 = 64;

/// The most turns one plugin takes at once; fewer on machines with fewer cores. Keeps a hanging plugin from filling
/// the slots of all others.
pub(super) const TURNS_MAX: usize = 16;

/// How long a step may wait for its turn: longer means that the plugin's earlier steps are all hanging.
pub(super) const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Length of one epoch, the unit of CPU budgets: how long a spinning guest keeps a worker thread from its other tasks.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Compiled code kept for plugins that nobody holds any more, so that a swap back does not compile again.
pub(super) const CACHE_MAX_CODE_BYTES: usize = 64 << 20;

/// Plugins remembered, whatever their size.
pub(super) const CACHE_MAX_ENTRIES: usize = 64;

/// What one call into a guest may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Epochs in which it was seen running.
    pub cpu_ticks: u32,
    /// From the start of instantiation, the time of other tasks between its own included.
    pub wall: Duration,
    /// Bytes lifted out of the guest into the host's memory, counted before they are copied.
    pub answer_max_bytes: usize,
}

/// A step of a flow, `configure`, or a decision. Rust guests take 20 microseconds, an interpreter one millisecond.
///
/// The answer: a request is at most 64 KiB; its pieces cost 32 bytes each besides.
pub(super) const STEP: Budget = Budget {
    cpu_ticks: 100,
    wall: Duration::from_secs(2),
    answer_max_bytes: 512 << 10,
};

/// `describe`: constants, of which the JSON Schema is the longest.
pub(super) const DESCRIBE: Budget = Budget {
    cpu_ticks: 50,
    wall: Duration::from_secs(2),
    answer_max_bytes: 128 << 10,
};

/// What a store counts while its guest runs.
#[derive(Debug)]
pub(super) struct Meter {
    memory_bytes: usize,
    table_elements: usize,
    ticks_left: u32,
}

/// The error with which a guest is stopped that goes over a bound of its [`Meter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverLimit(pub &'static str);

// === impl Meter ===

impl Meter {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            memory_bytes: 0,
            table_elements: 0,
            ticks_left: budget.cpu_ticks,
        }
    }

    /// Charges one epoch; false when none is left.
    pub(super) fn tick(&mut self) -> bool {
        match self.ticks_left.checked_sub(1) {
            Some(left) => {
                self.ticks_left = left;
                true
            }
            None => false,
        }
    }
}

/// Growth beyond a bound stops the guest there and then, instead of letting `memory.grow` answer -1: the error names
/// the limit, and a guest out of memory has nothing useful left to do.
impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        grow(
            &mut self.memory_bytes,
            current,
            desired,
            maximum,
            MEMORY_MAX_BYTES,
            "memory",
        )
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // Already counted above; the host's memory is short, and the guest ends before it can try again.
        Err(OverLimit("memory").into())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        grow(
            &mut self.table_elements,
            current,
            desired,
            maximum,
            TABLE_MAX_ELEMENTS,
            "table",
        )
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(OverLimit("table").into())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

/// Adds the growth of one memory or table to the sum over all, unless that goes over `bound`. A guest that meets the
/// `maximum` it declared itself is told so the ordinary way.
fn grow(
    sum: &mut usize,
    current: usize,
    desired: usize,
    maximum: Option<usize>,
    bound: usize,
    name: &'static str,
) -> wasmtime::Result<bool> {
    let total = sum.saturating_add(desired.saturating_sub(current));
    if total > bound {
        return Err(OverLimit(name).into());
    }
    if maximum.is_some_and(|maximum| desired > maximum) {
        return Ok(false);
    }
    *sum = total;
    Ok(true)
}

// === impl OverLimit ===

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "over the {} limit", self.0)
    }
}

impl std::error::Error for OverLimit {}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: usize = MEMORY_MAX_BYTES / 2;

    #[test]
    fn memory_is_summed_over_memories() {
        let mut meter = Meter::new(&STEP);
        assert!(meter.memory_growing(0, HALF, None).unwrap());
        assert!(meter.memory_growing(0, HALF, None).unwrap());
        let error = meter.memory_growing(HALF, HALF + 65_536, None).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&OverLimit("memory")));
    }

    #[test]
    fn a_growth_that_was_refused_is_not_charged() {
        let mut meter = Meter::new(&STEP);
        assert!(!meter.memory_growing(0, HALF, Some(65_536)).unwrap());
        assert!(meter.memory_growing(0, MEMORY_MAX_BYTES, None).unwrap());
    }

    #[test]
    fn sizes_near_the_end_of_the_address_space_do_not_wrap() {
        let mut meter = Meter::new(&STEP);
        assert!(meter.memory_growing(0, HALF, None).unwrap());
        assert!(meter.memory_growing(0, usize::MAX, None).is_err());
        assert!(meter.table_growing(0, usize::MAX, None).is_err());
    }

    #[test]
    fn the_budget_allows_exactly_its_ticks() {
        let mut meter = Meter::new(&Budget {
            cpu_ticks: 2,
            ..STEP
        });
        assert_eq!(
            [meter.tick(), meter.tick(), meter.tick()],
            [true, true, false]
        );
    }
}
