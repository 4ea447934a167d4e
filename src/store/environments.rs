//! Named environments of a user.

use rusqlite::params;
use serde::Deserialize;

use super::audit::Event;
use super::db::{execute, execute_one, query_each, query_opt};
use super::error::Result;
use super::{RowSink, Store, User, users};
use crate::util::limits::DELETED_ROWS_MAX;
use crate::util::time::now_ms;
use crate::util::types::{Email, Name, Short};

/// What a client says of an environment.
#[derive(Deserialize)]
pub struct EnvironmentBody {
    name: Name,
    tier: Short,
    color: Option<Short>,
    #[serde(default)]
    protect: bool,
}

impl Store {
    /// The user's live environments, by name.
    pub fn environments(&self, user: i64, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT row FROM environment_rows WHERE user_id = ?1 ORDER BY name";
        self.db.read(|c| query_each(c, sql, [user], rows))
    }

    /// Adds and updates; with `delete_missing` the others are marked deleted. All or nothing.
    pub fn sync_environments(
        &self, user: &User, wanted: &[EnvironmentBody], delete_missing: bool,
    ) -> Result<()> {
        let now = now_ms();
        let known = "SELECT tier = ?3 AND color IS ?4 AND protect = ?5 FROM environments
                      WHERE user_id = ?1 AND name = ?2 AND deleted_at IS NULL";
        let upsert = "INSERT INTO environments (user_id, name, tier, color, protect,
                                                created_at, updated_at)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT DO UPDATE SET
                        tier = excluded.tier, color = excluded.color, protect = excluded.protect,
                        updated_at = excluded.updated_at, deleted_at = NULL";
        let delete = "UPDATE environments SET deleted_at = ?2 WHERE user_id = ?1
                         AND deleted_at IS NULL AND name NOT IN (SELECT value FROM json_each(?3))";
        // As many deleted ones are kept, those deleted last.
        let purge = "DELETE FROM environments WHERE id IN (SELECT id FROM environments
                       WHERE user_id = ?1 AND deleted_at IS NOT NULL
                       ORDER BY deleted_at DESC, id DESC LIMIT -1 OFFSET ?2)";
        self.write_as(user, |tx| {
            let (mut added, mut changed, mut deleted) = (0, 0, 0);
            for EnvironmentBody { name, tier, color, protect } in wanted {
                let values = params![user.id, name, tier, color, protect];
                match query_opt(tx, known, values, |row| row.get(0))? {
                    Some(true) => continue,
                    Some(false) => changed += 1,
                    None => added += 1,
                }
                execute(tx, upsert, params![user.id, name, tier, color, protect, now])?;
            }
            if delete_missing {
                let names: Vec<&str> = wanted.iter().map(|new| &*new.name).collect();
                let names = serde_json::json!(names).to_string();
                deleted = execute(tx, delete, params![user.id, now, names])?;
                execute(tx, purge, [user.id, DELETED_ROWS_MAX])?;
            }
            if (added, changed, deleted) == (0, 0, 0) {
                return Ok(());
            }
            let detail = format!("{added} added, {changed} changed, {deleted} deleted");
            let event = Event::of(user, "environment.sync");
            self.audit(tx, Event { detail: Some(detail), ..event })
        })
    }

    /// Brings a deleted environment back.
    pub fn restore_environment(&self, email: &Email, name: &str) -> Result<()> {
        let sql = "UPDATE environments SET deleted_at = NULL, updated_at = ?3
                    WHERE user_id = ?1 AND name = ?2 AND deleted_at IS NOT NULL";
        self.write(|tx| {
            let user = users::find(tx, email)?;
            execute_one(tx, "deleted environment", sql, params![user.id, name, now_ms()])?;
            Event::of(&user, "environment.restore").write(tx)
        })
    }
}
