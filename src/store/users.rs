//! Users: added, changed and removed by the operator.

use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::audit::Event;
use super::db::{execute, query_one, query_opt, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::prune::Pruned;
use super::{Store, User};
use crate::util::time::now_ms;
use crate::util::types::Email;

/// What a change of a user does.
pub enum Change<'a> {
    /// A new password hash; JWTs issued before end.
    Password(&'a str),
    /// No token and no JWT works until `Enable`.
    Disable,
    /// Undoes `Disable`; JWTs issued before stay void.
    Enable,
    /// Bytes the user may store; None: what `serve --quota` says.
    Quota(Option<i64>),
}

impl Store {
    pub fn add_user(&self, email: &Email, password_hash: Option<&str>) -> Result<i64> {
        self.write(|tx| insert(tx, email, password_hash))
    }

    pub fn change_user(&self, email: &Email, what: &Change<'_>) -> Result<()> {
        let now = now_ms();
        let (event, sets, new) = match what {
            Change::Password(hash) => (
                "user.passwd",
                "password_hash = ?3, generation = generation + 1",
                Value::from((*hash).to_owned()),
            ),
            Change::Disable => {
                ("user.disable", "disabled_at = ?3, generation = generation + 1", now.into())
            }
            Change::Enable => ("user.enable", "disabled_at = ?3", Value::Null),
            Change::Quota(bytes) => ("user.quota", "quota_bytes = ?3", (*bytes).into()),
        };
        self.write_with_reserve(|tx| {
            let user = find(tx, email)?;
            let sql = format!("UPDATE users SET updated_at = ?2, {sets} WHERE id = ?1");
            execute(tx, &sql, params![user.id, now, new])?;
            Event::of(&user, event).write(tx)
        })
    }

    /// Removes a user with all that is theirs: rows first, then files; returns how many files.
    pub fn remove_user(&self, email: &Email) -> Result<u64> {
        let files = self.write_with_reserve(|tx| {
            let user = find(tx, email)?;
            let sql = "SELECT count(*) FROM stored_files WHERE user_id = ?1";
            let files = query_scalar(tx, sql, [user.id])?;
            execute(tx, "DELETE FROM users WHERE id = ?1", [user.id])?;
            Event::of(&user, "user.remove").write(tx)?;
            Ok(files)
        })?;
        self.unlink_deleted(&mut Pruned::default())?;
        Ok(files)
    }
}

/// Adds a user and returns the id.
pub(super) fn insert(
    connection: &Connection, email: &Email, password_hash: Option<&str>,
) -> Result<i64> {
    let sql = "INSERT INTO users (email, password_hash, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?3) ON CONFLICT DO NOTHING RETURNING id, email";
    let values = params![email, password_hash, now_ms()];
    let added = query_opt(connection, sql, values, User::from_row)?;
    let user = added.ok_or_else(|| {
        StoreError::new(ErrorKind::Exists, format!("the user {email} already exists"))
    })?;
    Event::of(&user, "user.add").write(connection)?;
    Ok(user.id)
}

/// A user by address, for the operator's commands.
pub(super) fn find(connection: &Connection, email: &Email) -> Result<User> {
    let sql = "SELECT id, email FROM users WHERE email = ?1";
    query_one(connection, "user", sql, [email], User::from_row)
}
