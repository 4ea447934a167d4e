//! Turns of users at the workers: one user's requests have at most half of them, over however many
//! connections they come; the others wait among themselves.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::util::limits::{WORKER_WAIT_S, WORKERS_PER_USER_MAX};
use crate::util::sync::{lock, wait_for};

/// How many requests of each user are at the workers, or on their way there.
#[derive(Default)]
pub struct Turns {
    running: Mutex<HashMap<i64, usize>>,
    ended: Condvar,
}

/// One request may go to a worker; dropping this lets the user's next one go.
pub struct Turn {
    turns: Arc<Turns>,
    user_id: i64,
}

impl Turns {
    /// A turn of this user; None if none came free in time.
    pub fn take(self: &Arc<Turns>, user_id: i64) -> Option<Turn> {
        let wait = Duration::from_secs(WORKER_WAIT_S);
        wait_for(&self.running, &self.ended, wait, |running| {
            let of_user = running.entry(user_id).or_default();
            (*of_user < WORKERS_PER_USER_MAX).then(|| *of_user += 1)
        })?;
        Some(Turn { turns: Arc::clone(self), user_id })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = lock(&self.turns.running);
        match running.get(&self.user_id).copied() {
            Some(n) if n > 1 => running.insert(self.user_id, n - 1),
            _ => running.remove(&self.user_id),
        };
        drop(running);
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_half_of_the_workers_and_another_gets_in_at_once() {
        let turns = Arc::new(Turns::default());
        let held: Vec<_> = (0..WORKERS_PER_USER_MAX).map(|_| turns.take(1).unwrap()).collect();
        let waiting = Arc::clone(&turns);
        let next = std::thread::spawn(move || waiting.take(1).is_some());
        assert!(turns.take(2).is_some(), "while the first user's next one waits");
        assert!(!next.is_finished());
        drop(held);
        assert!(next.join().unwrap());
        assert!(lock(&turns.running).is_empty());
    }
}
