//! Rows that no request waits for: last uses of tokens, and audit rows of reads and logins. A
//! bounded queue holds them until the housekeeper writes a batch, twice a second. Also limits the
//! number of audit rows.

use std::collections::HashMap;
use std::mem::take;

use rusqlite::{Connection, params};

use super::Store;
use super::audit::Event;
use super::db::execute;
use super::error::{ErrorKind, Result, StoreError};
use crate::util::limits::{
    AUDIT_CHANGES_PER_DAY_MAX, AUDIT_FAILURES_PER_DAY_MAX, AUDIT_READS_PER_DAY_MAX,
    DEFERRED_ROWS_MAX, TOKEN_USE_INTERVAL_MS,
};
use crate::util::log;
use crate::util::sync::lock;
use crate::util::time::{DAY_MS, now_ms};

/// The queue for the next batch, and the number of audit rows since midnight (UTC) or the start of
/// this process.
#[derive(Default)]
pub struct DeferredRows {
    /// Last use by token, in milliseconds since 1970.
    uses: HashMap<i64, i64>,
    events: Vec<Event>,
    dropped: u64,
    day: i64,
    /// Audit rows by their limit and user. Attempts at made-up accounts have no user, so they crowd
    /// out no other rows.
    rows: HashMap<(u32, Option<i64>), u32>,
}

impl DeferredRows {
    /// Returns the row if it is within the limit. The first row beyond becomes one that says so;
    /// later ones are dropped.
    fn admit(&mut self, event: Event, rows_max: u32) -> Option<Event> {
        let day = now_ms() / DAY_MS;
        if self.day != day {
            self.day = day;
            self.rows.clear();
        }
        let rows = self.rows.entry((rows_max, event.user_id)).or_default();
        *rows = rows.saturating_add(1);
        match (*rows).checked_sub(rows_max) {
            None | Some(0) => Some(event),
            Some(1) => {
                log::warn("so many audit rows of one kind that the rest of today has none");
                let detail = Some(format!("{rows_max} rows are kept of one day"));
                let (name, outcome) = ("audit.limited", "limited");
                Some(Event { name, outcome, detail, machine: None, subject: None, ..event })
            }
            _ => None,
        }
    }
}

impl Store {
    /// Queues the last use of a token, unless one was written within the last minute.
    pub(super) fn token_used(&self, token: i64, last_used_at: Option<i64>) {
        let now = now_ms();
        // The absolute difference: a clock that jumped back must not stop the updates.
        if last_used_at.is_some_and(|last| (now - last).abs() < TOKEN_USE_INTERVAL_MS) {
            return;
        }
        let mut deferred = lock(&self.deferred);
        if deferred.uses.len() < DEFERRED_ROWS_MAX {
            deferred.uses.insert(token, now);
        }
    }

    /// Writes an audit row in the transaction of a user's change.
    pub(super) fn audit(&self, connection: &Connection, event: Event) -> Result<()> {
        let event = lock(&self.deferred).admit(event, AUDIT_CHANGES_PER_DAY_MAX);
        event.map_or(Ok(()), |event| event.insert(connection))
    }

    /// Queues an audit row for the next batch.
    pub fn audit_later(&self, event: Event) {
        let rows_max = match event.outcome {
            // Unauthenticated clients can cause these.
            "failed" | "throttled" => AUDIT_FAILURES_PER_DAY_MAX,
            _ => AUDIT_READS_PER_DAY_MAX,
        };
        let mut deferred = lock(&self.deferred);
        let Some(event) = deferred.admit(event, rows_max) else { return };
        if deferred.events.len() < DEFERRED_ROWS_MAX {
            deferred.events.push(event);
        } else {
            deferred.dropped += 1;
        }
    }

    /// Queues an audit row for a push that found no room; other failures of a push are not audited.
    pub fn audit_refusal(&self, push: Event, error: &StoreError) {
        let why = match error.kind {
            ErrorKind::QuotaExceeded => "quota_exceeded",
            ErrorKind::DiskFull | ErrorKind::LowDisk => "disk_full",
            _ => return,
        };
        self.audit_later(Event { outcome: "refused", detail: Some(why.into()), ..push });
    }

    /// Writes the queued rows. On failure they are logged and dropped: no request waits for them,
    /// and a full disk must not fill the memory.
    pub fn write_deferred_rows(&self) {
        let (uses, events, dropped) = {
            let mut deferred = lock(&self.deferred);
            (take(&mut deferred.uses), take(&mut deferred.events), take(&mut deferred.dropped))
        };
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
            events.iter().try_for_each(|event| event.insert(tx))
        });
        if let Err(error) = written {
            let rows = uses.len() + events.len();
            log::error(&format!("{rows} rows of token uses and audit not written: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Policy;

    #[test]
    fn what_waits_to_be_written_is_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
        let more = DEFERRED_ROWS_MAX + 10;
        for n in 0..more {
            store.audit_later(Event::new("server.start"));
            store.token_used(n as i64, None);
        }
        let queue = lock(&store.deferred);
        assert_eq!((queue.events.len(), queue.dropped), (DEFERRED_ROWS_MAX, 10));
        assert_eq!(queue.uses.len(), DEFERRED_ROWS_MAX);
    }
}
