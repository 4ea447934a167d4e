//! Users: added, changed and removed by the operator.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use super::audit::Event;
use super::db::{execute, query_one, query_opt, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::prune::Pruned;
use super::tokens::Principal;
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
    /// Adds a user.
    pub fn add_user(&self, email: &Email, password_hash: Option<&str>) -> Result<i64> {
        self.write(|tx| add(tx, email, password_hash))
    }

    /// Changes a user.
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
            let who = find(tx, email)?;
            let sql = format!("UPDATE users SET updated_at = ?2, {sets} WHERE id = ?1");
            execute(tx, &sql, params![who.id, now, new])?;
            Event::of(&who, event).write(tx)
        })
    }

    /// Removes a user with all that is theirs: rows first, then files; says how many files.
    pub fn remove_user(&self, email: &Email) -> Result<u64> {
        let files = self.write(|tx| {
            let who = find(tx, email)?;
            let sql = "SELECT count(*) FROM stored_files WHERE user_id = ?1";
            let files = query_scalar(tx, sql, [who.id])?;
            execute(tx, "DELETE FROM users WHERE id = ?1", [who.id])?;
            Event::of(&who, "user.remove").write(tx)?;
            Ok(files)
        })?;
        self.unlink_deleted(&mut Pruned::default())?;
        Ok(files)
    }

    /// What a login by password needs: whom it would sign in, and the argon2id PHC string, which
    /// a disabled user has none of. None for an unknown address.
    pub fn credentials(&self, email: &str) -> Result<Option<(Principal, Option<String>)>> {
        let sql = "SELECT id, email, generation, NULL, NULL,
                          iif(disabled_at IS NULL, password_hash, NULL)
                     FROM users WHERE email = ?1";
        let read = |row: &Row<'_>| Ok((Principal::from_row(row)?, row.get(5)?));
        self.db.read(|c| query_opt(c, sql, [email], read))
    }
}

/// Adds a user and says the id.
pub(super) fn add(
    connection: &Connection, email: &Email, password_hash: Option<&str>,
) -> Result<i64> {
    let sql = "INSERT INTO users (email, password_hash, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?3) ON CONFLICT DO NOTHING RETURNING id, email";
    let added =
        query_opt(connection, sql, params![email, password_hash, now_ms()], User::from_row)?;
    let who = added.ok_or_else(|| {
        StoreError::new(ErrorKind::Exists, format!("the user {email} already exists"))
    })?;
    Event::of(&who, "user.add").write(connection)?;
    Ok(who.id)
}

/// A user by address, for the operator's commands.
pub(super) fn find(connection: &Connection, email: &Email) -> Result<User> {
    let sql = "SELECT id, email FROM users WHERE email = ?1";
    query_one(connection, "user", sql, [email], User::from_row)
}
