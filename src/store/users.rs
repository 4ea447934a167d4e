//! Users: added, changed and removed by the operator.

use std::net::IpAddr;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use super::Store;
use super::audit::Event;
use super::db::{execute, query_one, query_opt, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::prune::Pruned;
use crate::util::time::now_ms;
use crate::util::types::Email;

/// Who does something: rows are theirs, and the audit log names them.
#[derive(Debug, Clone)]
pub struct User {
    pub id: i64,
    pub email: String,
    /// Where from; None for the operator's commands.
    pub peer: Option<IpAddr>,
    /// Of the JWT they came with. None with an API token, which outlives a change of the password.
    pub generation: Option<i64>,
    /// The API token they came with, or traded for their JWT.
    pub token_id: Option<i64>,
}

impl User {
    /// From the columns id and email of a user, which come first.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<User> {
        let (id, email) = (row.get(0)?, row.get(1)?);
        Ok(User { id, email, peer: None, generation: None, token_id: None })
    }
}

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
        self.write(|tx| {
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
