//! API tokens by their digest, and who a bearer is.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::audit::Event;
use super::error::{Result, StoreError};
use super::users::user_id;
use crate::time::now_ms;
use crate::types::{Digest, Email};

/// A token as lists show it.
pub struct Token {
    /// Row id, for `token revoke`.
    pub id: i64,
    /// Whose it is.
    pub email: String,
    /// The name it was given.
    pub name: String,
    /// Its first characters.
    pub prefix: String,
    /// Milliseconds since 1970, as all times here.
    pub created_at: i64,
    /// None: never used.
    pub last_used_at: Option<i64>,
    /// None: never.
    pub expires_at: Option<i64>,
    /// None: still good.
    pub revoked_at: Option<i64>,
}

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
pub struct Bearer {
    /// The user's id.
    pub user_id: i64,
    /// The user's address.
    pub email: String,
    /// Goes into JWTs.
    pub generation: i64,
    /// The API token behind it, if there is one.
    pub token_id: Option<i64>,
    /// When that token ends, milliseconds since 1970.
    pub token_expires_at: Option<i64>,
}

impl Store {
    /// Stores a new token of a user.
    pub fn add_token(&self, email: &Email, token: &NewToken<'_>) -> Result<i64> {
        let id = self.db.write(|tx| {
            let user = user_id(tx, email)?;
            tx.execute(
                "INSERT INTO api_tokens (user_id, name, prefix, digest, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![user, token.name, token.prefix, token.digest.0, now_ms(), token.expires_at],
            )?;
            let id = tx.last_insert_rowid();
            Event::ok("token.create").user(user, email.as_str()).subject(id).write(tx)?;
            Ok(id)
        })?;
        Ok(id)
    }

    /// Revokes a token; once more is as good.
    pub fn revoke_token(&self, id: i64) -> Result<()> {
        self.db.write(|tx| {
            let (user, email): (i64, String) = tx
                .query_row(
                    "SELECT u.id, u.email FROM api_tokens t JOIN users u ON u.id = t.user_id
                      WHERE t.id = ?1",
                    [id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?
                .ok_or(StoreError::Missing("token"))?;
            tx.execute(
                "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
                params![id, now_ms()],
            )?;
            Event::ok("token.revoke").user(user, &email).subject(id).write(tx)?;
            Ok(())
        })?;
        Ok(())
    }

    /// All tokens, or those of one user, oldest first.
    pub fn tokens(&self, email: Option<&Email>) -> Result<Vec<Token>> {
        self.db.read(|c| {
            let only = email.map(|email| user_id(c, email)).transpose()?;
            let mut statement = c.prepare(
                "SELECT t.id, u.email, t.name, t.prefix, t.created_at, t.last_used_at,
                        t.expires_at, t.revoked_at
                   FROM api_tokens t JOIN users u ON u.id = t.user_id
                  WHERE ?1 IS NULL OR t.user_id = ?1 ORDER BY t.id",
            )?;
            let tokens = statement.query_map([only], Token::from_row)?;
            Ok(tokens.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Who holds this API token, if it is good now. Its use is noted, later and in a batch.
    pub fn bearer_by_token(&self, digest: Digest) -> Result<Option<Bearer>> {
        let now = now_ms();
        let found = self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT u.id, u.email, u.generation, t.id, t.expires_at, t.last_used_at
                   FROM api_tokens t JOIN users u ON u.id = t.user_id
                  WHERE t.digest = ?1 AND t.revoked_at IS NULL AND u.disabled_at IS NULL
                    AND (t.expires_at IS NULL OR t.expires_at > ?2)",
            )?;
            let found = statement.query_row(params![digest.0, now], |row| {
                Ok((Bearer::from_row(row)?, row.get::<_, Option<i64>>(5)?))
            });
            Ok(found.optional()?)
        })?;
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
        &self,
        user: i64,
        generation: i64,
        token: Option<i64>,
    ) -> Result<Option<Bearer>> {
        self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT u.id, u.email, u.generation, t.id, t.expires_at
                   FROM users u LEFT JOIN api_tokens t ON t.id = ?3 AND t.user_id = u.id
                  WHERE u.id = ?1 AND u.generation = ?2 AND u.disabled_at IS NULL
                    AND (?3 IS NULL OR (t.id IS NOT NULL AND t.revoked_at IS NULL
                         AND (t.expires_at IS NULL OR t.expires_at > ?4)))",
            )?;
            let values = params![user, generation, token, now_ms()];
            Ok(statement.query_row(values, Bearer::from_row).optional()?)
        })
    }
}

impl Bearer {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Bearer> {
        Ok(Bearer {
            user_id: row.get(0)?,
            email: row.get(1)?,
            generation: row.get(2)?,
            token_id: row.get(3)?,
            token_expires_at: row.get(4)?,
        })
    }
}

impl Token {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Token> {
        Ok(Token {
            id: row.get(0)?,
            email: row.get(1)?,
            name: row.get(2)?,
            prefix: row.get(3)?,
            created_at: row.get(4)?,
            last_used_at: row.get(5)?,
            expires_at: row.get(6)?,
            revoked_at: row.get(7)?,
        })
    }
}
