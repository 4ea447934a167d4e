//! Users: added, changed and removed by the operator.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::Event;
use super::db::Failure;
use super::error::{Result, StoreError};
use super::{Store, files};
use crate::time::now_ms;
use crate::types::{Email, RandomId};

/// A user as lists show it.
pub struct User {
    /// Row id; clients keep it for ever.
    pub id: i64,
    /// Lower-case address.
    pub email: String,
    /// True if the user may sign in with a password.
    pub has_password: bool,
    /// Milliseconds since 1970; None: enabled.
    pub disabled_at: Option<i64>,
    /// Bytes of all stored files.
    pub stored_bytes: u64,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What a password login needs.
pub struct Credentials {
    /// The user's id.
    pub user_id: i64,
    /// The user's address.
    pub email: String,
    /// argon2id PHC string; None: no password, or the user is disabled.
    pub password_hash: Option<String>,
    /// Goes into JWTs.
    pub generation: i64,
}

/// What a change of a user does.
pub enum Change<'a> {
    /// A new password hash; JWTs issued before end.
    Password(&'a str),
    /// No token and no JWT works until `Enable`.
    Disable,
    /// Undoes `Disable`; JWTs issued before stay void.
    Enable,
}

impl Store {
    /// Adds a user.
    pub fn add_user(&self, email: &Email, password_hash: Option<&str>) -> Result<i64> {
        let now = now_ms();
        let id = self.db.write(|tx| {
            let added = tx.execute(
                "INSERT INTO users (email, password_hash, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?3) ON CONFLICT (email) DO NOTHING",
                params![email.as_str(), password_hash, now],
            )?;
            if added == 0 {
                return Err(StoreError::Exists("user").into());
            }
            let id = tx.last_insert_rowid();
            Event::ok("user.add").user(id, email.as_str()).write(tx)?;
            Ok(id)
        })?;
        Ok(id)
    }

    /// Changes a user.
    pub fn change_user(&self, email: &Email, change: &Change<'_>) -> Result<()> {
        let now = now_ms();
        self.db.write(|tx| {
            let id = user_id(tx, email)?;
            let event = match change {
                Change::Password(hash) => {
                    tx.execute(
                        "UPDATE users SET password_hash = ?2, generation = generation + 1,
                                updated_at = ?3 WHERE id = ?1",
                        params![id, hash, now],
                    )?;
                    "user.passwd"
                }
                Change::Disable => {
                    tx.execute(
                        "UPDATE users SET disabled_at = ?2, generation = generation + 1,
                                updated_at = ?2 WHERE id = ?1",
                        params![id, now],
                    )?;
                    "user.disable"
                }
                Change::Enable => {
                    tx.execute(
                        "UPDATE users SET disabled_at = NULL, updated_at = ?2 WHERE id = ?1",
                        params![id, now],
                    )?;
                    "user.enable"
                }
            };
            Event::ok(event).user(id, email.as_str()).write(tx)?;
            Ok(())
        })?;
        Ok(())
    }

    /// Removes a user with all that is theirs: rows first, then files; says how many files.
    pub fn remove_user(&self, email: &Email) -> Result<usize> {
        let names = self.db.write(|tx| {
            let id = user_id(tx, email)?;
            let names = user_files(tx, id)?;
            tx.execute("DELETE FROM users WHERE id = ?1", [id])?;
            Event::ok("user.remove").user(id, email.as_str()).write(tx)?;
            Ok::<_, Failure>(names)
        })?;
        for name in &names {
            files::unlink(&self.folder, *name);
        }
        Ok(names.len())
    }

    /// All users, oldest first.
    pub fn users(&self) -> Result<Vec<User>> {
        self.db.read(|c| {
            let mut statement = c.prepare(
                "SELECT id, email, password_hash IS NOT NULL, disabled_at, stored_bytes, created_at
                   FROM users ORDER BY id",
            )?;
            let users = statement.query_map([], User::from_row)?;
            Ok(users.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// What a login by password needs; None for an unknown address.
    pub fn credentials(&self, email: &str) -> Result<Option<Credentials>> {
        self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT id, email, CASE WHEN disabled_at IS NULL THEN password_hash END, generation
                   FROM users WHERE email = ?1",
            )?;
            let found = statement.query_row([email], |row| {
                Ok(Credentials {
                    user_id: row.get(0)?,
                    email: row.get(1)?,
                    password_hash: row.get(2)?,
                    generation: row.get(3)?,
                })
            });
            Ok(found.optional()?)
        })
    }
}

impl User {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<User> {
        Ok(User {
            id: row.get(0)?,
            email: row.get(1)?,
            has_password: row.get(2)?,
            disabled_at: row.get(3)?,
            stored_bytes: row.get(4)?,
            created_at: row.get(5)?,
        })
    }
}

/// The id of a user by address.
pub(super) fn user_id(connection: &Connection, email: &Email) -> Result<i64> {
    connection
        .query_row("SELECT id FROM users WHERE email = ?1", [email.as_str()], |row| row.get(0))
        .optional()?
        .ok_or(StoreError::Missing("user"))
}

fn user_files(connection: &Connection, user_id: i64) -> Result<Vec<RandomId>> {
    let mut statement = connection.prepare("SELECT file FROM stored_files WHERE user_id = ?1")?;
    let names = statement.query_map([user_id], |row| row.get::<_, String>(0))?;
    let names: Vec<String> = names.collect::<rusqlite::Result<_>>()?;
    Ok(names.iter().filter_map(|name| RandomId::parse(name)).collect())
}
