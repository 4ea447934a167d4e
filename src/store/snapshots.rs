//! Snapshots: push, lookup and history.

use std::fs::File;

use rusqlite::{Connection, Row, Transaction, params};
use serde::Deserialize;

use super::audit::Event;
use super::blobs::Blob;
use super::db::{query_opt, query_rows, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::upload::Upload;
use super::{Store, User};
use crate::util::limits::KEEP_ROWS;
use crate::util::time::now_ms;
use crate::util::types::{MachineId, Message, Short};

/// A snapshot's row, for the API and for the store.
#[derive(Debug)]
pub struct Snapshot {
    /// Row id; a higher id is newer.
    pub id: i64,
    /// The client's id of the machine that pushed it.
    pub machine_id: String,
    pub blob: Blob,
    /// The JSON object that the API returns.
    pub row: String,
}

/// Digests that a condition names.
#[derive(Debug, PartialEq, Eq)]
pub enum Digests {
    /// Matches every snapshot.
    Any,
    /// Matches these digests, in hexadecimal digits; any other text matches none.
    OneOf(Vec<String>),
}

/// A precondition on a snapshot (`If-Match`, `If-None-Match`).
#[derive(Debug, Default)]
pub struct Condition {
    /// The snapshot must exist and match.
    pub one_of: Option<Digests>,
    /// The snapshot must not exist, or must not match.
    pub none_of: Option<Digests>,
}

/// Selects snapshots: every field that is set must match.
#[derive(Debug, Default)]
pub struct Selector {
    /// The snapshot with this row id.
    pub id: Option<i64>,
    /// Snapshots of this machine.
    pub machine: Option<MachineId>,
    /// Snapshots with a lower row id.
    pub before: Option<i64>,
}

/// The metadata of a push.
#[derive(Debug, Default, Deserialize)]
pub struct PushBody {
    /// The pushing machine; the older route has it in the path.
    pub machine_id: Option<MachineId>,
    /// The version of the client's state format.
    pub version: Option<Short>,
    /// Free text from the user.
    pub message: Option<Message>,
    /// As the client wrote it, never interpreted.
    pub timestamp: Option<Short>,
}

/// How a push treats unknown machines, retries and conditions.
pub enum PushMode {
    /// For the six endpoints: the machine must be registered, a push of the same bytes as its
    /// newest snapshot is a retry and stores nothing, and the condition must hold.
    Idempotent(Condition),
    /// For the older route: an unknown machine is registered, a hidden one is listed again, and
    /// each push is a new snapshot.
    Append,
}

impl Store {
    /// Stores a snapshot. When this returns Ok, its bytes and its row are on disk. Returns false if
    /// these bytes were already the machine's newest snapshot: then nothing is stored.
    pub fn push(
        &self, user: &User, machine: &MachineId, body: &PushBody, mode: &PushMode, upload: Upload,
    ) -> Result<(Snapshot, bool)> {
        let of_machine = Selector { machine: Some(machine.clone()), ..Selector::default() };
        let damaged = match mode {
            PushMode::Idempotent(_) => self.damaged_newest(user, &of_machine, &upload)?,
            PushMode::Append => None,
        };
        let event = || Event::of(user, "snapshot.push").machine(machine);
        let done = self.store_blob(user, upload, event(), |tx, blob| {
            let machine_ref = match mode {
                PushMode::Append => self.upsert_machine(tx, user, machine, None)?,
                PushMode::Idempotent(condition) => {
                    let sql = "SELECT id FROM machines
                                WHERE user_id = ?1 AND machine_id = ?2 AND hidden_at IS NULL";
                    let known = query_opt(tx, sql, params![user.id, machine], |row| row.get(0))?;
                    let machine_ref = known.ok_or_else(not_registered)?;
                    // In this order (docs/api.md): a retry gets its response before the condition
                    // is checked.
                    if let Some(newest) = select_newest(tx, user.id, &of_machine)?
                        && newest.blob.digest == blob.digest
                        && damaged != Some(newest.id)
                    {
                        return Ok((newest, false));
                    }
                    // The condition applies to the user's newest snapshot, of whichever machine.
                    let newest = select_newest(tx, user.id, &Selector::default())?;
                    let digest = newest.map(|newest| newest.blob.digest.to_string());
                    if !condition.holds(digest.as_deref()) {
                        return Err(precondition_failed());
                    }
                    machine_ref
                }
            };
            // First, since what they give up counts for the quota; a refusal rolls it back.
            if self.policy.keep > 0 {
                self.delete_older(tx, user, machine, machine_ref)?;
            }
            self.check_room(tx, user.id, blob.size)?;
            let sql = "INSERT INTO state_snapshots (user_id, machine_ref, file, size_bytes, sha256,
                         version, message, client_timestamp, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, coalesce(?6, '1.0'), ?7, ?8, ?9)
                       RETURNING id";
            let (file, digest) = (blob.file.to_string(), blob.digest.0);
            let PushBody { version, message, timestamp, .. } = body;
            let (id, on, now) = (user.id, machine_ref, now_ms());
            let row = params![id, on, file, blob.size, digest, version, message, timestamp, now];
            let id = query_scalar(tx, sql, row)?;
            self.audit(tx, event().subject(id))?;
            let stored = select_newest(tx, user.id, &of_machine)?;
            Ok((stored.ok_or_else(StoreError::no_snapshot)?, true))
        })?;
        if self.policy.keep > 0 {
            self.unlink_a_few();
        }
        Ok(done)
    }

    /// Returns the machine's newest snapshot if it has the digest of this upload but its file is
    /// damaged: the retry is then stored as a new snapshot. The file is verified before the
    /// transaction, which must not wait for a file to be read. A snapshot that becomes the newest
    /// in between was synced by another push a moment ago, and is taken to be intact.
    fn damaged_newest(
        &self, user: &User, of_machine: &Selector, upload: &Upload,
    ) -> Result<Option<i64>> {
        let newest = self.db.read(|c| select_newest(c, user.id, of_machine))?;
        let same = newest.filter(|newest| newest.blob.digest == upload.digest());
        Ok(same.filter(|same| self.open_snapshot(same).is_err()).map(|same| same.id))
    }

    /// Deletes the snapshots of a machine that one more puts beyond the newest `--keep`, at most
    /// [`KEEP_ROWS`] at once, so that no push waits for a backlog. Retention deletes the rest.
    fn delete_older(
        &self, tx: &Transaction<'_>, user: &User, machine: &MachineId, machine_ref: i64,
    ) -> Result<()> {
        let sql = "DELETE FROM state_snapshots WHERE id IN
                     (SELECT id FROM state_snapshots WHERE machine_ref = ?1
                       ORDER BY id DESC LIMIT ?3 OFFSET ?2 - 1) RETURNING id";
        let values = params![machine_ref, self.policy.keep, KEEP_ROWS];
        for id in query_rows(tx, sql, values, |row| row.get(0))? {
            self.audit(tx, Event::of(user, "snapshot.prune").machine(machine).subject(id))?;
        }
        Ok(())
    }

    /// Returns the newest snapshot that matches, else NoSnapshot, also for another user's.
    pub fn snapshot(&self, user: i64, which: &Selector) -> Result<Snapshot> {
        let found = self.db.read(|c| select_newest(c, user, which))?;
        found.ok_or_else(StoreError::no_snapshot)
    }

    /// Opens a snapshot's file after verifying its digest.
    pub fn open_snapshot(&self, snapshot: &Snapshot) -> Result<File> {
        self.open_blob(snapshot.blob, StoreError::no_snapshot())
    }

    /// Returns at most `limit` rows of the history, newest first, and the `before` of the next
    /// page.
    pub fn history(
        &self, user: i64, which: &Selector, limit: usize,
    ) -> Result<(Vec<String>, Option<i64>)> {
        // One row more than `limit` tells whether there is a next page.
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let mut found: Vec<(i64, String)> =
            self.db.read(|c| select(c, user, which, limit + 1, read))?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(last, _)| *last);
        Ok((found.into_iter().map(|(_, row)| row).collect(), next))
    }
}

fn not_registered() -> StoreError {
    let sentence = "this machine is not registered: register it with POST /api/machines first";
    StoreError::new(ErrorKind::MachineNotRegistered, sentence)
}

fn precondition_failed() -> StoreError {
    let sentence = "the newest snapshot is not the one the condition names: pull, then push again";
    StoreError::new(ErrorKind::PreconditionFailed, sentence)
}

/// The newest of a user's matching snapshots.
fn select_newest(connection: &Connection, user: i64, which: &Selector) -> Result<Option<Snapshot>> {
    let found = select(connection, user, which, 1, |row| {
        let (id, json, machine_id) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Snapshot { id, machine_id, blob: Blob::from_row(row, 3)?, row: json })
    });
    Ok(found?.pop())
}

/// A user's matching snapshots, newest first, at most `limit`.
fn select<T>(
    connection: &Connection, user: i64, which: &Selector, limit: usize,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    // The first condition names the indexed column. The `+` keeps SQLite from choosing the larger
    // index, by user.
    let machine = match which.machine {
        None => "user_id = ?1 AND ?2 IS NULL",
        Some(_) => "machine_ref = (SELECT id FROM machines WHERE user_id = ?1 AND machine_id = ?2)",
    };
    let sql = format!(
        "SELECT id, row, machine_id, file, size_bytes, sha256 FROM snapshot_rows
          WHERE {machine} AND +user_id = ?1
            AND id BETWEEN coalesce(?3, 0) AND coalesce(?3, ?4 - 1, {})
          ORDER BY id DESC LIMIT ?5",
        i64::MAX
    );
    let values = params![user, which.machine, which.id, which.before, limit];
    query_rows(connection, &sql, values, read)
}

impl Condition {
    fn holds(&self, newest: Option<&str>) -> bool {
        let names = |digests: &Digests| newest.is_some_and(|newest| digests.matches(newest));
        self.one_of.as_ref().is_none_or(names) && !self.none_of.as_ref().is_some_and(names)
    }
}

impl Digests {
    /// True if this digest matches.
    pub fn matches(&self, digest: &str) -> bool {
        match self {
            Digests::Any => true,
            Digests::OneOf(digests) => digests.iter().any(|one| one == digest),
        }
    }
}
