//! API tokens: made, listed and revoked by the operator. Only their digests are kept.

use rusqlite::params;

use super::audit::Event;
use super::db::{execute, query_one, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
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

impl Store {
    /// Stores a new token of a user, who is added in the same transaction if `new_user` says so. It
    /// is shown before the commit: one that nobody saw must not exist.
    pub fn add_token(
        &self, email: &Email, token: &NewToken<'_>, new_user: bool,
        show: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<i64> {
        self.write(|tx| {
            if new_user {
                users::insert(tx, email, None)?;
            }
            let user = users::find(tx, email)?;
            let sql =
                "INSERT INTO api_tokens (user_id, name, prefix, digest, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";
            let NewToken { digest, prefix, name, expires_at } = token;
            let row = params![user.id, name, prefix, digest.0, now_ms(), expires_at];
            let id = query_scalar(tx, sql, row)?;
            Event::of(&user, "token.create").subject(id).write(tx)?;
            let unseen =
                |e| format!("nothing was created, since the token could not be shown: {e}");
            show().map_err(|e| StoreError::new(ErrorKind::Internal, unseen(e)))?;
            Ok(id)
        })
    }

    /// Revokes a token; repeating it changes nothing.
    pub fn revoke_token(&self, id: i64) -> Result<()> {
        self.write_with_reserve(|tx| {
            let sql = "SELECT u.id, u.email FROM api_tokens t JOIN users u ON u.id = t.user_id
                        WHERE t.id = ?1";
            let user = query_one(tx, "token", sql, [id], User::from_row)?;
            let sql = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
            execute(tx, sql, params![id, now_ms()])?;
            Event::of(&user, "token.revoke").subject(id).write(tx)
        })
    }
}
