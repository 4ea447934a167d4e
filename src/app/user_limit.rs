//! Limits the workers that one user's requests may hold to half of all, over any number of
//! connections. Further ones wait for that user's earlier requests and never delay another user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::util::limits::{WORKER_WAIT_S, WORKERS_PER_USER_MAX};
use crate::util::sync::{Pool, PoolGuard, lock};

/// The permits of each user who has sent a request since the start.
#[derive(Default)]
pub struct UserLimit(Mutex<HashMap<i64, Arc<Pool<()>>>>);

impl UserLimit {
    /// Takes a permit of this user, held until it is dropped; None if none becomes free in time.
    pub fn take(&self, user_id: i64) -> Option<PoolGuard<()>> {
        let new = || Pool::new([None; WORKERS_PER_USER_MAX]);
        // The lock is released before the wait, so that other users do not wait too.
        let limit = Arc::clone(lock(&self.0).entry(user_id).or_insert_with(new));
        limit.take(Duration::from_secs(WORKER_WAIT_S))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_half_of_the_workers_and_another_gets_in_at_once() {
        let limit = Arc::new(UserLimit::default());
        let held: Vec<_> = (0..WORKERS_PER_USER_MAX).map(|_| limit.take(1).unwrap()).collect();
        let none_free = lock(&limit.0)[&1].take(Duration::ZERO).is_none();
        assert!(none_free, "no permit beyond half of the workers");
        let waiting = Arc::clone(&limit);
        let next = std::thread::spawn(move || waiting.take(1).is_some());
        assert!(limit.take(2).is_some(), "while the first user's next one waits");
        assert!(!next.is_finished());
        drop(held);
        assert!(next.join().unwrap());
        let again: Vec<_> = (0..WORKERS_PER_USER_MAX).map(|_| limit.take(1)).collect();
        assert!(again.iter().all(Option::is_some), "given back");
    }
}
