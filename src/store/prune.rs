//! Takes away what nobody needs any more: rows first, then the files that their deletion named.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::Store;
use super::audit::Event;
use super::db::{execute, query_one, query_rows, query_strings};
use super::error::{Result, StoreError};
use super::folder::{list, sync_dir};
use crate::util::limits::{KEEP_ROWS, LOST_DAYS, PRUNE_ROWS};
use crate::util::time::{DAY_MS, now_ms};
use crate::util::types::RandomId;

/// Which snapshots may go: those that fail every rule given. A machine's newest never goes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A machine's newest so many stay.
    pub keep: Option<u32>,
    /// What is younger stays; what was deleted softly longer ago goes too.
    pub older_than_days: Option<u32>,
}

/// What was, or would be, taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: u64,
    /// Entities and environments that were deleted softly.
    pub deleted: u64,
    /// Files in `lost+found/`.
    pub lost: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files that stay until the next prune, since a backup copies or another prune is at work.
    pub waiting: u64,
}

/// The snapshots that rules select. `?1`: how many newest stay; `?2`: the moment before which a
/// snapshot is old, or null.
const CANDIDATES: &str = "FROM (SELECT id, user_id, machine_ref, size_bytes, created_at,
      row_number() OVER (PARTITION BY machine_ref ORDER BY id DESC) AS place
    FROM state_snapshots) WHERE place > ?1 AND (?2 IS NULL OR created_at < ?2)";

impl Store {
    /// What [`Store::prune`] would take away; changes nothing.
    pub fn prune_preview(&self, rules: Rules) -> Result<Pruned> {
        let (keep, before) = bounds(rules);
        let mut pruned = self.db.read(|c| {
            let sql = format!("SELECT count(*), coalesce(sum(size_bytes), 0) {CANDIDATES}");
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let (snapshots, bytes): (u64, u64) =
                query_one(c, "snapshot", &sql, params![keep, before], read)?;
            let sql = "SELECT (SELECT count(*) FROM entities WHERE deleted_at < ?1)
                            + (SELECT count(*) FROM environments WHERE deleted_at < ?1),
                         (SELECT coalesce(sum(v.size_bytes), 0) FROM entities e
                            JOIN entity_versions v ON v.entity_id = e.id WHERE e.deleted_at < ?1)
                       + (SELECT coalesce(sum(size_bytes), 0) FROM deleted_files)";
            let (deleted, more): (u64, u64) = query_one(c, "row", sql, [before], read)?;
            Ok(Pruned {
                snapshots,
                deleted,
                bytes: bytes.saturating_add(more),
                ..Pruned::default()
            })
        })?;
        self.prune_lost(&mut pruned, false)?;
        Ok(pruned)
    }

    /// Takes away what the rules select, what was deleted softly before, and what has lain in
    /// `lost+found/` for [`LOST_DAYS`].
    pub fn prune(&self, rules: Rules) -> Result<Pruned> {
        let (keep, before) = bounds(rules);
        let mut pruned = Pruned::default();
        // In batches, so that a push never waits for a large prune. What became a machine's
        // newest since the list was made is not in the list.
        let sql = format!("SELECT id {CANDIDATES} ORDER BY id");
        let ids: Vec<i64> =
            self.db.read(|c| query_rows(c, &sql, params![keep, before], |row| row.get(0)))?;
        for batch in ids.chunks(PRUNE_ROWS) {
            pruned.snapshots += self.write(|tx| delete_snapshots(tx, batch))?;
        }
        if let Some(before) = before {
            self.write(|tx| {
                let entities = "DELETE FROM entities WHERE deleted_at < ?1";
                let environments = "DELETE FROM environments WHERE deleted_at < ?1";
                let rows = execute(tx, entities, [before])? + execute(tx, environments, [before])?;
                pruned.deleted = rows as u64;
                Ok(())
            })?;
        }
        self.unlink_deleted(&mut pruned)?;
        self.prune_lost(&mut pruned, true)?;
        if pruned != Pruned::default() {
            self.write(|tx| Event::new("prune", "ok").write(tx))?;
        }
        Ok(pruned)
    }

    /// Deletes audit rows older than so many days, in batches.
    pub fn prune_audit(&self, days: u32) -> Result<()> {
        let (_, before) = bounds(Rules { keep: None, older_than_days: Some(days) });
        let sql = "DELETE FROM audit_log WHERE id IN
                     (SELECT id FROM audit_log WHERE created_at < ?1 LIMIT ?2)";
        let batch = || self.write(|tx| execute(tx, sql, params![before, PRUNE_ROWS]));
        while batch()? == PRUNE_ROWS {}
        Ok(())
    }

    /// Unlinks the files whose rows are gone. A running backup may still copy them: then they
    /// stay for the next time.
    pub fn unlink_deleted(&self, pruned: &mut Pruned) -> Result<()> {
        let names = |c: &Connection| query_strings(c, "SELECT file FROM deleted_files", []);
        let names = self.db.read(names)?;
        if names.is_empty() {
            return Ok(());
        }
        let Some(_lock) = self.folder.lock_for_unlink()? else {
            pruned.waiting = names.len() as u64;
            return Ok(());
        };
        for name in names.iter().filter_map(|name| RandomId::parse(name)) {
            let path = self.folder.snapshot(name);
            let size = path.metadata().map_or(0, |m| m.len());
            match fs::remove_file(&path) {
                Ok(()) => pruned.bytes = pruned.bytes.saturating_add(size),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("remove", &path, e)),
            }
        }
        self.write(|tx| {
            let forget = "DELETE FROM deleted_files WHERE file = ?1";
            names.iter().try_for_each(|name| execute(tx, forget, [name]).map(|_| ()))
        })
    }

    fn prune_lost(&self, pruned: &mut Pruned, remove: bool) -> Result<()> {
        let dir = self.folder.lost_and_found();
        for path in if dir.is_dir() { list(&dir)? } else { Vec::new() } {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            let old = age.is_some_and(|age| age >= Duration::from_secs(LOST_DAYS * 86_400));
            if !old || metadata.is_dir() {
                continue;
            }
            if remove {
                match fs::remove_file(&path) {
                    // Another prune was faster.
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    done => done.map_err(|e| StoreError::io("remove", &path, e))?,
                }
            }
            pruned.lost += 1;
            pruned.bytes = pruned.bytes.saturating_add(metadata.len());
        }
        if remove && pruned.lost > 0 { sync_dir(&dir) } else { Ok(()) }
    }
}

/// How many newest stay, and the moment (milliseconds since 1970) before which one is old.
fn bounds(rules: Rules) -> (i64, Option<i64>) {
    let before = |days: u32| now_ms().saturating_sub(i64::from(days).saturating_mul(DAY_MS));
    (i64::from(rules.keep.unwrap_or(1).max(1)), rules.older_than_days.map(before))
}

/// Deletes what is beyond the newest `keep` of a machine; of many only some, so that no push waits
/// for a backlog, which retention takes.
pub(super) fn keep_newest(connection: &Connection, machine_ref: i64, keep: u32) -> Result<()> {
    let sql = "SELECT id FROM state_snapshots WHERE machine_ref = ?1
                ORDER BY id DESC LIMIT ?3 OFFSET ?2";
    let ids: Vec<i64> =
        query_rows(connection, sql, params![machine_ref, keep, KEEP_ROWS], |row| row.get(0))?;
    delete_snapshots(connection, &ids).map(|_| ())
}

/// Deletes one batch, each snapshot with its row in the audit log; says how many were there.
fn delete_snapshots(connection: &Connection, ids: &[i64]) -> Result<u64> {
    let audit = "INSERT INTO audit_log (created_at, event, user_id, user_email, machine, outcome,
                   subject_id)
                 SELECT ?2, 'snapshot.prune', s.user_id, u.email, m.machine_id, 'ok', s.id
                   FROM state_snapshots s JOIN users u ON u.id = s.user_id
                   JOIN machines m ON m.id = s.machine_ref WHERE s.id = ?1";
    let mut deleted = 0;
    for id in ids {
        execute(connection, audit, [*id, now_ms()])?;
        deleted += execute(connection, "DELETE FROM state_snapshots WHERE id = ?1", [id])?;
    }
    Ok(deleted as u64)
}
