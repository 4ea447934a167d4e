//! Finds the user of a credential: an API token by its digest, a JWT by its claims, an email
//! address with its password hash. Every lookup reads the current rows, so a revocation takes
//! effect at the next lookup, whichever process made it.

use std::net::IpAddr;

use rusqlite::{Connection, Row, ToSql, params};

use super::Store;
use super::db::query_opt;
use super::error::{Result, StoreError};
use crate::util::time::now_ms;
use crate::util::types::Digest;

/// The user on whose behalf a request or command runs: the owner of its rows, and the name in the
/// audit log.
#[derive(Debug, Clone)]
pub struct User {
    pub id: i64,
    pub email: String,
    /// Part of every JWT; raising it voids those issued before.
    pub generation: i64,
    /// When the JWT of the request expires, in milliseconds since 1970. A JWT is valid in this
    /// generation only; an API token, without one, outlives a password change.
    pub jwt_expires_at: Option<i64>,
    /// The API token of the request, or the one that was exchanged for its JWT.
    pub token_id: Option<i64>,
    /// When that token expires, in milliseconds since 1970.
    pub token_expires_at: Option<i64>,
    /// The client's address; None for the operator's commands.
    pub peer: Option<IpAddr>,
}

impl User {
    /// Reads a user's columns id, email and generation, which come first.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<User> {
        Ok(User {
            id: row.get(0)?,
            email: row.get(1)?,
            generation: row.get(2)?,
            jwt_expires_at: None,
            token_id: None,
            token_expires_at: None,
            peer: None,
        })
    }
}

impl Store {
    /// Returns the user of an API token. Its use is recorded later, in a batch.
    pub fn user_by_token(&self, digest: Digest) -> Result<User> {
        let (user, last_used_at) = self.db.read(|c| find(c, BY_DIGEST, digest.0, None, None))?;
        if let Some(token) = user.token_id {
            self.token_used(token, last_used_at);
        }
        Ok(user)
    }

    /// Returns the user of a JWT with these claims.
    pub fn user_by_claims(
        &self, id: i64, generation: i64, token: Option<i64>, expires_at: i64,
    ) -> Result<User> {
        let (user, _) = self.db.read(|c| find(c, BY_ID, id, Some(generation), token))?;
        Ok(User { jwt_expires_at: Some(expires_at), ..user })
    }

    /// Returns what a password login needs: the user to sign in, and the argon2id PHC string (None
    /// for a user who is disabled or has no password). None for an unknown address.
    pub fn password_of(&self, email: &str) -> Result<Option<(User, Option<String>)>> {
        let sql = "SELECT id, email, generation, iif(disabled_at IS NULL, password_hash, NULL)
                     FROM users WHERE email = ?1";
        self.db.read(|c| query_opt(c, sql, [email], |row| Ok((User::from_row(row)?, row.get(3)?))))
    }
}

/// Fails if the user's credential is no longer valid.
pub(super) fn confirm(connection: &Connection, user: &User) -> Result<()> {
    if user.jwt_expires_at.is_some_and(|at| at <= now_ms()) {
        return Err(StoreError::unauthorized("expired"));
    }
    let generation = user.jwt_expires_at.map(|_| user.generation);
    find(connection, BY_ID, user.id, generation, user.token_id).map(drop)
}

/// FROM and WHERE of [`find`]: a user and their API token, by the token's digest `?1`.
const BY_DIGEST: &str = "api_tokens t JOIN users u ON u.id = t.user_id WHERE t.digest = ?1";
/// The same by the user's id `?1`, with their API token of id `?3`, if there is one.
const BY_ID: &str =
    "users u LEFT JOIN api_tokens t ON t.id = ?3 AND t.user_id = u.id WHERE u.id = ?1";

/// Returns the user of a valid credential, and when its API token was last used. A JWT must have
/// the user's current generation. The API token, which is the credential or was exchanged for the
/// JWT, must exist and be neither revoked nor expired.
fn find(
    connection: &Connection, source: &str, key: impl ToSql, generation: Option<i64>,
    token_id: Option<i64>,
) -> Result<(User, Option<i64>)> {
    let sql = format!(
        "SELECT u.id, u.email, u.generation, t.id, t.expires_at, t.last_used_at,
                u.disabled_at IS NOT NULL,
                coalesce(?2 <> u.generation, FALSE) OR t.revoked_at IS NOT NULL
                OR (?3 IS NOT NULL AND t.id IS NULL) FROM {source}"
    );
    let found = query_opt(connection, &sql, params![key, generation, token_id], |row| {
        let (token_id, token_expires_at) = (row.get(3)?, row.get(4)?);
        let user = User { token_id, token_expires_at, ..User::from_row(row)? };
        Ok((user, row.get(5)?, row.get(6)?, row.get(7)?))
    })?;
    let unknown = || StoreError::unauthorized("unknown");
    let (user, last_used_at, disabled, revoked) = found.ok_or_else(unknown)?;
    let expired = user.token_expires_at.is_some_and(|at| at <= now_ms());
    match (disabled, revoked, expired) {
        (false, false, false) => Ok((user, last_used_at)),
        (true, ..) => Err(StoreError::unauthorized("disabled")),
        (_, true, _) => Err(StoreError::unauthorized("revoked")),
        _ => Err(StoreError::unauthorized("expired")),
    }
}
