//! The minimum rate of bodies and answers.

use std::io;
use std::time::{Duration, Instant};

use crate::limits::RATE_MIN_BYTES_PER_S;

/// A deadline that moves with the bytes: at first the grace from now, later by a second for each
/// [`RATE_MIN_BYTES_PER_S`] bytes, but never further than the grace from now, so that a fast
/// start cannot be saved up.
pub struct Pace {
    deadline: Instant,
    grace: Duration,
}

impl Pace {
    /// Begins now.
    pub fn new(grace: Duration) -> Pace {
        Pace { deadline: Instant::now() + grace, grace }
    }

    /// Leaves out the time since `begin`, in which nobody waited for the peer.
    pub fn skip(&mut self, begin: Instant) {
        self.deadline = self.deadline.checked_add(begin.elapsed()).unwrap_or(self.deadline);
    }

    /// Notes bytes that moved; an error of kind TimedOut once they are too few.
    pub fn moved(&mut self, bytes: usize) -> io::Result<()> {
        let now = Instant::now();
        if now > self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let earned_ns = (bytes as u64).saturating_mul(1_000_000_000) / RATE_MIN_BYTES_PER_S;
        let moved = self.deadline.checked_add(Duration::from_nanos(earned_ns));
        self.deadline = moved.map_or(now + self.grace, |moved| moved.min(now + self.grace));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_start_cannot_be_saved_up() {
        let mut pace = Pace::new(Duration::from_millis(30));
        pace.moved(usize::MAX).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        assert!(pace.moved(1).is_err());
    }

    #[test]
    fn a_trickle_does_not_move_the_deadline() {
        let mut pace = Pace::new(Duration::from_millis(40));
        let dropped = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            pace.moved(1).is_err()
        });
        assert!(dropped);
    }
}
