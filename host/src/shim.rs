//! The locks and atomics of what is model-checked, and nothing else: `std`'s, or shuttle's in tests with the feature
//! `model-check`.
//!
//! The switch needs both `test` and the feature: a program that happens to be built with the feature (features only
//! add) must never run on a model checker's primitives. Whoever uses these names says on the field what is guarded.

use std::sync::PoisonError;

#[cfg(not(all(test, feature = "model-check")))]
use std::sync;

#[cfg(all(test, feature = "model-check"))]
use shuttle::sync;

pub(crate) use sync::atomic;
pub(crate) use sync::{Mutex, MutexGuard};

/// Takes a mutex. A poisoned one is taken too: nothing here panics between two writes that belong together, and a
/// panic elsewhere must not take every later caller down with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
