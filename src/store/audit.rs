//! The audit log: what happened, by whom, from where, with what outcome; never content.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use rusqlite::{Connection, params};

use super::db::{execute, query_rows};
use super::error::{Result, StoreError};
use super::{Store, User};
use crate::util::time::now_ms;
use crate::util::types::Email;

/// The names of all events.
pub const EVENTS: [&str; 30] = [
    "audit.limited", "backup", "entity.add", "entity.change", "entity.key", "entity.pull",
    "entity.push", "entity.remove", "environment.restore", "environment.sync", "keypair.add",
    "login.failed", "login.ok", "login.throttled", "machine.register", "machine.remove", "prune",
    "server.start", "server.stop", "snapshot.prune", "snapshot.pull", "snapshot.push",
    "token.create", "token.revoke", "user.add", "user.disable", "user.enable", "user.passwd",
    "user.quota", "user.remove",
];

/// One row of the audit log.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at: i64,
    pub name: &'static str,
    /// `ok`, `failed`, `throttled`, `refused` or `limited`.
    pub outcome: &'static str,
    /// The user whom the event concerns, if known.
    pub user_id: Option<i64>,
    pub email: Option<String>,
    /// The client's id of the machine that the event concerns.
    pub machine: Option<String>,
    /// The client's address; None for the operator's commands.
    pub peer: Option<IpAddr>,
    /// The id of the row that the event concerns.
    pub subject: Option<i64>,
    /// A count, or a reason.
    pub detail: Option<String>,
}

impl Event {
    /// An event that happens now, with outcome `ok`.
    pub fn new(name: &'static str) -> Event {
        debug_assert!(EVENTS.contains(&name), "{name} is not in the list");
        Event { at: now_ms(), name, outcome: "ok", ..Event::default() }
    }

    /// The same for an action of this user.
    pub fn of(user: &User, name: &'static str) -> Event {
        let (user_id, email, peer) = (Some(user.id), Some(user.email.clone()), user.peer);
        Event { user_id, email, peer, ..Event::new(name) }
    }

    pub fn machine(self, machine_id: &str) -> Event {
        Event { machine: Some(machine_id.to_owned()), ..self }
    }

    pub fn subject(self, id: i64) -> Event {
        Event { subject: Some(id), ..self }
    }

    /// Inserts the row in the transaction of the change that it records.
    pub(super) fn insert(&self, connection: &Connection) -> Result<()> {
        let sql = "INSERT INTO audit_log (created_at, event, user_id, user_email, machine, peer,
                     outcome, subject_id, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let Event { at, name, outcome, user_id, email, machine, subject, detail, .. } = self;
        let peer = self.peer.map(|peer| peer.to_string());
        let row = params![at, name, user_id, email, machine, peer, outcome, subject, detail];
        execute(connection, sql, row).map(drop)
    }
}

impl Store {
    /// Passes the rows of these times (milliseconds since 1970) to `work`, oldest first, a page at
    /// a time until `work` fails. The order is by time, not by id, since rows of reads and logins
    /// are written later than they happened. With `user` or `event`, only rows of it; the user may
    /// have been removed since.
    pub fn each_audit_row<E: From<StoreError>>(
        &self, times: RangeInclusive<i64>, user: Option<&Email>, event: Option<&str>,
        mut work: impl FnMut(&[String]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let sql = "SELECT row, created_at, id FROM audit_rows
                    WHERE (created_at, id) > (?1, ?2) AND created_at <= ?3
                      AND (?4 IS NULL OR user_email = ?4) AND (?5 IS NULL OR event = ?5)
                    ORDER BY created_at, id LIMIT 1000";
        let (mut since, mut after) = (*times.start(), i64::MIN);
        loop {
            let values = params![since, after, times.end(), user, event];
            let page: Vec<(String, i64, i64)> =
                self.db.read(|c| query_rows(c, sql, values, |row| row.try_into()))?;
            let Some((_, last_at, last_id)) = page.last() else { return Ok(()) };
            (since, after) = (*last_at, *last_id);
            work(&page.into_iter().map(|(line, ..)| line).collect::<Vec<_>>())?;
        }
    }
}

/// Parses a date or an RFC 3339 time to milliseconds since 1970; None if the text is neither.
pub fn moment(text: &str) -> Option<i64> {
    // SQLite accepts more forms of time than these: day numbers, 24:00, the 30th of February.
    let text = text.to_ascii_uppercase();
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let after_seconds = form.strip_prefix("0000-00-00T00:00:00");
    let zone = after_seconds.map(|rest| rest.trim_start_matches(['.', '0']));
    if form != "0000-00-00" && !matches!(zone, Some("Z" | "+00:00" | "-00:00")) {
        return None;
    }
    let sql = "SELECT CAST(round(unixepoch(?1, 'subsec') * 1000) AS INTEGER)
                WHERE date(substr(?1, 1, 10)) = substr(?1, 1, 10) AND substr(?1, 12, 2) <> '24'";
    let parser = Connection::open_in_memory().ok()?;
    parser.query_row(sql, [text], |row| row.get(0)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_in_any_zone_and_a_day_begins_at_midnight() {
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(moment("1970-01-01T00:00:00.5Z"), Some(500));
        assert_eq!(moment("1970-01-02"), Some(86_400_000));
        assert_eq!(moment("2026-11-23t16:08:00.007z"), Some(1_795_450_080_007));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "", "yesterday", "now", "2460000.5", "2026-13-01", "2026-02-30",
            "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T24:00:00Z",
            "2026-01-01T16:08Z", "2026-01-01T16:08:00", "2026-01-01T16:08:00 Z", "2026-1-1",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
