//! What a user's files and rows take, and what they may take: asked in one place, inside the
//! transaction of every request that writes.

use rusqlite::{Connection, Transaction};

use super::credentials::confirm;
use super::db::query_one;
use super::error::{ErrorKind, Result, StoreError};
use super::{Store, User};
use crate::util::limits::TEXT_BYTES_PER_USER_MAX;

/// What a user's files and rows take, in bytes.
#[derive(Clone, Copy)]
struct Usage {
    /// Of the files.
    stored: u64,
    /// What `stored` may be; None is no limit.
    allowed: Option<u64>,
    /// Of the rows, as the database adds it up.
    text: u64,
}

impl Store {
    /// Bytes that a user has stored and may store at most (None: no limit).
    pub fn usage(&self, user_id: i64) -> Result<(u64, Option<u64>)> {
        let usage = self.db.read(|c| self.usage_in(c, user_id))?;
        Ok((usage.stored, usage.allowed))
    }

    /// Runs the transaction of a user's request. The credential is asked again in it: one that was
    /// revoked while the body came writes nothing. If the user's text grew, the limits are checked,
    /// else all is rolled back. What only deletes is always allowed.
    pub(super) fn write_as<T>(
        &self, user: &User, work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write(|tx| self.work_as(user, tx, work))
    }

    /// The same within a transaction.
    pub(super) fn work_as<T>(
        &self, user: &User, tx: &Transaction<'_>, work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        confirm(tx, user)?;
        let before = self.usage_in(tx, user.id)?;
        let done = work(tx)?;
        let after = self.usage_in(tx, user.id)?;
        if after.text > before.text {
            if after.text > TEXT_BYTES_PER_USER_MAX {
                let sentence = format!(
                    "what this account keeps beside its files (machines, projects, variables, \
                     links, environments, messages) would take more than \
                     {TEXT_BYTES_PER_USER_MAX} bytes: delete some of it, or ask the operator to \
                     prune old snapshots"
                );
                return Err(StoreError::new(ErrorKind::QuotaExceeded, sentence));
            }
            // Where no file of one byte would fit, no row is added either.
            self.check_fits(before, 1)?;
        }
        Ok(done)
    }

    /// Room for a file of `size` bytes of a user? It is on disk already, so the reserve is compared
    /// with what is left now.
    pub(super) fn check_room(
        &self, connection: &Connection, user_id: i64, size: u64,
    ) -> Result<()> {
        self.check_fits(self.usage_in(connection, user_id)?, size)
    }

    fn check_fits(&self, usage: Usage, size: u64) -> Result<()> {
        let over = usage.allowed.filter(|allowed| usage.stored.saturating_add(size) > *allowed);
        match over {
            Some(allowed) => Err(StoreError::over_quota(usage.stored, allowed)),
            None => self.policy.check_free(self.free_bytes()?),
        }
    }

    fn usage_in(&self, connection: &Connection, user_id: i64) -> Result<Usage> {
        let sql = "SELECT stored_bytes, quota_bytes, text_bytes FROM users WHERE id = ?1";
        query_one(connection, "user", sql, [user_id], |row| {
            let own: Option<u64> = row.get(1)?;
            let allowed = Some(own.unwrap_or(self.policy.quota_bytes)).filter(|quota| *quota > 0);
            Ok(Usage { stored: row.get(0)?, allowed, text: row.get(2)? })
        })
    }
}
