//! Named environments of a user.

use rusqlite::params;
use serde::Deserialize;

use super::audit::Event;
use super::db::{execute, execute_one, query_each, query_scalar};
use super::error::{Result, StoreError};
use super::{RowSink, Store, User, users};
use crate::util::limits::ENVIRONMENTS_MAX;
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

const LIVE: &str = "SELECT row FROM environment_rows WHERE user_id = ?1 ORDER BY name";

impl Store {
    /// The user's live environments, by name.
    pub fn environments(&self, user: i64, rows: RowSink<'_>) -> Result<()> {
        self.db.read(|c| query_each(c, LIVE, [user], rows))
    }

    /// Adds and updates; with `delete_missing` the others are marked deleted. All or nothing.
    pub fn sync_environments(
        &self, who: &User, wanted: &[EnvironmentBody], delete_missing: bool,
    ) -> Result<()> {
        let now = now_ms();
        self.write_as(who, |tx| {
            if delete_missing {
                // Those that are wanted come back below.
                let sql = "UPDATE environments SET deleted_at = ?2
                            WHERE user_id = ?1 AND deleted_at IS NULL";
                execute(tx, sql, params![who.id, now])?;
            }
            for new in wanted {
                let sql = "INSERT INTO environments (user_id, name, tier, color, protect,
                                                     created_at, updated_at)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT DO UPDATE SET
                             tier = excluded.tier, color = excluded.color,
                             protect = excluded.protect, updated_at = excluded.updated_at,
                             deleted_at = NULL";
                let EnvironmentBody { name, tier, color, protect } = new;
                execute(tx, sql, params![who.id, name, tier, color, protect, now])?;
            }
            let count =
                "SELECT count(*) FROM environments WHERE user_id = ?1 AND deleted_at IS NULL";
            if query_scalar::<i64>(tx, count, [who.id])? > ENVIRONMENTS_MAX {
                return Err(StoreError::too_many("environments"));
            }
            // As many deleted ones are kept, those deleted last.
            let sql = "DELETE FROM environments WHERE id IN (SELECT id FROM environments
                         WHERE user_id = ?1 AND deleted_at IS NOT NULL
                         ORDER BY deleted_at DESC, id DESC LIMIT -1 OFFSET ?2)";
            execute(tx, sql, [who.id, ENVIRONMENTS_MAX])?;
            Event::of(who, "environment.sync").write(tx)
        })
    }

    /// Brings a deleted environment back.
    pub fn restore_environment(&self, email: &Email, name: &str) -> Result<()> {
        let sql = "UPDATE environments SET deleted_at = NULL, updated_at = ?3
                    WHERE user_id = ?1 AND name = ?2 AND deleted_at IS NOT NULL";
        self.write(|tx| {
            let who = users::find(tx, email)?;
            execute_one(tx, "deleted environment", sql, params![who.id, name, now_ms()])?;
            Event::of(&who, "environment.restore").write(tx)
        })
    }
}
