//! Locks that outlive a panic: a handler that panics is caught, so a poisoned lock says nothing
//! about the data behind it (SQLite rolled back, and plain values are written in one step).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks, whatever happened to an earlier holder.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `ready` finds something in the guarded value, at most `wait`.
pub fn wait_for<T, R>(
    mutex: &Mutex<T>, changed: &Condvar, wait: Duration, mut ready: impl FnMut(&mut T) -> Option<R>,
) -> Option<R> {
    let end = Instant::now() + wait;
    let mut guard = lock(mutex);
    loop {
        if let Some(found) = ready(&mut guard) {
            return Some(found);
        }
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        guard = changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
