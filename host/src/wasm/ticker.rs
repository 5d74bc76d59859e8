//! The thread that ends epochs, so that a guest that never returns still meets a host that looks at its budget.
//!
//! A plain thread: a timer of the async runtime stops exactly when it is needed, with all workers inside guests. It
//! sleeps while no guest runs, so an idle process is not woken a thousand times a second, and it holds the engine
//! weakly, so it cannot keep one alive.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};

use wasmtime::EngineWeak;

use super::limits::TICK;

/// Ends an epoch every [`TICK`] while guests run. Stops when dropped.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    /// Guests running now. The thread parks at zero; whoever leaves zero wakes it.
    running: AtomicUsize,
    closing: AtomicBool,
}

/// Keeps epochs ending as long as it lives.
pub(super) struct Running<'a>(&'a Ticker);

impl Ticker {
    /// Starts the thread.
    pub(super) fn start(engine: EngineWeak) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let seen = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("keyfob-epochs".into())
            .spawn(move || tick(&seen, &engine))?
            .thread()
            .clone();
        Ok(Self { shared, thread })
    }

    /// Says that a guest runs until the guard is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        if self.shared.running.fetch_add(1, SeqCst) == 0 {
            // Costs a system call only if the thread is parked; otherwise its next `park` returns at once.
            self.thread.unpark();
        }
        Running(self)
    }
}

/// Ticks may come late on a loaded machine, never in a burst: a guest is not charged for time it did not have.
fn tick(shared: &Shared, engine: &EngineWeak) {
    while !shared.closing.load(SeqCst) {
        if shared.running.load(SeqCst) == 0 {
            thread::park();
            continue;
        }
        thread::sleep(TICK);
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.shared.running.fetch_sub(1, SeqCst);
    }
}
