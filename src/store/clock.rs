//! A wrong clock, from a board without a battery or a bad time server, must delete nothing: while
//! it seems wrong, deletion by age waits for 24 hours of running (snapshots: see `prune`).

use std::time::Instant;

use serde_json::json;

use super::Store;
use super::db::query_scalar;
use super::error::Result;
use super::status::{Fact, insert_fact};
use crate::util::limits::{CLOCK_JUMP_MS, CLOCK_LEAD_MS, CLOCK_WAIT_MS};
use crate::util::log;
use crate::util::sync::lock;
use crate::util::time::now_ms;

/// Both clocks at the time of a check.
#[derive(Clone, Copy)]
pub struct Reading {
    wall_ms: i64,
    at: Instant,
    /// How long the wait still lasts.
    wait_ms: i64,
}

impl Reading {
    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// How long the wait lasts at the next check; a new one begins if the wall clock jumped.
    fn next_wait(&self, wall_ms: i64, elapsed_ms: i64) -> i64 {
        let jump = wall_ms.saturating_sub(self.wall_ms).saturating_sub(elapsed_ms);
        match jump.saturating_abs() > CLOCK_JUMP_MS {
            true => CLOCK_WAIT_MS,
            false => self.wait_ms.saturating_sub(elapsed_ms).max(0),
        }
    }
}

impl Store {
    /// True if the clock can be trusted to tell what is old. The remaining wait is stored, so that
    /// a restart does not end it. A server stores each change, as retention checks hourly; a
    /// command stores only the beginning of a wait, which the command's own row would hide.
    pub fn trusts_clock(&self) -> Result<bool> {
        let mut last = lock(&self.clock);
        let wall_ms = now_ms();
        let (before, wait_ms) = match &*last {
            None => (0, self.first_wait(wall_ms)?),
            Some(reading) => (reading.wait_ms, reading.next_wait(wall_ms, reading.elapsed_ms())),
        };
        let earlier = last.replace(Reading { wall_ms, at: Instant::now(), wait_ms });
        drop(last);
        let begins = wait_ms > before;
        if begins && self.is_server {
            log::warn(&format!(
                "the clock is far from the newest row, or jumped: nothing is deleted by its age in \
                 the next {} hours; set the clock if it is wrong",
                wait_ms / 3_600_000
            ));
        }
        let keep = (self.is_server && wait_ms != before) || (begins && wait_ms == CLOCK_WAIT_MS);
        if keep && self.db.is_in_place() {
            let kept =
                self.write(|tx| insert_fact(tx, Fact::CLOCK_WAIT, &json!({ "wait_ms": wait_ms })));
            // On failure, no row may be written that would hide the jump: the next write checks
            // again.
            kept.inspect_err(|_| *lock(&self.clock) = earlier)?;
        }
        Ok(wait_ms == 0)
    }

    /// Called before each write, including the first of a process: otherwise the next start would
    /// take rows of a clock that jumped for the newest.
    pub(super) fn detect_clock_jump(&self) -> Result<()> {
        let last = *lock(&self.clock);
        let jumped =
            |reading: Reading| reading.next_wait(now_ms(), reading.elapsed_ms()) > reading.wait_ms;
        if last.is_none_or(jumped) {
            self.trusts_clock()?;
        }
        Ok(())
    }

    /// The wait that an earlier run left, or a new one if the newest row is far from now.
    fn first_wait(&self, wall_ms: i64) -> Result<i64> {
        let sql = "SELECT max(created_at) FROM (
                     SELECT max(id), created_at FROM audit_log UNION ALL
                     SELECT max(id), created_at FROM state_snapshots)";
        let newest: Option<i64> = self.db.read(|c| query_scalar(c, sql, []))?;
        let left = self.fact(Fact::CLOCK_WAIT, "wait_ms")?;
        match newest.is_some_and(|newest| (wall_ms - newest).saturating_abs() > CLOCK_LEAD_MS) {
            true => Ok(CLOCK_WAIT_MS),
            false => Ok(left.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::time::DAY_MS;

    #[test]
    fn a_wait_ends_after_a_day_of_running_and_begins_again_where_the_clocks_part() {
        let look = |wait_ms| Reading { wall_ms: 1_000_000, at: Instant::now(), wait_ms };
        let hour = 3_600_000;
        assert_eq!(look(0).next_wait(1_000_000 + hour, hour), 0);
        assert_eq!(look(DAY_MS).next_wait(1_000_000 + hour, hour), DAY_MS - hour);
        assert_eq!(look(hour).next_wait(1_000_000 + hour, hour), 0);
        for jump in [-2 * DAY_MS, 2 * DAY_MS] {
            assert_eq!(look(0).next_wait(1_000_000 + hour + jump, hour), DAY_MS);
            assert_eq!(look(hour).next_wait(1_000_000 + hour + jump, hour), DAY_MS);
        }
        assert_eq!(look(0).next_wait(1_000_000 + 8 * hour, 0), 0, "a night's sleep is not a jump");
    }
}
