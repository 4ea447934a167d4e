//! Users and what belongs to their accounts: API tokens, stored as digests only, and the keypair
//! that the client wrapped. Only the operator adds, changes and removes users and tokens.

use rusqlite::types::Null;
use rusqlite::{Connection, ToSql, params};
use serde::Deserialize;

use super::audit::Event;
use super::db::{execute, query_one, query_opt, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::{Store, User};
use crate::util::time::now_ms;
use crate::util::types::{Digest, Email, Key, Short};

/// A change to a user.
pub enum Change<'a> {
    /// Sets a new password hash; JWTs issued before become void.
    Password(&'a str),
    /// No token and no JWT is accepted until `Enable`.
    Disable,
    /// Undoes `Disable`; JWTs issued before stay void.
    Enable,
    /// Bytes the user may store; None: the default of `serve --quota`.
    Quota(Option<i64>),
}

/// The stored parts of a new token.
pub struct NewToken<'a> {
    /// SHA-256 of the whole token.
    pub digest: Digest,
    /// Its first characters.
    pub prefix: &'a str,
    /// The operator's name for it.
    pub name: &'a str,
    /// Milliseconds since 1970; None: never.
    pub expires_at: Option<i64>,
}

/// A keypair as the client sends it; the private key is wrapped with the master password.
#[derive(Deserialize)]
pub struct KeypairBody {
    public_key: Key,
    encrypted_private_key: Key,
    kek_salt: Key,
    kek_iterations: u32,
    key_algorithm: Option<Short>,
}

impl Store {
    pub fn add_user(&self, email: &Email, password_hash: Option<&str>) -> Result<i64> {
        self.write(|tx| Ok(insert(tx, email, password_hash)?.id))
    }

    pub fn change_user(&self, email: &Email, what: &Change<'_>) -> Result<()> {
        let now = now_ms();
        let (event, column, new): (_, _, &dyn ToSql) = match what {
            Change::Password(hash) => ("user.passwd", "password_hash", hash),
            Change::Disable => ("user.disable", "disabled_at", &now),
            Change::Enable => ("user.enable", "disabled_at", &Null),
            Change::Quota(bytes) => ("user.quota", "quota_bytes", bytes),
        };
        let ends_jwts = matches!(what, Change::Password(_) | Change::Disable);
        self.write_with_reserve(|tx| {
            let sql = format!(
                "UPDATE users SET {column} = ?2, generation = generation + ?3, updated_at = ?4
                  WHERE email = ?1 RETURNING id, email, generation"
            );
            let values = params![email, new, ends_jwts, now];
            let user = query_one(tx, USER, &sql, values, User::from_row)?;
            Event::of(&user, event).insert(tx)
        })
    }

    /// Removes a user with all they own: rows first, then files. Returns the number of files.
    pub fn remove_user(&self, email: &Email) -> Result<u64> {
        let files = self.write_with_reserve(|tx| {
            let user = find(tx, email)?;
            let sql = "SELECT count(*) FROM stored_files WHERE user_id = ?1";
            let files = query_scalar(tx, sql, [user.id])?;
            execute(tx, "DELETE FROM users WHERE id = ?1", [user.id])?;
            Event::of(&user, "user.remove").insert(tx)?;
            Ok(files)
        })?;
        self.unlink_deleted(None)?;
        Ok(files)
    }

    /// Stores a new token of a user, who is added in the same transaction if `new_user` is set.
    /// `show` runs before the commit: a token that nobody saw must not exist.
    pub fn add_token(
        &self, email: &Email, token: &NewToken<'_>, new_user: bool,
        show: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<i64> {
        self.write(|tx| {
            let user = if new_user { insert(tx, email, None)? } else { find(tx, email)? };
            let sql =
                "INSERT INTO api_tokens (user_id, name, prefix, digest, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";
            let NewToken { digest, prefix, name, expires_at } = token;
            let row = params![user.id, name, prefix, digest.0, now_ms(), expires_at];
            let id = query_scalar(tx, sql, row)?;
            Event::of(&user, "token.create").subject(id).insert(tx)?;
            let unseen =
                |e| format!("nothing was created, since the token could not be shown: {e}");
            show().map_err(|e| StoreError::new(ErrorKind::Internal, unseen(e)))?;
            Ok(id)
        })
    }

    /// Revokes a token; repeating it changes nothing.
    pub fn revoke_token(&self, id: i64) -> Result<()> {
        self.write_with_reserve(|tx| {
            let sql = "SELECT u.id, u.email, u.generation
                         FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ?1";
            let user = query_one(
                tx,
                "token (see `configsync-server token list`)",
                sql,
                [id],
                User::from_row,
            )?;
            let sql = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
            execute(tx, sql, [id, now_ms()])?;
            Event::of(&user, "token.revoke").subject(id).insert(tx)
        })
    }

    pub fn keypair(&self, user: i64) -> Result<String> {
        let sql = "SELECT row FROM keypair_rows WHERE user_id = ?1";
        self.db.read(|c| query_one(c, "keypair", sql, [user], |row| row.get(0)))
    }

    /// Stores the first keypair. The same keypair again changes nothing; another is refused.
    pub fn add_keypair(&self, user: &User, new: &KeypairBody) -> Result<()> {
        let (public, private) = (&new.public_key, &new.encrypted_private_key);
        let (salt, rounds) = (&new.kek_salt, new.kek_iterations);
        let algorithm = new.key_algorithm.as_deref().unwrap_or("x25519");
        self.write_as_user(user, |tx| {
            let sql = "INSERT INTO keypairs (user_id, public_key, encrypted_private_key, kek_salt,
                                             kek_iterations, key_algorithm, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
            let same = "SELECT (public_key, encrypted_private_key, kek_salt, kek_iterations,
                                key_algorithm) = (?2, ?3, ?4, ?5, ?6)
                          FROM keypairs WHERE user_id = ?1";
            let row = params![user.id, public, private, salt, rounds, algorithm, now_ms()];
            let known = params![user.id, public, private, salt, rounds, algorithm];
            match execute(tx, sql, row)? {
                0 if query_scalar(tx, same, known)? => Ok(()),
                0 => Err(StoreError::key_exists("keypair")),
                _ => self.audit(tx, Event::of(user, "keypair.add")),
            }
        })
    }
}

fn insert(connection: &Connection, email: &Email, password_hash: Option<&str>) -> Result<User> {
    let sql = "INSERT INTO users (email, password_hash, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?3) ON CONFLICT DO NOTHING RETURNING id, email, generation";
    let values = params![email, password_hash, now_ms()];
    let added = query_opt(connection, sql, values, User::from_row)?;
    let user = added.ok_or_else(|| {
        StoreError::new(ErrorKind::Exists, format!("the user {email} already exists"))
    })?;
    Event::of(&user, "user.add").insert(connection)?;
    Ok(user)
}

/// Says where the operator finds the users that there are.
const USER: &str = "user (see `configsync-server user list`)";

/// Finds a user by email address, for the operator's commands.
pub(super) fn find(connection: &Connection, email: &Email) -> Result<User> {
    let sql = "SELECT id, email, generation FROM users WHERE email = ?1";
    query_one(connection, USER, sql, [email], User::from_row)
}
