//! Quotas: what a user's files use, and their limits.

use rusqlite::{Connection, params};

use super::Store;
use super::db::{query_one, query_scalar};
use super::error::{Result, StoreError};

impl Store {
    /// Returns a user's stored bytes, their quota (None: no limit), and their number of snapshots.
    pub fn usage(&self, user_id: i64) -> Result<(u64, Option<u64>, u64)> {
        self.db.read(|c| {
            let (stored, allowed) = self.usage_in(c, user_id)?;
            let sql = "SELECT coalesce(sum(snapshot_count), 0) FROM machines WHERE user_id = ?1";
            Ok((stored, allowed, query_scalar(c, sql, [user_id])?))
        })
    }

    /// Fails if a file of `size` bytes exceeds the user's quota, or if the disk is below the
    /// reserve. A pushed file is on disk already, so the reserve is compared with what is free now.
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
