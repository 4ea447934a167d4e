//! Transactions that write, each on disk when it returns: `write` for every one, `write_as_user`
//! for a user's request, `write_with_reserve` for what frees space on a full disk.

use rusqlite::Transaction;
use serde_json::json;

use super::credentials::confirm;
use super::db::query_scalar;
use super::error::{ErrorKind, Result, StoreError};
use super::status::{Fact, insert_fact};
use super::{Store, User};
use crate::util::limits::TEXT_BYTES_PER_USER_MAX;
use crate::util::sync::lock;

impl Store {
    /// Runs `work` in a transaction. When this returns Ok, the transaction is on disk.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.detect_clock_jump()?;
        let in_doubt = lock(&self.in_doubt).clone();
        let value = self.db.write(|tx| {
            let value = work(tx)?;
            if !in_doubt.is_empty() {
                // A transaction that changes nothing writes nothing to the WAL, and then would not
                // overwrite what failed commits left there.
                insert_fact(tx, Fact::IN_DOUBT, &json!({ "files": in_doubt.len() }))?;
            }
            Ok(value)
        })?;
        // This successful commit overwrote what earlier failed ones left in the WAL, so the
        // database itself now shows whether their rows exist.
        for file in in_doubt {
            match self.has_row(file) {
                Ok(true) => {}
                Ok(false) => self.unlink_placed(file),
                Err(_) => continue,
            }
            lock(&self.in_doubt).retain(|other| *other != file);
        }
        Ok(value)
    }

    /// Runs the transaction of a user's request. It checks the credential again: one that was
    /// revoked while the body arrived writes nothing. If the user's text grew, the limits are
    /// checked, and the transaction is rolled back if one is exceeded. A request that only deletes
    /// is always allowed.
    pub(super) fn write_as_user<T>(
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

    /// Runs `work`, which frees space, in a transaction, and gives up the reserve if that is
    /// needed.
    pub(super) fn write_with_reserve<T>(
        &self, work: impl Fn(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.data.with_reserve(|| self.write(&work))
    }
}
