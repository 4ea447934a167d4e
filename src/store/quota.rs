//! Quotas: what a user's files and rows use, and their limits. Checked in one place, inside the
//! transaction of every request that writes.

use rusqlite::{Connection, Transaction, params};

use super::credentials::confirm;
use super::db::{query_one, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::{Store, User};
use crate::util::limits::TEXT_BYTES_PER_USER_MAX;

impl Store {
    /// Returns a user's stored bytes, their quota (None: no limit), and their number of snapshots.
    pub fn usage(&self, user_id: i64) -> Result<(u64, Option<u64>, u64)> {
        self.db.read(|c| {
            let (stored, allowed) = self.usage_in(c, user_id)?;
            let sql = "SELECT coalesce(sum(snapshot_count), 0) FROM machines WHERE user_id = ?1";
            Ok((stored, allowed, query_scalar(c, sql, [user_id])?))
        })
    }

    /// Runs the transaction of a user's request. It checks the credential again: one that was
    /// revoked while the body arrived writes nothing. If the user's text grew, the limits are
    /// checked, and the transaction is rolled back if one is exceeded. A request that only deletes
    /// is always allowed.
    pub(super) fn write_as<T>(
        &self, user: &User, work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write(|tx| {
            confirm(tx, user)?;
            // If not even a file of one byte fits, no row is added either. Checked before `work`,
            // which uses up room itself. (Triggers in schema.sql maintain `text_bytes`.)
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

    /// Fails if a file of `size` bytes exceeds the user's quota, or if the disk is below the
    /// reserve. A pushed file is on disk already, so the reserve is compared with what is free now.
    pub(super) fn check_room(
        &self, connection: &Connection, user_id: i64, size: u64,
    ) -> Result<()> {
        let (stored, allowed) = self.usage_in(connection, user_id)?;
        match allowed.filter(|allowed| stored.saturating_add(size) > *allowed) {
            Some(allowed) => Err(StoreError::over_quota(size, stored, allowed)),
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
