//! Snapshots: pushed, found, listed.

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

/// A snapshot's row, as the API shows it and as the store needs it.
#[derive(Debug)]
pub struct Snapshot {
    /// Row id; a higher one is newer.
    pub id: i64,
    /// The machine it was pushed from.
    pub machine_id: String,
    pub blob: Blob,
    /// A JSON object.
    pub row: String,
}

/// Snapshots by their digests.
#[derive(Debug, PartialEq, Eq)]
pub enum Digests {
    /// Every one.
    Any,
    /// Those with one of these, in hexadecimal digits; other texts name none.
    OneOf(Vec<String>),
}

/// What must hold of a snapshot.
#[derive(Debug, Default)]
pub struct Condition {
    /// It must be there, and one of these.
    pub one_of: Option<Digests>,
    /// It must not be there, or be none of these.
    pub none_of: Option<Digests>,
}

/// Which snapshots are asked for: all parts given must match.
#[derive(Debug, Default)]
pub struct Selector {
    /// This one.
    pub id: Option<i64>,
    /// Those of this machine.
    pub machine: Option<MachineId>,
    /// Those below this id.
    pub before: Option<i64>,
}

/// What a push says beside its bytes.
#[derive(Debug, Default, Deserialize)]
pub struct PushBody {
    /// The machine it comes from; the older route has it in the path.
    pub machine_id: Option<MachineId>,
    /// Of the client's state format.
    pub version: Option<Short>,
    /// The user's words.
    pub message: Option<Message>,
    /// As the client wrote it.
    pub timestamp: Option<Short>,
}

/// What a push may do.
pub enum PushMode {
    /// Of the six endpoints: the machine must be registered, the same bytes again as its newest
    /// snapshot are a retry and store nothing, and the condition must hold.
    Idempotent(Condition),
    /// Of the older route: an unknown machine is registered, a hidden one comes back, and each
    /// push is a new snapshot.
    Append,
}

impl Store {
    /// Stores a snapshot. When this returns Ok, its bytes and its row are on disk. False if these
    /// bytes were the machine's newest snapshot already: then nothing is stored.
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
                    // In this order (docs/api.md): a retry is answered before the condition is asked.
                    if let Some(newest) = newest(tx, user.id, &of_machine)?
                        && newest.blob.digest == blob.digest
                        && damaged != Some(newest.id)
                    {
                        return Ok((newest, false));
                    }
                    // The condition is about the user's newest snapshot, of whichever machine.
                    let newest = newest(tx, user.id, &Selector::default())?;
                    let digest = newest.map(|newest| newest.blob.digest.to_string());
                    if !condition.holds(digest.as_deref()) {
                        return Err(precondition_failed());
                    }
                    machine_ref
                }
            };
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
            if self.policy.keep > 0 {
                self.delete_older(tx, user, machine, machine_ref)?;
            }
            let stored = newest(tx, user.id, &of_machine)?;
            Ok((stored.ok_or_else(StoreError::no_snapshot)?, true))
        })?;
        if self.policy.keep > 0 {
            self.unlink_a_few();
        }
        Ok(done)
    }

    /// The machine's newest snapshot, if it has the bytes of this upload but its file is damaged: a
    /// retry is then stored anew, not answered with it. Its digest is compared before the
    /// transaction, which must not wait for a file to be read. A snapshot that becomes the newest
    /// between the two was synced by another push a moment ago: it is taken as whole.
    fn damaged_newest(
        &self, user: &User, of_machine: &Selector, upload: &Upload,
    ) -> Result<Option<i64>> {
        let newest = self.db.read(|c| newest(c, user.id, of_machine))?;
        let same = newest.filter(|newest| newest.blob.digest == upload.digest());
        Ok(same.filter(|same| self.open_snapshot(same).is_err()).map(|same| same.id))
    }

    /// Deletes what is beyond the newest `--keep` of a machine; of many only some, so that no push
    /// waits for a backlog, which retention takes.
    fn delete_older(
        &self, tx: &Transaction<'_>, user: &User, machine: &MachineId, machine_ref: i64,
    ) -> Result<()> {
        let sql = "DELETE FROM state_snapshots WHERE id IN
                     (SELECT id FROM state_snapshots WHERE machine_ref = ?1
                       ORDER BY id DESC LIMIT ?3 OFFSET ?2) RETURNING id";
        let values = params![machine_ref, self.policy.keep, KEEP_ROWS];
        for id in query_rows(tx, sql, values, |row| row.get(0))? {
            self.audit(tx, Event::of(user, "snapshot.prune").machine(machine).subject(id))?;
        }
        Ok(())
    }

    /// Finds the newest snapshot that matches; Missing also for another user's.
    pub fn snapshot(&self, user: i64, which: &Selector) -> Result<Snapshot> {
        let found = self.db.read(|c| newest(c, user, which))?;
        found.ok_or_else(StoreError::no_snapshot)
    }

    /// Opens a snapshot's file after its digest was compared.
    pub fn open_snapshot(&self, snapshot: &Snapshot) -> Result<File> {
        self.open_blob(snapshot.blob, StoreError::no_snapshot())
    }

    /// At most `limit` rows of the history, newest first, and below which id the next page is.
    pub fn history(
        &self, user: i64, which: &Selector, limit: usize,
    ) -> Result<(Vec<String>, Option<i64>)> {
        // One more than asked for tells whether there is a next page.
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

/// The newest of a user's snapshots that match.
fn newest(connection: &Connection, user: i64, which: &Selector) -> Result<Option<Snapshot>> {
    let found = select(connection, user, which, 1, |row| {
        let (id, json, machine_id) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Snapshot { id, machine_id, blob: Blob::from_row(row, 3)?, row: json })
    });
    Ok(found?.pop())
}

/// A user's snapshots that match, newest first, at most `limit`.
fn select<T>(
    connection: &Connection, user: i64, which: &Selector, limit: usize,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    // The indexed column first. The `+` keeps SQLite from choosing the larger index.
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
        let names = |digests: &Digests| newest.is_some_and(|newest| digests.name(newest));
        self.one_of.as_ref().is_none_or(names) && !self.none_of.as_ref().is_some_and(names)
    }
}

impl Digests {
    /// True if this digest is one of them.
    pub fn name(&self, digest: &str) -> bool {
        match self {
            Digests::Any => true,
            Digests::OneOf(digests) => digests.iter().any(|one| one == digest),
        }
    }
}
