//! Locks that outlive a panic: a handler that panics is caught, so a poisoned lock says nothing
//! about the data behind it (SQLite rolled back, and plain values are written in one step). And a
//! fixed number of places that threads take turns at.

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

/// A fixed number of places, each with a thing in it that is made at its first use.
pub struct Pool<T> {
    line: Mutex<Line<T>>,
    freed: Condvar,
}

struct Line<T> {
    free: Vec<Option<T>>,
    waiting: usize,
}

/// A taken place; free again when it goes, in a panic too.
pub struct PoolGuard<'a, T> {
    pool: &'a Pool<T>,
    /// None until it is made, and again if it proves unusable.
    pub value: Option<T>,
}

impl<T> Pool<T> {
    /// So many places, all free and empty.
    pub fn new(places: usize) -> Pool<T> {
        let free = (0..places).map(|_| None).collect();
        Pool { line: Mutex::new(Line { free, waiting: 0 }), freed: Condvar::new() }
    }

    /// A place, the one used last first; None if none came free within `wait`.
    pub fn take(&self, wait: Duration) -> Option<PoolGuard<'_, T>> {
        self.take_or_queue(wait, usize::MAX)
    }

    /// The same; None at once where so many wait already.
    pub fn take_or_queue(&self, wait: Duration, queue_max: usize) -> Option<PoolGuard<'_, T>> {
        let mut line = lock(&self.line);
        let first = line.free.pop();
        let value = match first {
            Some(value) => value,
            None if line.waiting >= queue_max => return None,
            None => {
                line.waiting += 1;
                drop(line);
                let found = wait_for(&self.line, &self.freed, wait, |line| line.free.pop());
                lock(&self.line).waiting -= 1;
                found?
            }
        };
        Some(PoolGuard { pool: self, value })
    }
}

impl<T> Drop for PoolGuard<'_, T> {
    fn drop(&mut self) {
        let mut line = lock(&self.pool.line);
        line.free.push(self.value.take());
        // To wake nobody is a system call too.
        if line.waiting > 0 {
            drop(line);
            self.pool.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_as_many_places_as_it_was_made_with_and_keeps_what_is_in_them() {
        let pool = Pool::new(2);
        let (mut first, second) = (pool.take(Duration::ZERO).unwrap(), pool.take(Duration::ZERO));
        assert!(pool.take(Duration::from_millis(20)).is_none());
        first.value = Some(7);
        drop((second, first));
        assert_eq!(pool.take(Duration::ZERO).unwrap().value, Some(7));
    }

    #[test]
    fn one_more_than_may_wait_is_refused_at_once_and_the_others_get_their_turn() {
        let pool = Pool::<()>::new(1);
        std::thread::scope(|scope| {
            let taken = pool.take(Duration::ZERO).unwrap();
            let waits = || pool.take_or_queue(Duration::from_secs(20), 8).is_some();
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(waits)).collect();
            while lock(&pool.line).waiting < 8 {
                std::thread::yield_now();
            }
            assert!(pool.take_or_queue(Duration::from_secs(3600), 8).is_none());
            drop(taken);
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        });
    }

    #[test]
    fn a_panic_with_a_place_in_hand_gives_it_back() {
        let pool = Pool::<()>::new(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _taken = pool.take(Duration::ZERO).unwrap();
            panic!("as a handler might");
        }));
        assert!(panicked.is_err() && pool.take(Duration::ZERO).is_some());
    }

    #[test]
    fn who_waits_gets_the_place_that_comes_free() {
        let pool = Pool::<()>::new(1);
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
