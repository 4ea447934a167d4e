//! Deletes what nobody needs any more: rows first, then the files that their deletion named.

use rusqlite::{Connection, Row, Transaction, params};

use super::Store;
use super::audit::Event;
use super::data_dir::ORPHANS;
use super::db::{execute, query_one, query_rows, query_scalar, query_strings};
use super::dir::is_file;
use super::error::{ErrorKind, Result};
use crate::util::limits::{DELETED_DAYS, KEEP_ROWS, PRUNE_ROWS};
use crate::util::log;
use crate::util::time::{DAY_MS, now_ms};
use crate::util::types::RandomId;

/// Which snapshots may go: those that fail every rule given. A machine's newest never goes.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// A machine's newest so many stay.
    pub keep: Option<u32>,
    /// What is younger stays.
    pub older_than_days: Option<u32>,
}

/// What was, or would be, deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: u64,
    /// Entities and environments that were soft-deleted.
    pub deleted: u64,
    /// Files in `orphans/`.
    pub orphans: u64,
    /// Rows of the audit log.
    pub audit_rows: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files that stay until the next prune, since a backup copies or another prune is at work.
    pub waiting: u64,
    /// The clock seems wrong: what goes by its age alone stays.
    pub clock_in_doubt: bool,
}

/// `?1`: how many newest stay; `?2`: milliseconds that make a snapshot old, or null; `?3`: now. Age
/// is counted back from the older of the clock and the newest snapshot, and a snapshot is as young
/// as the youngest before it: a wrong clock alone makes none old.
const CANDIDATES: &str = "SELECT id, size_bytes FROM (
    SELECT id, size_bytes, max(created_at) OVER (ORDER BY id) AS as_of,
           row_number() OVER (PARTITION BY machine_ref ORDER BY id DESC) AS place
      FROM state_snapshots)
   WHERE place > ?1 AND (?2 IS NULL OR as_of < min(?3,
     (SELECT created_at FROM state_snapshots ORDER BY id DESC LIMIT 1)) - ?2)
   ORDER BY id";

/// What was soft-deleted before `?1`, with the bytes of its files.
const SOFT_DELETED: &str = "SELECT
    (SELECT count(*) FROM entities WHERE deleted_at < ?1)
      + (SELECT count(*) FROM environments WHERE deleted_at < ?1),
    (SELECT coalesce(sum(v.size_bytes), 0) FROM entities e
       JOIN entity_versions v ON v.entity_id = e.id WHERE e.deleted_at < ?1)
      + (SELECT coalesce(sum(size_bytes), 0) FROM deleted_files)";

impl Store {
    /// Deletes what `retention` selects, and what was soft-deleted or set aside 30 days ago. With
    /// `dry_run` it only says what that would be.
    pub fn prune(&self, retention: Retention, dry_run: bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let list = self.candidates(retention)?;
        if dry_run {
            pruned.snapshots = list.len() as u64;
            pruned.bytes = list.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size));
        } else {
            // In batches, so that a push never waits for a large prune, and that the log needs no
            // more room than the reserve gives. What became a machine's newest since the list was
            // made is not in the list.
            for batch in list.chunks(PRUNE_ROWS) {
                pruned.snapshots += self.write_with_reserve(|tx| delete_snapshots(tx, batch))?;
                self.unlink_deleted(&mut pruned)?;
            }
        }
        match self.trusts_clock()? {
            true => self.prune_by_age(&mut pruned, dry_run)?,
            false => pruned.clock_in_doubt = true,
        }
        if !dry_run {
            self.unlink_deleted(&mut pruned)?;
            if pruned.snapshots + pruned.deleted + pruned.orphans > 0 {
                self.write_with_reserve(|tx| Event::new("prune", "ok").write(tx))?;
            }
        }
        Ok(pruned)
    }

    /// What a server deletes by itself: beyond `keep` snapshots a machine, audit rows older than
    /// so many days (0 keeps all), and what was soft-deleted or set aside 30 days ago.
    pub fn apply_retention(&self, keep: u32, audit_days: u32) -> Result<Pruned> {
        let keep = (keep > 0).then_some(keep);
        let mut pruned = self.prune(Retention { keep, older_than_days: None }, false)?;
        if audit_days == 0 || pruned.clock_in_doubt {
            return Ok(pruned);
        }
        let sql = "DELETE FROM audit_log WHERE id IN
                     (SELECT id FROM audit_log WHERE created_at < ?1 LIMIT ?2)";
        loop {
            let rows =
                self.write(|tx| execute(tx, sql, params![days_ago(audit_days), PRUNE_ROWS]))?;
            pruned.audit_rows += rows as u64;
            if rows < PRUNE_ROWS {
                return Ok(pruned);
            }
        }
    }

    fn candidates(&self, retention: Retention) -> Result<Vec<(i64, u64)>> {
        let Retention { keep, older_than_days } = retention;
        if keep.is_none() && older_than_days.is_none() {
            return Ok(Vec::new());
        }
        let old_ms = older_than_days.map(|days| i64::from(days) * DAY_MS);
        let values = params![keep.unwrap_or(1).max(1), old_ms, now_ms()];
        self.db.read(|c| query_rows(c, CANDIDATES, values, |row| Ok((row.get(0)?, row.get(1)?))))
    }

    fn prune_by_age(&self, pruned: &mut Pruned, dry_run: bool) -> Result<()> {
        let before = days_ago(DELETED_DAYS);
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (deleted, bytes): (u64, u64) =
            self.db.read(|c| query_one(c, "row", SOFT_DELETED, [before], read))?;
        pruned.deleted = deleted;
        match dry_run {
            true => pruned.bytes = pruned.bytes.saturating_add(bytes),
            false if deleted == 0 => {}
            false => self.write_with_reserve(|tx| {
                execute(tx, "DELETE FROM entities WHERE deleted_at < ?1", [before])?;
                execute(tx, "DELETE FROM environments WHERE deleted_at < ?1", [before])?;
                Ok(())
            })?,
        }
        if self.data.root().look(ORPHANS)?.is_none() {
            return Ok(());
        }
        let orphans = self.data.root().dir(ORPHANS)?;
        for name in orphans.names()?.iter().filter(|name| RandomId::parse(name).is_some()) {
            let Some(stat) = orphans.look(name)?.filter(is_file) else { continue };
            if stat.st_mtime.saturating_mul(1000) < before && (dry_run || orphans.unlink(name)?) {
                pruned.orphans += 1;
                pruned.bytes = pruned.bytes.saturating_add(stat.st_size.cast_unsigned());
            }
        }
        Ok(())
    }

    /// Unlinks the files whose rows are gone. A running backup may still copy them: then they
    /// stay for the next time, as do those that cannot be unlinked.
    pub fn unlink_deleted(&self, pruned: &mut Pruned) -> Result<()> {
        let mut after = String::new();
        pruned.waiting = 0;
        while let Some(last) = self.unlink_page(&after, PRUNE_ROWS, pruned)? {
            after = last;
        }
        Ok(())
    }

    /// The same for a few files whose names come after one; returns the last name.
    pub(super) fn unlink_page(
        &self, after: &str, most: usize, pruned: &mut Pruned,
    ) -> Result<Option<String>> {
        let sql = "SELECT file FROM deleted_files WHERE file > ?1 ORDER BY file LIMIT ?2";
        let mut names = self.db.read(|c| query_strings(c, sql, params![after, most]))?;
        let Some(last) = names.last().cloned() else { return Ok(None) };
        let Some(_lock) = self.data.lock_for_unlink()? else {
            pruned.waiting =
                self.db.read(|c| query_scalar(c, "SELECT count(*) FROM deleted_files", []))?;
            return Ok(None);
        };
        names.retain(|name| {
            let unlinked = self.unlink_stored(name);
            if let Err(error) = &unlinked {
                log::warn(&format!("a file stays until the next prune: {error}"));
                pruned.waiting += 1;
            }
            pruned.bytes = pruned.bytes.saturating_add(*unlinked.as_ref().unwrap_or(&0));
            unlinked.is_ok()
        });
        self.write_with_reserve(|tx| {
            let forget = "DELETE FROM deleted_files WHERE file = ?1";
            names.iter().try_for_each(|name| execute(tx, forget, [name]).map(|_| ()))
        })?;
        Ok(Some(last))
    }

    /// Unlinks a few, after a request that deleted their rows: it is done whatever becomes of them.
    pub(super) fn unlink_a_few(&self) {
        if let Err(error) = self.unlink_page("", KEEP_ROWS, &mut Pruned::default()) {
            log::warn(&format!("files of deleted rows stay until the next prune: {error}"));
        }
    }

    /// Unlinks a file; says how many bytes that freed.
    fn unlink_stored(&self, name: &str) -> Result<u64> {
        let Some(file) = RandomId::parse(name) else { return Ok(0) };
        let shard = self.data.shard(file)?;
        let stat = shard.look(name)?;
        shard.unlink(name)?;
        Ok(stat.map_or(0, |stat| stat.st_size.cast_unsigned()))
    }

    /// Runs `work`, which makes room, in a transaction; where the disk is so full that not even its
    /// log has room, the reserve is given up for that.
    pub(super) fn write_with_reserve<T>(
        &self, work: impl Fn(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        match self.write(&work) {
            Err(e) if e.kind == ErrorKind::DiskFull && self.data.free_reserve()? => {
                self.write(work)
            }
            done => done,
        }
    }
}

/// The moment so many days ago, in milliseconds since 1970.
fn days_ago(days: u32) -> i64 {
    now_ms().saturating_sub(i64::from(days).saturating_mul(DAY_MS))
}

/// Deletes one batch, each snapshot with its row in the audit log; says how many were there.
fn delete_snapshots(connection: &Connection, list: &[(i64, u64)]) -> Result<u64> {
    let audit = "INSERT INTO audit_log (created_at, event, user_id, user_email, machine, outcome,
                   subject_id)
                 SELECT ?2, 'snapshot.prune', s.user_id, u.email, m.machine_id, 'ok', s.id
                   FROM state_snapshots s JOIN users u ON u.id = s.user_id
                   JOIN machines m ON m.id = s.machine_ref WHERE s.id = ?1";
    let mut deleted = 0;
    for (id, _) in list {
        execute(connection, audit, [*id, now_ms()])?;
        deleted += execute(connection, "DELETE FROM state_snapshots WHERE id = ?1", [id])?;
    }
    Ok(deleted as u64)
}
