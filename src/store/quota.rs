//! What a user's files and rows take, and what they may take: asked in one place, inside the
//! transaction of every request that writes.

use rusqlite::{Connection, Transaction, params};

use super::credentials::confirm;
use super::db::{query_one, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::{Store, User};
use crate::util::limits::TEXT_BYTES_PER_USER_MAX;

impl Store {
    /// Bytes that a user has stored and may store at most (None: no limit), and how many snapshots
    /// there are among them.
    pub fn usage(&self, user_id: i64) -> Result<(u64, Option<u64>, u64)> {
        self.db.read(|c| {
            let (stored, allowed) = self.usage_in(c, user_id)?;
            let sql = "SELECT coalesce(sum(snapshot_count), 0) FROM machines WHERE user_id = ?1";
            Ok((stored, allowed, query_scalar(c, sql, [user_id])?))
        })
    }

    /// Runs the transaction of a user's request. The credential is asked again in it: one that was
    /// revoked while the body came writes nothing. If the user's text grew, the limits are checked,
    /// else all is rolled back. What only deletes is always allowed.
    pub(super) fn write_as<T>(
        &self, user: &User, work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write(|tx| {
            confirm(tx, user)?;
            // Where no file of one byte would fit, no row is added either. Asked before `work`, which
            // takes room itself. (Triggers of schema.sql keep `text_bytes`.)
            let room = self.check_room(tx, user.id, 1);
            let sql = "SELECT text_bytes FROM users WHERE id = ?1";
            let before: u64 = query_scalar(tx, sql, [user.id])?;
            let done = work(tx)?;
            let after: u64 = query_scalar(tx, sql, [user.id])?;
            if after > before {
                if after > TEXT_BYTES_PER_USER_MAX {
                    let sentence = format!(
                        "what this account keeps beside its files (machines, projects, variables, \
                         links, environments, messages) would take more than \
                         {TEXT_BYTES_PER_USER_MAX} bytes: delete some of it, or ask the operator \
                         to prune old snapshots"
                    );
                    return Err(StoreError::new(ErrorKind::QuotaExceeded, sentence));
                }
                room?;
            }
            Ok(done)
        })
    }

    /// Room for a file of `size` bytes of a user? It is on disk already, so the reserve is compared
    /// with what is left now.
    pub(super) fn check_room(
        &self, connection: &Connection, user_id: i64, size: u64,
    ) -> Result<()> {
        let (stored, allowed) = self.usage_in(connection, user_id)?;
        match allowed.filter(|allowed| stored.saturating_add(size) > *allowed) {
            Some(allowed) => Err(StoreError::over_quota(stored, allowed)),
            None => self.policy.check_free(self.free_bytes()?),
        }
    }

    fn usage_in(&self, connection: &Connection, user_id: i64) -> Result<(u64, Option<u64>)> {
        let sql = "SELECT stored_bytes, nullif(coalesce(quota_bytes, ?2), 0)
                     FROM users WHERE id = ?1";
        let values = params![user_id, self.policy.quota_bytes];
        query_one(connection, "user", sql, values, |row| row.try_into())
    }
}
