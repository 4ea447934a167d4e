//! Locks that survive a panic: a panic in a handler is caught, so a poisoned lock says nothing
//! about the data behind it (SQLite rolled back, and plain values are written in one step). Also
//! what threads share: a fixed-size pool, and a total of which each holder has a part.
//!
//! Locks are taken in this order only: on a connection's thread a hash permit or the user's worker
//! permit, then a link to tiny_http; on a worker and in a command `backup.lock`, a cached check (of
//! health, of the clock), one SQLite connection (the writer or a reader, never both), and last a
//! mutex around a plain value, which is never held while waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks a mutex, even if an earlier holder panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a total, subtracted from the total again on drop, even in a panic.
pub struct Share {
    total: Arc<AtomicU64>,
    part: u64,
}

impl Share {
    /// An empty part of this total.
    pub fn of(total: &Arc<AtomicU64>) -> Share {
        Share { total: Arc::clone(total), part: 0 }
    }

    /// Adds to both. If the total would exceed `max`, the error is the unchanged total.
    pub fn grow(&mut self, by: u64, max: u64) -> Result<(), u64> {
        let grown = |total: u64| total.checked_add(by).filter(|total| *total <= max);
        self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)?;
        self.part = self.part.saturating_add(by);
        Ok(())
    }

    /// Subtracts from both, at most the whole part.
    pub fn shrink(&mut self, by: u64) {
        let by = by.min(self.part);
        self.part -= by;
        self.total.fetch_sub(by, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.part);
    }
}

/// A fixed number of places, each with a value that is created by its first use at the latest.
pub struct Pool<T> {
    places: Mutex<Places<T>>,
    freed: Condvar,
}

struct Places<T> {
    free: Vec<Option<T>>,
    /// Number of threads that wait for a place.
    waiting: usize,
}

/// A taken place, freed on drop, even in a panic.
pub struct PoolGuard<T> {
    pool: Arc<Pool<T>>,
    /// None until the value is created, and again if it proves unusable.
    pub value: Option<T>,
}

impl<T> Pool<T> {
    /// Creates a pool whose places are all free.
    pub fn new(places: impl IntoIterator<Item = Option<T>>) -> Arc<Pool<T>> {
        let places = Mutex::new(Places { free: places.into_iter().collect(), waiting: 0 });
        Arc::new(Pool { places, freed: Condvar::new() })
    }

    /// Takes a place, the one used last first; None if none becomes free within `wait`.
    pub fn take(self: &Arc<Self>, wait: Duration) -> Option<PoolGuard<T>> {
        let mut places = lock(&self.places);
        places.waiting += 1;
        let waited = self.freed.wait_timeout_while(places, wait, |places| places.free.is_empty());
        let mut places = waited.unwrap_or_else(PoisonError::into_inner).0;
        places.waiting -= 1;
        let value = places.free.pop()?;
        Some(PoolGuard { pool: Arc::clone(self), value })
    }
}

impl<T> Drop for PoolGuard<T> {
    fn drop(&mut self) {
        let mut places = lock(&self.pool.places);
        places.free.push(self.value.take());
        // Waking is a system call even if nobody waits.
        if places.waiting > 0 {
            drop(places);
            self.pool.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_as_many_places_as_it_was_made_with_and_keeps_what_is_in_them() {
        let pool = Pool::new([None; 2]);
        let (mut first, second) = (pool.take(Duration::ZERO).unwrap(), pool.take(Duration::ZERO));
        assert!(pool.take(Duration::from_millis(20)).is_none());
        first.value = Some(7);
        drop((second, first));
        assert_eq!(pool.take(Duration::ZERO).unwrap().value, Some(7));
    }

    #[test]
    fn parts_fit_into_the_total_together_and_are_given_back() {
        let total = Arc::default();
        let (mut first, mut second) = (Share::of(&total), Share::of(&total));
        assert_eq!((first.grow(6, 10), second.grow(5, 10)), (Ok(()), Err(6)));
        assert_eq!((second.grow(4, 10), first.grow(u64::MAX, u64::MAX)), (Ok(()), Err(10)));
        first.shrink(2);
        second.shrink(5);
        assert_eq!(total.load(Ordering::Relaxed), 4);
        drop((first, second));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_panic_with_a_place_in_hand_gives_it_back() {
        let pool = Pool::<()>::new([None]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _taken = pool.take(Duration::ZERO).unwrap();
            panic!("as a handler might");
        }));
        assert!(panicked.is_err() && pool.take(Duration::ZERO).is_some());
    }

    #[test]
    fn who_waits_gets_the_place_that_comes_free() {
        let pool = Pool::<()>::new([None]);
        std::thread::scope(|scope| {
            let taken = pool.take(Duration::ZERO).unwrap();
            let waiters: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| pool.take(Duration::from_secs(20)).is_some()))
                .collect();
            drop(taken);
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        });
    }
}
