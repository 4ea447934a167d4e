//! Named environments of a user.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::Event;
use super::db::{execute, execute_one, query_each, query_scalar};
use super::entities::purge;
use super::error::Result;
use super::{RowSink, Store, User, users};
use crate::util::time::now_ms;
use crate::util::types::{Email, Name, Short};

/// An environment, as a client sends it.
#[derive(Deserialize, Serialize)]
pub struct EnvironmentBody {
    name: Name,
    tier: Short,
    color: Option<Short>,
    #[serde(default)]
    protect: bool,
}

impl Store {
    /// Lists the user's live environments, by name.
    pub fn environments(&self, user: i64, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT row FROM environment_rows WHERE user_id = ?1 ORDER BY name";
        self.db.read(|c| query_each(c, sql, [user], rows))
    }

    /// Adds and updates environments; with `delete_missing` the others are soft-deleted. All or
    /// nothing.
    pub fn sync_environments(
        &self, user: &User, wanted: &[EnvironmentBody], delete_missing: bool,
    ) -> Result<()> {
        let (now, list) = (now_ms(), json!(wanted).to_string());
        let upsert = "INSERT INTO environments (user_id, name, tier, color, protect,
                                                created_at, updated_at)
                      SELECT ?1, value->>'name', value->>'tier', value->>'color',
                             value->>'protect', ?2, ?2 FROM json_each(?3) WHERE TRUE
                      ON CONFLICT DO UPDATE SET
                        tier = excluded.tier, color = excluded.color, protect = excluded.protect,
                        updated_at = excluded.updated_at, deleted_at = NULL
                      WHERE deleted_at IS NOT NULL OR (tier, color, protect)
                        IS NOT (excluded.tier, excluded.color, excluded.protect)";
        let delete = "UPDATE environments SET deleted_at = ?2 WHERE user_id = ?1 AND ?4
                         AND deleted_at IS NULL
                         AND name NOT IN (SELECT value->>'name' FROM json_each(?3))";
        self.write_as_user(user, |tx| {
            let sql = "SELECT count(*) FROM environments WHERE user_id = ?1 AND deleted_at IS NULL";
            let live = || query_scalar::<usize>(tx, sql, [user.id]);
            let before = live()?;
            let written = execute(tx, upsert, params![user.id, now, list])?;
            let added = live()? - before;
            let changed = written - added;
            let deleted = execute(tx, delete, params![user.id, now, list, delete_missing])?;
            if deleted > 0 {
                purge(tx, "environments", user)?;
            }
            if written + deleted == 0 {
                return Ok(());
            }
            let detail = format!("{added} added, {changed} changed, {deleted} deleted");
            let event = Event::of(user, "environment.sync");
            self.audit(tx, Event { detail: Some(detail), ..event })
        })
    }

    /// Restores a soft-deleted environment.
    pub fn restore_environment(&self, email: &Email, name: &str) -> Result<()> {
        let sql = "UPDATE environments SET deleted_at = NULL, updated_at = ?3
                    WHERE user_id = ?1 AND name = ?2 AND deleted_at IS NOT NULL";
        self.write(|tx| {
            let user = users::find(tx, email)?;
            execute_one(tx, "deleted environment", sql, params![user.id, name, now_ms()])?;
            Event::of(&user, "environment.restore").insert(tx)
        })
    }
}
