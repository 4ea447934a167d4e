//! Who a credential belongs to: an API token by its digest, a JWT by its claims, an address with
//! its password hash. Always the rows as they are now: a revocation counts from the next look,
//! whichever process made it.

use std::net::IpAddr;

use rusqlite::{Connection, Row, params};

use super::Store;
use super::db::query_opt;
use super::error::{Result, StoreError};
use crate::util::time::now_ms;
use crate::util::types::Digest;

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

/// Whom a good credential belongs to.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The user, with the credential that is asked again when they write.
    pub user: User,
    /// Goes into JWTs; raising it ends those issued before.
    pub generation: i64,
    /// When the API token behind it ends, milliseconds since 1970.
    pub token_expires_at: Option<i64>,
}

impl Store {
    /// Who holds this API token. Its use is noted, later and in a batch.
    pub fn principal_by_token(&self, digest: Digest) -> Result<Principal> {
        let sql = "SELECT user_id, id, last_used_at FROM api_tokens WHERE digest = ?1";
        let (principal, token, last_used_at) = self.db.read(|c| {
            let found = query_opt(c, sql, [digest.0], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?))
            })?;
            let (user, token, last_used_at) = found.ok_or_else(unknown)?;
            Ok((principal(c, user, None, Some(token))?, token, last_used_at))
        })?;
        self.token_used(token, last_used_at);
        Ok(principal)
    }

    /// Who holds a JWT of these claims.
    pub fn principal_by_claims(
        &self, user: i64, generation: i64, token: Option<i64>,
    ) -> Result<Principal> {
        self.db.read(|c| principal(c, user, Some(generation), token))
    }

    /// What a login by password needs: whom it would sign in, and the argon2id PHC string
    /// (None for a disabled user). None for an unknown address.
    pub fn password_of(&self, email: &str) -> Result<Option<(Principal, Option<String>)>> {
        let sql = "SELECT id, email, generation, iif(disabled_at IS NULL, password_hash, NULL)
                     FROM users WHERE email = ?1";
        self.db.read(|c| {
            query_opt(c, sql, [email], |row| {
                let (user, generation) = (User::from_row(row)?, row.get(2)?);
                Ok((Principal { user, generation, token_expires_at: None }, row.get(3)?))
            })
        })
    }
}

/// Whether the credential behind this user still counts.
pub(super) fn confirm(connection: &Connection, user: &User) -> Result<()> {
    principal(connection, user.id, user.generation, user.token_id).map(drop)
}

/// The user if a credential counts: of this generation where it is a JWT, and with this API token
/// where it is one or was traded for one.
fn principal(
    connection: &Connection, user: i64, generation: Option<i64>, token: Option<i64>,
) -> Result<Principal> {
    let sql = "SELECT u.id, u.email, u.generation, t.expires_at, u.disabled_at IS NOT NULL,
                      coalesce(?2 <> u.generation, FALSE)
                      OR (?3 IS NOT NULL AND (t.id IS NULL OR t.revoked_at IS NOT NULL))
                 FROM users u LEFT JOIN api_tokens t ON t.id = ?3 AND t.user_id = u.id
                WHERE u.id = ?1";
    let found = query_opt(connection, sql, params![user, generation, token], |row| {
        let user = User { generation, token_id: token, ..User::from_row(row)? };
        let principal = Principal { user, generation: row.get(2)?, token_expires_at: row.get(3)? };
        Ok((principal, row.get(4)?, row.get(5)?))
    })?;
    let (principal, disabled, revoked) = found.ok_or_else(unknown)?;
    let expired = principal.token_expires_at.is_some_and(|at| at <= now_ms());
    match (disabled, revoked, expired) {
        (false, false, false) => Ok(principal),
        (true, ..) => Err(StoreError::unauthorized("disabled")),
        (_, true, _) => Err(StoreError::unauthorized("revoked")),
        _ => Err(StoreError::unauthorized("expired")),
    }
}

fn unknown() -> StoreError {
    StoreError::unauthorized("unknown")
}
