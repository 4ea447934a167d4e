//! Deletes what is no longer needed: rows first, then the files that their deletion named.

use rusqlite::{Connection, params};
use serde_json::json;

use super::Store;
use super::audit::Event;
use super::data_dir::ORPHANS;
use super::db::{execute, query_one, query_rows, query_scalar};
use super::error::Result;
use crate::util::limits::{DELETED_DAYS, KEEP_ROWS, PRUNE_ROWS};
use crate::util::log;
use crate::util::time::{DAY_MS, now_ms};
use crate::util::types::RandomId;

/// Retention rules: a snapshot that fails every given rule is deleted, but never a machine's
/// newest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Keeps this many of a machine's newest snapshots; 0: no rule.
    pub keep: u32,
    /// Keeps snapshots younger than this.
    pub older_than_days: Option<u32>,
    /// Deletes audit rows older than this; 0 keeps all.
    pub audit_days: u32,
}

/// What was deleted or, in a dry run, would be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub snapshots: u64,
    /// Soft-deleted entities and environments.
    pub deleted: u64,
    /// Files in `orphans/`.
    pub orphans: u64,
    /// Rows of the audit log.
    pub audit_rows: u64,
    /// Bytes of all these files.
    pub bytes: u64,
    /// Files that stay until the next prune, since a backup or another prune runs, or since they
    /// cannot be unlinked.
    pub waiting: u64,
    /// The clock seems wrong: soft-deleted rows, files in `orphans/` and audit rows stay. For
    /// snapshots, [`CANDIDATES`] allows for a wrong clock itself.
    pub clock_in_doubt: bool,
}

/// `?1`: how many newest snapshots stay, or 0; `?2`: the age in milliseconds that makes a snapshot
/// old, or NULL; `?3`: now. Age counts back from the earlier of the clock and the newest snapshot,
/// and a snapshot is as young as the youngest before it: a wrong clock alone makes no snapshot old.
/// Only if a snapshot was pushed while the clock was ahead, and prune runs under that clock too,
/// are both ahead.
const CANDIDATES: &str = "SELECT id, size_bytes FROM (
    SELECT id, size_bytes, max(created_at) OVER (ORDER BY id) AS as_of,
           row_number() OVER (PARTITION BY machine_ref ORDER BY id DESC) AS place
      FROM state_snapshots)
   WHERE place > max(?1, 1) AND coalesce(as_of < min(?3,
     (SELECT created_at FROM state_snapshots ORDER BY id DESC LIMIT 1)) - ?2, TRUE)
   ORDER BY id";

/// The number of rows soft-deleted before `?1`; the bytes of their files and of those that wait to
/// be unlinked.
const SOFT_DELETED: &str = "SELECT
    (SELECT count(*) FROM entities WHERE deleted_at < ?1)
      + (SELECT count(*) FROM environments WHERE deleted_at < ?1),
    (SELECT coalesce(sum(v.size_bytes), 0) FROM entities e
       JOIN entity_versions v ON v.entity_id = e.id WHERE e.deleted_at < ?1)
      + (SELECT coalesce(sum(size_bytes), 0) FROM deleted_files)";

impl Store {
    /// Deletes what `retention` selects, and what was soft-deleted or set aside 30 days ago. With
    /// `dry_run`, only returns what that would be.
    pub fn prune(&self, retention: Retention, dry_run: bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let old_ms = retention.older_than_days.map(|days| i64::from(days) * DAY_MS);
        let values = params![retention.keep, old_ms, now_ms()];
        // Without a rule no snapshot is deleted, and none are sorted.
        let list: Vec<(i64, u64)> = match retention.keep > 0 || old_ms.is_some() {
            true => self.db.read(|c| query_rows(c, CANDIDATES, values, |row| row.try_into()))?,
            false => Vec::new(),
        };
        if dry_run {
            pruned.snapshots = list.len() as u64;
            pruned.bytes = list.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size));
        } else {
            // In batches, so that a push never waits for a large prune, and the WAL fits into the
            // space that the reserve frees. A snapshot that became a machine's newest since the
            // query is not in the list.
            for batch in list.chunks(PRUNE_ROWS) {
                pruned.snapshots += self.write_with_reserve(|tx| delete_snapshots(tx, batch))?;
                let freed = self.unlink_deleted(Some(PRUNE_ROWS))?;
                pruned.bytes = pruned.bytes.saturating_add(freed);
            }
        }
        match self.trusts_clock()? {
            true => self.prune_by_age(&mut pruned, dry_run)?,
            false => pruned.clock_in_doubt = true,
        }
        if !dry_run {
            pruned.bytes = pruned.bytes.saturating_add(self.unlink_deleted(None)?);
            let sql = "SELECT count(*) FROM deleted_files";
            pruned.waiting = self.db.read(|c| query_scalar(c, sql, []))?;
            if pruned.snapshots + pruned.deleted + pruned.orphans > 0 {
                self.write_with_reserve(|tx| Event::new("prune").insert(tx))?;
            }
            if retention.audit_days > 0 && !pruned.clock_in_doubt {
                pruned.audit_rows = self.prune_audit(days_ago(retention.audit_days))?;
            }
        }
        Ok(pruned)
    }

    fn prune_by_age(&self, pruned: &mut Pruned, dry_run: bool) -> Result<()> {
        let before = days_ago(DELETED_DAYS);
        let (deleted, bytes): (u64, u64) =
            self.db.read(|c| query_one(c, "row", SOFT_DELETED, [before], |row| row.try_into()))?;
        pruned.deleted = deleted;
        if dry_run {
            pruned.bytes = pruned.bytes.saturating_add(bytes);
        } else if deleted > 0 {
            self.write_with_reserve(|tx| {
                execute(tx, "DELETE FROM entities WHERE deleted_at < ?1", [before])?;
                execute(tx, "DELETE FROM environments WHERE deleted_at < ?1", [before])
            })?;
        }
        if self.data.root.lstat(ORPHANS)?.is_some() {
            let orphans = self.data.root.dir(ORPHANS)?;
            for name in orphans.names()? {
                let Some(stat) = orphans.lstat_ours(&name)? else { continue };
                if stat.st_mtime.saturating_mul(1000) >= before {
                    continue;
                }
                let unlinked = if dry_run { Ok(true) } else { orphans.unlink(&name) };
                match unlinked {
                    Ok(gone) => {
                        pruned.orphans += u64::from(gone);
                        pruned.bytes = pruned.bytes.saturating_add(stat.st_size.cast_unsigned());
                    }
                    Err(error) => log::warn(&format!("a file stays in {ORPHANS}/: {error}")),
                }
            }
        }
        Ok(())
    }

    /// Deletes audit rows older than `before`, and returns how many.
    fn prune_audit(&self, before: i64) -> Result<u64> {
        let any = "SELECT EXISTS (SELECT 1 FROM audit_log WHERE created_at < ?1)";
        let sql = "DELETE FROM audit_log WHERE id IN
                     (SELECT id FROM audit_log WHERE created_at < ?1 LIMIT ?2)";
        let mut gone = 0;
        while self.db.read(|c| query_scalar(c, any, [before]))? {
            gone += self.write(|tx| execute(tx, sql, params![before, PRUNE_ROWS]))? as u64;
        }
        Ok(gone)
    }

    /// Unlinks files whose rows are deleted, at most `most`; returns how many bytes that freed. A
    /// running backup may still copy them: then they stay for the next time, as does each file that
    /// cannot be unlinked.
    pub(super) fn unlink_deleted(&self, most: Option<usize>) -> Result<u64> {
        let Some(_lock) = self.data.lock_for_unlink()? else { return Ok(0) };
        // `file > ''` makes this a search by key, as every query of a request is: no other row is
        // read.
        let sql = "SELECT file, size_bytes FROM deleted_files WHERE file > ''
                    LIMIT coalesce(?1, -1)";
        let list: Vec<(String, u64)> =
            self.db.read(|c| query_rows(c, sql, [most], |row| row.try_into()))?;
        let (mut gone, mut freed) = (Vec::new(), 0_u64);
        for (name, size) in list {
            match RandomId::parse(&name).map_or(Ok(false), |file| self.unlink_stored(file)) {
                Ok(_) => {
                    gone.push(name);
                    freed = freed.saturating_add(size);
                }
                Err(error) => log::warn(&format!("a file stays until the next prune: {error}")),
            }
        }
        if gone.is_empty() {
            return Ok(0);
        }
        let sql = "DELETE FROM deleted_files WHERE file IN (SELECT value FROM json_each(?1))";
        self.write_with_reserve(|tx| execute(tx, sql, [json!(gone).to_string()]))?;
        Ok(freed)
    }

    /// Unlinks a few files after a request that deleted their rows. The request succeeds even if
    /// this fails.
    pub(super) fn unlink_a_few(&self) {
        if let Err(error) = self.unlink_deleted(Some(KEEP_ROWS)) {
            log::warn(&format!("files of deleted rows stay until the next prune: {error}"));
        }
    }

    /// Unlinks a stored file that no row names; returns false if it did not exist.
    pub(super) fn unlink_stored(&self, file: RandomId) -> Result<bool> {
        self.data.shard(file)?.unlink(&file.to_string())
    }
}

/// The time this many days ago, in milliseconds since 1970.
fn days_ago(days: u32) -> i64 {
    now_ms().saturating_sub(i64::from(days).saturating_mul(DAY_MS))
}

/// Deletes one batch of snapshots, with an audit row for each; returns how many existed.
fn delete_snapshots(connection: &Connection, list: &[(i64, u64)]) -> Result<u64> {
    let audit = "INSERT INTO audit_log (created_at, event, user_id, user_email, machine, outcome,
                   subject_id)
                 SELECT ?2, 'snapshot.prune', s.user_id, u.email, m.machine_id, 'ok', s.id
                   FROM state_snapshots s JOIN users u ON u.id = s.user_id
                   JOIN machines m ON m.id = s.machine_ref
                  WHERE s.id IN (SELECT value FROM json_each(?1))";
    let ids = json!(list.iter().map(|(id, _)| id).collect::<Vec<_>>()).to_string();
    execute(connection, audit, params![ids, now_ms()])?;
    let delete = "DELETE FROM state_snapshots WHERE id IN (SELECT value FROM json_each(?1))";
    Ok(execute(connection, delete, [ids])? as u64)
}
