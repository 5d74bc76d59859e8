//! One call into a guest: waits for its turn, runs it in a store of its own, and names what went wrong.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmCoreDump};

use super::limits::{Budget, Meter, OverLimit, TURN_WAIT_MAX};
use super::panic_text::{self, printable};
use super::runtime::Runtime;
use crate::model::contract::PluginFault;

/// How much of an error's text is kept.
const REASON_MAX_BYTES: usize = 500;

/// The words with which wasmtime refuses to copy more than a store's budget; its error has no public type. A test
/// with a guest that answers too much keeps this true.
const TOO_MUCH_COPIED: &str = "fuel allocated for hostcalls";

/// Runs `call` in a store that lives for this call only.
///
/// `turns` are the plugin's own; they are taken before one of the slots that all plugins share.
///
/// # Cancel safety
///
/// Dropping the future drops the guest; nothing of it is left.
pub(super) async fn run<R>(
    runtime: &Runtime,
    turns: &Semaphore,
    budget: &Budget,
    call: impl AsyncFnOnce(&mut Store<Meter>) -> wasmtime::Result<R>,
) -> Result<R, PluginFault> {
    // Declared before the store: the slot is free only once the store has given its instances back.
    let _turn = admit(runtime, turns).await?;
    let mut store = runtime.store(budget);
    let _running = runtime.ticker.running();
    match timeout(budget.wall, call(&mut store)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(fault(&error, &store)),
        Err(_) => Err(PluginFault::Deadline("wall time")),
    }
}

async fn admit<'a>(
    runtime: &'a Runtime,
    turns: &'a Semaphore,
) -> Result<(SemaphorePermit<'a>, SemaphorePermit<'a>), PluginFault> {
    let both = async {
        let turn = turns.acquire().await?;
        Ok::<_, tokio::sync::AcquireError>((runtime.slots.acquire().await?, turn))
    };
    match timeout(TURN_WAIT_MAX, both).await {
        Ok(Ok(permits)) => Ok(permits),
        Ok(Err(_)) => Err(PluginFault::Host("the sandbox is closed".into())),
        Err(_) => {
            let waited = TURN_WAIT_MAX.as_secs();
            Err(PluginFault::Host(format!(
                "no turn within {waited} s: earlier calls hang"
            )))
        }
    }
}

/// What an error of wasmtime means for the plugin.
fn fault(error: &wasmtime::Error, store: &Store<Meter>) -> PluginFault {
    if let Some(OverLimit(name)) = error.downcast_ref() {
        return PluginFault::Limit(name);
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return PluginFault::Host("no free instance in the pool".into());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => PluginFault::Deadline("CPU budget"),
        Some(trap) => {
            let words = error.downcast_ref::<WasmCoreDump>();
            let words = words.and_then(|dump| panic_text::find(dump, store));
            PluginFault::Trap(words.unwrap_or_else(|| trap.to_string()))
        }
        None => {
            let reason = error.root_cause().to_string();
            if reason.contains(TOO_MUCH_COPIED) {
                return PluginFault::Limit("answer");
            }
            PluginFault::Broken(printable(&reason, REASON_MAX_BYTES))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use wasmtime::component::{Component, Linker};

    use super::*;
    use crate::wasm::limits::{SLOTS, STEP};

    #[tokio::test]
    async fn more_guests_than_the_pool_has_slots_wait_instead_of_failing() {
        let runtime = Runtime::new().unwrap();
        let nothing = Component::from_binary(runtime.engine(), b"\0asm\x0d\0\x01\0").unwrap();
        let pre = Linker::new(runtime.engine())
            .instantiate_pre(&nothing)
            .unwrap();
        let turns = Semaphore::new(1000);
        let guests = (0..SLOTS * 4).map(|_| {
            run(&runtime, &turns, &STEP, async |store: &mut Store<Meter>| {
                pre.instantiate_async(&mut *store).await?;
                // Keeps its slot while all others ask for theirs.
                tokio::task::yield_now().await;
                Ok(())
            })
        });
        let ended = join_all(guests).await;
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_gets_its_turn_is_told_so() {
        let runtime = Runtime::new().unwrap();
        let none = Semaphore::new(0);
        let waited = run(&runtime, &none, &STEP, async |_: &mut Store<Meter>| Ok(())).await;
        assert!(matches!(waited, Err(PluginFault::Host(text)) if text.contains("no turn")));
    }

    #[tokio::test(start_paused = true)]
    async fn wall_time_ends_what_the_cpu_budget_does_not_see() {
        let runtime = Runtime::new().unwrap();
        let turns = Semaphore::new(1);
        let ended = run(&runtime, &turns, &STEP, async |_: &mut Store<Meter>| {
            std::future::pending::<wasmtime::Result<()>>().await
        });
        assert_eq!(ended.await, Err(PluginFault::Deadline("wall time")));
        assert_eq!(turns.available_permits(), 1);
    }
}
