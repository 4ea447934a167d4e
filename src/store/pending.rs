//! Rows that no request waits for: last uses of tokens and audit rows of reads and logins. They
//! are kept in a bounded queue and written in batches by the housekeeper, twice a second.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::params;

use super::Store;
use super::audit::Event;
use super::db::execute;
use crate::util::limits::{
    AUDIT_STRANGER_ROW_MS, AUDIT_STRANGER_ROWS_MAX, PENDING_ROWS_MAX, TOKEN_USE_INTERVAL_MS,
};
use crate::util::log;
use crate::util::sync::lock;

/// What waits for the next batch.
#[derive(Default)]
pub struct Pending {
    queue: Mutex<Queue>,
    /// Of failures at accounts that there are, and at made-up ones, which cannot drown the others.
    strangers: Mutex<[Budget; 2]>,
}

/// How many audit rows strangers may cause: many at once, few in the long run.
#[derive(Default)]
struct Budget {
    /// When all rows will have been given back, one after the other; None before the first.
    whole: Option<Instant>,
}

impl Budget {
    /// Takes one row; says in the log when there is no more.
    fn take(&mut self) -> bool {
        let each = Duration::from_millis(AUDIT_STRANGER_ROW_MS.unsigned_abs());
        let now = Instant::now();
        let whole = self.whole.unwrap_or(now).max(now) + each;
        let last = now + each * AUDIT_STRANGER_ROWS_MAX;
        if whole > last {
            return false;
        }
        if whole + each > last {
            log::warn("so many failed logins that some are in this log alone");
        }
        self.whole = Some(whole);
        true
    }
}

#[derive(Default)]
struct Queue {
    /// Last use by token, milliseconds since 1970.
    uses: HashMap<i64, i64>,
    events: Vec<Event>,
    dropped: u64,
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
    /// Hands over an audit row for the next batch.
    pub fn audit_later(&self, event: Event) {
        if let Some(known) = event.is_strangers() {
            let [of_users, of_nobody] = &mut *lock(&self.pending.strangers);
            if !(if known { of_users } else { of_nobody }).take() {
                return;
            }
        }
        let mut queue = lock(&self.pending.queue);
        if queue.events.len() < PENDING_ROWS_MAX {
            queue.events.push(event);
        } else {
            queue.dropped += 1;
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
