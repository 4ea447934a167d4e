//! What the operator's lists and `status` show.

use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, Row, params};
use serde_json::Value;

use super::audit::moment;
use super::data_dir::OFFSITE_LAST;
use super::db::{execute, query_one, query_opt, query_rows};
use super::error::Result;
use super::{Store, users};
use crate::util::time::now_ms;
use crate::util::types::Email;

/// Rows of a list. A column's name ends with its unit: `_bytes`, or `_at` for milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Each row as an object.
    pub fn objects(&self) -> Vec<Value> {
        let object =
            |row: &Vec<Value>| self.columns.iter().cloned().zip(row.iter().cloned()).collect();
        self.rows.iter().map(object).collect()
    }
}

const USERS: &str = "SELECT id, email, iif(disabled_at IS NULL, 'enabled', 'disabled') AS state,
    iif(password_hash IS NULL, 'token only', 'password') AS sign_in, stored_bytes,
    CASE quota_bytes WHEN 0 THEN 'none' ELSE coalesce(quota_bytes, 'default') END AS quota_bytes,
    created_at
  FROM users ORDER BY id";

/// `?1`: what the last start said of users without a quota of their own.
const STORED: &str = "SELECT email, iif(disabled_at IS NULL, 'enabled', 'disabled') AS state,
    stored_bytes, nullif(coalesce(quota_bytes, ?1), 0) AS quota_bytes FROM users ORDER BY id";

const TOKENS: &str =
    "SELECT t.id, u.email AS user, t.name, t.prefix AS first_characters, t.created_at,
    coalesce(moment(t.last_used_at), 'never used') AS last_used_at,
    CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked' WHEN t.expires_at <= ?2 THEN 'expired'
         ELSE coalesce(moment(t.expires_at), 'never') END AS expiry
  FROM api_tokens t JOIN users u ON u.id = t.user_id
 WHERE ?1 IS NULL OR t.user_id = ?1 ORDER BY t.id";

const MACHINES: &str =
    "SELECT u.email AS user, m.machine_id, m.name, m.platform, m.snapshot_count AS
    snapshots, (SELECT coalesce(sum(size_bytes), 0) FROM state_snapshots WHERE machine_ref = m.id)
    AS stored_bytes, m.last_push_at, iif(m.hidden_at IS NULL, 'listed', 'hidden') AS state
  FROM machines m JOIN users u ON u.id = m.user_id
 WHERE ?1 IS NULL OR m.user_id = ?1 ORDER BY u.id, m.id";

const PUSHES: &str = "SELECT u.email AS user, m.machine_id, m.last_push_at
  FROM machines m JOIN users u ON u.id = m.user_id WHERE m.hidden_at IS NULL ORDER BY u.id, m.id";

const ENVIRONMENTS: &str =
    "SELECT name, tier, color, iif(protect, 'protected', 'open') AS protection,
    coalesce('deleted ' || moment(deleted_at), 'live') AS state
  FROM environments WHERE user_id = ?1 AND (?2 OR deleted_at IS NULL) ORDER BY name";

impl Store {
    /// All users, oldest first.
    pub fn user_table(&self) -> Result<Table> {
        self.table(USERS, [])
    }

    /// API tokens, oldest first, of all users or of one.
    pub fn token_table(&self, email: Option<&Email>) -> Result<Table> {
        self.table(TOKENS, params![self.only(email)?, now_ms()])
    }

    /// Machines, hidden ones too, of all users or of one.
    pub fn machine_table(&self, email: Option<&Email>) -> Result<Table> {
        self.table(MACHINES, [self.only(email)?])
    }

    /// When each machine that is not hidden last pushed.
    pub fn push_table(&self) -> Result<Table> {
        self.table(PUSHES, [])
    }

    /// Environments of a user, also those deleted before where asked for.
    pub fn environment_table(&self, email: &Email, deleted: bool) -> Result<Table> {
        self.table(ENVIRONMENTS, params![self.only(Some(email))?, deleted])
    }

    /// How many users and machines there are.
    pub fn counts(&self) -> Result<(u64, u64)> {
        let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM machines)";
        self.db.read(|c| query_one(c, "row", sql, [], |row| Ok((row.get(0)?, row.get(1)?))))
    }

    /// Users with what they store and may store.
    pub fn stored_table(&self) -> Result<Table> {
        let start = self.noted(Fact::Start)?;
        let quota = start.and_then(|(fact, _)| fact.get("quota_bytes")?.as_i64());
        self.table(STORED, [quota.unwrap_or(0)])
    }

    /// When the last off-site copy was made, in milliseconds since 1970, by the file that its script
    /// writes; None if there is none.
    pub fn last_offsite(&self) -> Result<Option<i64>> {
        let (root, mut text) = (self.data.root(), String::new());
        let opened = root.open_regular(OFFSITE_LAST);
        match opened.and_then(|file| file.take(64).read_to_string(&mut text)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // What cannot be read as a time is long ago: somebody should look.
            Ok(_) => Ok(Some(moment(text.trim()).unwrap_or(0))),
            Err(e) => Err(root.error("read", OFFSITE_LAST, e)),
        }
    }

    /// True while a server runs on this folder.
    pub fn server_runs(&self) -> Result<bool> {
        self.data.server_runs()
    }

    /// A fact that was left, and when, in milliseconds since 1970.
    pub fn noted(&self, fact: Fact) -> Result<Option<(Value, i64)>> {
        let sql = "SELECT value, updated_at FROM server_state WHERE name = ?1";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
        let found = self.db.read(|c| query_opt(c, sql, [fact.name()], read))?;
        Ok(found.map(|(text, at)| (serde_json::from_str(&text).unwrap_or_default(), at)))
    }

    /// Leaves a fact in a transaction of its own.
    pub fn note(&self, fact: Fact, value: &Value) -> Result<()> {
        self.write(|tx| note(tx, fact, value))
    }

    fn only(&self, email: Option<&Email>) -> Result<Option<i64>> {
        let find = |email| self.db.read(|c| users::find(c, email));
        Ok(email.map(find).transpose()?.map(|user| user.id))
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

/// Facts that one process leaves for another, in `server_state`. Each is a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // backup and check are about to leave theirs
pub enum Fact {
    /// Of the last start of a server: `min_free_bytes`, `quota_bytes`.
    Start,
    /// The last backup that is whole: `files`, `bytes`. The copy holds it too: it tells when the copy
    /// was made.
    GoodBackup,
    /// The last backup that failed: `reason`.
    FailedBackup,
    /// How long deletion by age still waits, since the clock seemed wrong: `wait_ms`.
    ClockWait,
    /// The last check: `damaged`, `orphans`, `database`, each a number of findings.
    Check,
}

impl Fact {
    fn name(self) -> &'static str {
        match self {
            Fact::Start => "last_start",
            Fact::GoodBackup => "last_backup",
            Fact::FailedBackup => "failed_backup",
            Fact::ClockWait => "clock_wait",
            Fact::Check => "last_check",
        }
    }
}

/// Leaves a fact, in the transaction of what it is about.
pub fn note(connection: &Connection, fact: Fact, value: &Value) -> Result<()> {
    let sql = "INSERT INTO server_state (name, value, updated_at) VALUES (?1, ?2, ?3)
               ON CONFLICT (name) DO UPDATE SET value = ?2, updated_at = ?3";
    execute(connection, sql, params![fact.name(), value.to_string(), now_ms()]).map(drop)
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Integer(n) => n.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        _ => Value::Null,
    }
}
