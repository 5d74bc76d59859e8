//! Everything the process logs, at trace level: what a test says on its own thread is its own, what other threads say
//! is everybody's.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What was logged on one thread, or on threads without a sheet of their own.
#[derive(Clone, Default)]
pub struct Sheet(Arc<Mutex<Vec<u8>>>);

/// Hands each line the sheet of the thread it is written on.
struct Desk;

thread_local! {
    static MINE: RefCell<Option<Sheet>> = const { RefCell::new(None) };
}

/// What is said on threads without a sheet: compilation, workers of a larger runtime.
static COMMON: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A sheet for this thread, from now on. The first call installs the subscriber of the process.
pub fn open() -> Sheet {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(Desk)
            .finish();
        tracing::subscriber::set_global_default(subscriber)
            .expect("the kit installs the only subscriber of the test binary");
    });
    let sheet = Sheet::default();
    MINE.with_borrow_mut(|mine| *mine = Some(sheet.clone()));
    sheet
}

/// How much has been said on threads without a sheet: a mark to read from.
pub fn common_mark() -> usize {
    lock(&COMMON).len()
}

/// What was said there since the mark.
pub fn common_since(mark: usize) -> Vec<u8> {
    lock(&COMMON)[mark..].to_vec()
}

// === impl Sheet ===

impl Sheet {
    /// Everything on it.
    pub fn text(&self) -> Vec<u8> {
        lock(&self.0).clone()
    }
}

impl io::Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Desk ===

impl<'a> MakeWriter<'a> for Desk {
    type Writer = Box<dyn io::Write>;

    fn make_writer(&'a self) -> Self::Writer {
        match MINE.try_with(|mine| mine.borrow().clone()) {
            Ok(Some(sheet)) => Box::new(sheet),
            _ => Box::new(Common),
        }
    }
}

struct Common;

impl io::Write for Common {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&COMMON).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}
