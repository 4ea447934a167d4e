//! Rows that no request waits for: last uses of tokens and audit rows of reads and logins. They
//! are kept in a bounded queue and written in batches by the housekeeper, twice a second. And how
//! many audit rows there may be.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::Store;
use super::audit::Event;
use super::db::execute;
use super::error::{ErrorKind, Result, StoreError};
use crate::util::limits::{
    AUDIT_CHANGES_PER_DAY_MAX, AUDIT_FAILURE_INTERVAL_MS, AUDIT_FAILURES_BURST,
    AUDIT_READS_PER_DAY_MAX, PENDING_ROWS_MAX, TOKEN_USE_INTERVAL_MS,
};
use crate::util::log;
use crate::util::sync::lock;
use crate::util::time::{DAY_MS, now_ms};

/// What waits for the next batch, and how much was written already.
#[derive(Default)]
pub struct Pending {
    queue: Mutex<Queue>,
    /// Failed logins at accounts that there are, and at made-up ones, which cannot drown the others.
    failures: Mutex<[RateLimit; 2]>,
    reads: Mutex<Daily>,
    changes: Mutex<Daily>,
}

#[derive(Default)]
struct Queue {
    /// Last use by token, milliseconds since 1970.
    uses: HashMap<i64, i64>,
    events: Vec<Event>,
    dropped: u64,
}

/// A burst of rows, and few in the long run, by the theoretical arrival time of the next one (the
/// generic cell rate algorithm).
#[derive(Default)]
struct RateLimit {
    arrival: Option<Instant>,
}

impl RateLimit {
    /// Takes one row; says in the log when there is no more.
    fn take(&mut self) -> bool {
        let interval = Duration::from_millis(AUDIT_FAILURE_INTERVAL_MS);
        let now = Instant::now();
        let latest = now + interval * AUDIT_FAILURES_BURST;
        let next = self.arrival.unwrap_or(now).max(now) + interval;
        if next > latest {
            return false;
        }
        if next + interval > latest {
            log::warn("so many failed logins that some are in this log alone");
        }
        self.arrival = Some(next);
        true
    }
}

/// How many rows each user caused since midnight (UTC) or the start of this process.
#[derive(Default)]
struct Daily {
    day: i64,
    rows: HashMap<i64, u32>,
}

impl Daily {
    /// The row; in place of the first one too many, a row that says so; then nothing.
    fn admit(&mut self, event: Event, rows_max: u32) -> Option<Event> {
        let Some(user) = event.user_id() else { return Some(event) };
        let day = now_ms() / DAY_MS;
        if self.day != day {
            *self = Daily { day, rows: HashMap::new() };
        }
        let rows = self.rows.entry(user).or_default();
        match *rows {
            n if n > rows_max => return None,
            n => *rows = n + 1,
        }
        if *rows <= rows_max {
            return Some(event);
        }
        log::warn(&format!("no more audit rows of this kind of user {user} today"));
        Some(event.limited(rows_max))
    }
}

impl Pending {
    /// Notes the use of a token, unless one was written within the last minute.
    pub fn token_used(&self, token: i64, last_used_at: Option<i64>, now: i64) {
        // The absolute difference: a clock that jumped back must not silence the column.
        if last_used_at.is_some_and(|last| (now - last).abs() < TOKEN_USE_INTERVAL_MS) {
            return;
        }
        let mut queue = lock(&self.queue);
        if queue.uses.len() < PENDING_ROWS_MAX {
            queue.uses.insert(token, now);
        }
    }
}

impl Store {
    /// Writes an audit row with the change that a user makes.
    pub(super) fn audit(&self, connection: &Connection, event: Event) -> Result<()> {
        let event = lock(&self.pending.changes).admit(event, AUDIT_CHANGES_PER_DAY_MAX);
        event.map_or(Ok(()), |event| event.write(connection))
    }

    /// Hands over an audit row for the next batch.
    pub fn audit_later(&self, event: Event) {
        let admitted = match event.is_of_anybody() {
            true => {
                let [of_users, of_nobody] = &mut *lock(&self.pending.failures);
                let limit = if event.user_id().is_some() { of_users } else { of_nobody };
                limit.take().then_some(event)
            }
            false => lock(&self.pending.reads).admit(event, AUDIT_READS_PER_DAY_MAX),
        };
        let Some(event) = admitted else { return };
        let mut queue = lock(&self.pending.queue);
        if queue.events.len() < PENDING_ROWS_MAX {
            queue.events.push(event);
        } else {
            queue.dropped += 1;
        }
    }

    /// Notes a push that found no room; other failures of it are no events.
    pub fn audit_refusal(&self, push: Event, error: &StoreError) {
        match error.kind {
            ErrorKind::QuotaExceeded => self.audit_later(push.refused("quota_exceeded")),
            ErrorKind::DiskFull => self.audit_later(push.refused("disk_full")),
            _ => {}
        }
    }

    /// Writes what waits. On failure it is logged and dropped: nobody waits for these rows, and
    /// a full disk must not fill the memory.
    pub fn write_pending(&self) {
        let Queue { uses, events, dropped } = std::mem::take(&mut *lock(&self.pending.queue));
        if dropped > 0 {
            log::warn(&format!("{dropped} audit rows dropped: too many in one second"));
        }
        if uses.is_empty() && events.is_empty() {
            return;
        }
        let written = self.write(|tx| {
            for (token, at) in &uses {
                let sql = "UPDATE api_tokens SET last_used_at = ?2 WHERE id = ?1";
                execute(tx, sql, params![token, at])?;
            }
            events.iter().try_for_each(|event| event.write(tx))
        });
        if let Err(error) = written {
            let rows = uses.len() + events.len();
            log::error(&format!("{rows} rows of token uses and audit not written: {error}"));
        }
    }
}
