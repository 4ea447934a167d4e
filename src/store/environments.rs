//! Named environments of a user.

use std::net::IpAddr;

use rusqlite::{Connection, params};
use serde::Serialize;

use super::Store;
use super::audit::Event;
use super::error::{Result, StoreError};
use super::users::user_id;
use crate::limits::ENVIRONMENTS_MAX;
use crate::time::{now_ms, rfc3339};
use crate::types::Email;

/// An environment as the API shows it.
#[derive(Serialize)]
pub struct Environment {
    /// Row id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// development, staging, production or custom.
    pub tier: String,
    /// `#rrggbb`.
    pub color: Option<String>,
    /// The client asks before it changes it.
    pub protect: bool,
    /// When it was deleted, RFC 3339.
    #[serde(skip)]
    pub deleted_at: Option<String>,
}

/// What a client says of an environment.
pub struct NewEnvironment<'a> {
    /// Its name.
    pub name: &'a str,
    /// development, staging, production or custom.
    pub tier: &'a str,
    /// `#rrggbb`.
    pub color: Option<&'a str>,
    /// The client asks before it changes it.
    pub protect: bool,
}

impl Store {
    /// The user's live environments, by name.
    pub fn environments(&self, user: i64) -> Result<Vec<Environment>> {
        self.db.read(|c| list(c, user, false))
    }

    /// Adds and updates; with `delete_missing` the others are marked deleted. All or nothing.
    pub fn sync_environments(
        &self,
        (user, email): (i64, &str),
        wanted: &[NewEnvironment<'_>],
        delete_missing: bool,
        peer: IpAddr,
    ) -> Result<Vec<Environment>> {
        let now = now_ms();
        let after = self.db.write(|tx| {
            let mut kept = Vec::new();
            for new in wanted {
                let id: i64 = tx
                    .prepare_cached(
                        "INSERT INTO environments (user_id, name, tier, color, protect, created_at,
                                                   updated_at)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT DO UPDATE SET
                           tier = excluded.tier, color = excluded.color,
                           protect = excluded.protect, updated_at = excluded.updated_at,
                           deleted_at = NULL
                         RETURNING id",
                    )?
                    .query_row(
                        params![user, new.name, new.tier, new.color, new.protect, now],
                        |row| row.get(0),
                    )?;
                kept.push(id);
            }
            let sql = "SELECT count(*) FROM environments WHERE user_id = ?1";
            if tx.query_row(sql, [user], |row| row.get::<_, i64>(0))? > ENVIRONMENTS_MAX {
                return Err(StoreError::TooMany("environments").into());
            }
            for old in list(tx, user, false)?.iter().filter(|_| delete_missing) {
                if !kept.contains(&old.id) {
                    tx.execute(
                        "UPDATE environments SET deleted_at = ?3 WHERE user_id = ?1 AND id = ?2",
                        params![user, old.id, now],
                    )?;
                }
            }
            Event::ok("environment.sync").user(user, email).peer(peer).write(tx)?;
            Ok(list(tx, user, false)?)
        })?;
        Ok(after)
    }

    /// A user's environments for the operator, deleted ones too if asked for.
    pub fn environments_of(&self, email: &Email, deleted: bool) -> Result<Vec<Environment>> {
        self.db.read(|c| list(c, user_id(c, email)?, deleted))
    }

    /// Brings a deleted environment back.
    pub fn restore_environment(&self, email: &Email, name: &str) -> Result<()> {
        self.db.write(|tx| {
            let user = user_id(tx, email)?;
            let restored = tx.execute(
                "UPDATE environments SET deleted_at = NULL, updated_at = ?3
                  WHERE user_id = ?1 AND name = ?2 AND deleted_at IS NOT NULL",
                params![user, name, now_ms()],
            )?;
            if restored == 0 {
                return Err(StoreError::Missing("deleted environment").into());
            }
            Event::ok("environment.restore").user(user, email.as_str()).write(tx)?;
            Ok(())
        })?;
        Ok(())
    }
}

fn list(connection: &Connection, user: i64, deleted: bool) -> Result<Vec<Environment>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, tier, color, protect, deleted_at FROM environments
          WHERE user_id = ?1 AND (?2 OR deleted_at IS NULL) ORDER BY name",
    )?;
    let rows = statement.query_map(params![user, deleted], |row| {
        Ok(Environment {
            id: row.get(0)?,
            name: row.get(1)?,
            tier: row.get(2)?,
            color: row.get(3)?,
            protect: row.get(4)?,
            deleted_at: row.get::<_, Option<i64>>(5)?.map(rfc3339),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
