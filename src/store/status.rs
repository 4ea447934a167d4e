//! Data for the operator's lists and for `status`.

use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, Row, params};
use serde_json::Value;

use super::audit::moment;
use super::data_dir::OFFSITE_LAST;
use super::db::{execute, query_one, query_opt, query_rows};
use super::error::Result;
use super::{Store, users};
use crate::util::limits::FREE_BYTES_MIN;
use crate::util::time::{DAY_MS, now_ms, rfc3339};
use crate::util::types::Email;

/// Rows of a list. A column name ends with its unit: `_bytes`, or `_at` for milliseconds since
/// 1970.
#[derive(Debug, Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Returns each row as a JSON object, with times in RFC 3339.
    pub fn objects(&self) -> Vec<Value> {
        let member = |(name, value): (&String, &Value)| {
            let time = value.as_i64().filter(|_| name.ends_with("_at")).map(rfc3339);
            (name.clone(), time.map_or_else(|| value.clone(), Value::from))
        };
        let object = |row: &Vec<Value>| self.columns.iter().zip(row).map(member).collect();
        self.rows.iter().map(object).collect()
    }
}

/// Everything that `status` shows; times are milliseconds since 1970.
pub struct Status {
    pub running: bool,
    pub free_bytes: u64,
    /// Free bytes below which pushes are refused, as of the last start.
    pub min_free_bytes: u64,
    pub users: Table,
    pub machines: Table,
    pub last_backup: Option<i64>,
    pub failed_backup: Option<i64>,
    pub last_check: Option<i64>,
    pub last_offsite: Option<i64>,
    /// Findings that need the operator's attention, one sentence each.
    pub attention: Vec<String>,
}

const ATTENTION: &str = include_str!("attention.sql");

impl Store {
    /// All users, oldest first.
    pub fn user_table(&self) -> Result<Table> {
        self.table("SELECT * FROM user_list", [])
    }

    /// API tokens, oldest first, of all users or of one.
    pub fn token_table(&self, email: Option<&Email>) -> Result<Table> {
        self.table("SELECT * FROM token_list WHERE ?1 IS NULL OR user = ?1", [self.known(email)?])
    }

    /// Machines, including hidden ones, of all users or of one.
    pub fn machine_table(&self, email: Option<&Email>) -> Result<Table> {
        self.table("SELECT * FROM machine_list WHERE ?1 IS NULL OR user = ?1", [self.known(email)?])
    }

    /// When each machine that is not hidden last pushed.
    pub fn push_table(&self) -> Result<Table> {
        let sql = "SELECT user, machine_id, last_push_at FROM machine_list WHERE state = 'listed'";
        self.table(sql, [])
    }

    /// Environments of a user, with `deleted` also soft-deleted ones.
    pub fn environment_table(&self, email: &Email, deleted: bool) -> Result<Table> {
        let sql = "SELECT name, tier, color, protection, state FROM environment_list
                    WHERE user = ?1 AND (?2 OR state = 'live')";
        self.table(sql, params![self.known(Some(email))?, deleted])
    }

    /// The number of users and of machines.
    pub fn counts(&self) -> Result<(u64, u64)> {
        let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM machines)";
        self.db.read(|c| query_one(c, "row", sql, [], |row| row.try_into()))
    }

    /// Users with their stored bytes and quotas; None: no limit.
    pub fn stored_table(&self) -> Result<Table> {
        self.table("SELECT * FROM stored_list", [])
    }

    /// Everything that `status` shows. A machine is silent after `stale_days` days, or never if 0.
    pub fn status(&self, stale_days: u32) -> Result<Status> {
        let (free_bytes, last_offsite) = (self.free_bytes()?, self.last_offsite()?);
        let least = self.fact(Fact::START, "min_free_bytes")?;
        let min_free_bytes = least.map_or(FREE_BYTES_MIN, i64::unsigned_abs);
        let stale_ms = i64::from(stale_days) * DAY_MS;
        let values = params![now_ms(), free_bytes, min_free_bytes, stale_ms, last_offsite];
        Ok(Status {
            running: self.data.server_runs()?,
            free_bytes,
            min_free_bytes,
            users: self.stored_table()?,
            machines: self.machine_table(None)?,
            last_backup: self.fact(Fact::GOOD_BACKUP, "at")?,
            failed_backup: self.fact(Fact::FAILED_BACKUP, "at")?,
            last_check: self.fact(Fact::CHECK, "at")?,
            last_offsite,
            attention: self.db.read(|c| query_rows(c, ATTENTION, values, |row| row.get(0)))?,
        })
    }

    /// Returns when the last off-site copy was made, in milliseconds since 1970, from the file that
    /// its script writes; None if there is none.
    pub fn last_offsite(&self) -> Result<Option<i64>> {
        let (root, mut bytes) = (&self.data.root, Vec::new());
        let opened = root.open_regular(OFFSITE_LAST);
        match opened.and_then(|file| file.take(64).read_to_end(&mut bytes)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // An unreadable time counts as very old, so that `status` reports it.
            Ok(_) => Ok(Some(moment(String::from_utf8_lossy(&bytes).trim()).unwrap_or(0))),
            Err(e) => Err(root.error("read", OFFSITE_LAST, e)),
        }
    }

    /// Returns a number from a recorded fact or, for `at`, when it was recorded, in milliseconds
    /// since 1970.
    pub fn fact(&self, fact: Fact, what: &str) -> Result<Option<i64>> {
        let sql = "SELECT iif(?2 = 'at', updated_at, value ->> ?2) FROM server_state
                    WHERE name = ?1";
        Ok(self.db.read(|c| query_opt(c, sql, [fact.0, what], |row| row.get(0)))?.flatten())
    }

    /// Returns the address if there is such a user, else NotFound.
    fn known<'a>(&self, email: Option<&'a Email>) -> Result<Option<&'a Email>> {
        email.map(|email| self.db.read(|c| users::find(c, email)).map(|_| email)).transpose()
    }

    fn table(&self, sql: &str, values: impl Params) -> Result<Table> {
        let mut table = Table::default();
        let read = |row: &Row<'_>| {
            let names = row.as_ref().column_names();
            table.columns = names.map(str::to_owned).collect();
            (0..table.columns.len()).map(|n| Ok(json(row.get_ref(n)?))).collect()
        };
        let rows = self.db.read(|c| query_rows(c, sql, values, read))?;
        Ok(Table { rows, ..table })
    }
}

/// A fact that one process records for others, in `server_state`: a name and a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact(&'static str);

impl Fact {
    /// The last start of a server: `min_free_bytes`, `quota_bytes`.
    pub const START: Fact = Fact("last_start");
    /// The last complete backup: `files`, `bytes`. The copy has this fact too, as the time of the
    /// copy.
    pub const GOOD_BACKUP: Fact = Fact("last_backup");
    /// The last backup that failed: `reason`.
    pub const FAILED_BACKUP: Fact = Fact("failed_backup");
    /// How long deletion by age is still suspended because the clock seemed wrong: `wait_ms`.
    pub const CLOCK_WAIT: Fact = Fact("clock_wait");
    /// The last successful commit after some in doubt, recorded so that it writes to the WAL:
    /// `files`.
    pub const IN_DOUBT: Fact = Fact("in_doubt");
    /// The last check: `damaged`, `orphans`, `database`, each a number of findings.
    pub const CHECK: Fact = Fact("last_check");
}

/// Records a fact in the transaction that it is about.
pub fn insert_fact(connection: &Connection, fact: Fact, value: &Value) -> Result<()> {
    let sql = "INSERT INTO server_state (name, value, updated_at) VALUES (?1, ?2, ?3)
               ON CONFLICT (name) DO UPDATE SET value = ?2, updated_at = ?3";
    execute(connection, sql, params![fact.0, value.to_string(), now_ms()]).map(drop)
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Integer(n) => n.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        _ => Value::Null,
    }
}
