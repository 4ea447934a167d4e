//! API tokens by their digest, and who a bearer is.

use rusqlite::{Row, params};

use super::audit::Event;
use super::db::{execute, query_one, query_opt, query_scalar};
use super::error::Result;
use super::{Store, User, users};
use crate::util::time::now_ms;
use crate::util::types::{Digest, Email};

/// What is stored of a new token.
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

/// Whom a good credential belongs to.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The user.
    pub who: User,
    /// Goes into JWTs.
    pub generation: i64,
    /// The API token behind it, if there is one.
    pub token_id: Option<i64>,
    /// When that token ends, milliseconds since 1970.
    pub token_expires_at: Option<i64>,
}

impl Store {
    /// Stores a new token of a user, who is added in the same transaction if `new_user` says so.
    pub fn add_token(&self, email: &Email, token: &NewToken<'_>, new_user: bool) -> Result<i64> {
        self.write(|tx| {
            if new_user {
                users::add(tx, email, None)?;
            }
            let who = users::find(tx, email)?;
            let sql =
                "INSERT INTO api_tokens (user_id, name, prefix, digest, created_at, expires_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";
            let NewToken { digest, prefix, name, expires_at } = token;
            let row = params![who.id, name, prefix, digest.0, now_ms(), expires_at];
            let id = query_scalar(tx, sql, row)?;
            Event::of(&who, "token.create").subject(id).write(tx)?;
            Ok(id)
        })
    }

    /// Revokes a token; once more is as good.
    pub fn revoke_token(&self, id: i64) -> Result<()> {
        self.write(|tx| {
            let sql = "SELECT u.id, u.email FROM api_tokens t JOIN users u ON u.id = t.user_id
                        WHERE t.id = ?1";
            let who = query_one(tx, "token", sql, [id], User::from_row)?;
            let sql = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
            execute(tx, sql, params![id, now_ms()])?;
            Event::of(&who, "token.revoke").subject(id).write(tx)
        })
    }

    /// Who holds this API token, if it is good now. Its use is noted, later and in a batch.
    pub fn bearer_by_token(&self, digest: Digest) -> Result<Option<Principal>> {
        let now = now_ms();
        let sql = "SELECT u.id, u.email, u.generation, t.id, t.expires_at, t.last_used_at
                     FROM api_tokens t JOIN users u ON u.id = t.user_id
                    WHERE t.digest = ?1 AND t.revoked_at IS NULL AND u.disabled_at IS NULL
                      AND (t.expires_at IS NULL OR t.expires_at > ?2)";
        let read = |row: &Row<'_>| Ok((Principal::from_row(row)?, row.get::<_, Option<i64>>(5)?));
        let found = self.db.read(|c| query_opt(c, sql, params![digest.0, now], read))?;
        Ok(found.map(|(bearer, last_used_at)| {
            if let Some(token) = bearer.token_id {
                self.pending.token_used(token, last_used_at, now);
            }
            bearer
        }))
    }

    /// Who holds a JWT of these claims, if it still counts: the user exists and is enabled, the
    /// generation is current, and the API token it was traded for (if any) is good.
    pub fn bearer_by_claims(
        &self, user: i64, generation: i64, token: Option<i64>,
    ) -> Result<Option<Principal>> {
        let sql = "SELECT u.id, u.email, u.generation, t.id, t.expires_at
                     FROM users u LEFT JOIN api_tokens t ON t.id = ?3 AND t.user_id = u.id
                    WHERE u.id = ?1 AND u.generation = ?2 AND u.disabled_at IS NULL
                      AND (?3 IS NULL OR (t.id IS NOT NULL AND t.revoked_at IS NULL
                           AND (t.expires_at IS NULL OR t.expires_at > ?4)))";
        let values = params![user, generation, token, now_ms()];
        self.db.read(|c| query_opt(c, sql, values, Principal::from_row))
    }
}

impl Principal {
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Principal> {
        Ok(Principal {
            who: User::from_row(row)?,
            generation: row.get(2)?,
            token_id: row.get(3)?,
            token_expires_at: row.get(4)?,
        })
    }
}
