//! Snapshots: pushed, found, listed.

use std::fs::File;

use rusqlite::{Connection, Row, Transaction, params};
use serde::Deserialize;

use super::audit::Event;
use super::blobs::Blob;
use super::db::{query_rows, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::machines::machine_ref;
use super::upload::{Placed, Upload};
use super::{Store, User};
use crate::util::limits::KEEP_ROWS;
use crate::util::time::now_ms;
use crate::util::types::{Digest, MachineId, Message, Short};

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
            PushMode::Idempotent(_) => {
                self.damaged_newest(user.id, &of_machine, upload.digest())?
            }
            PushMode::Append => None,
        };
        let done = self.store_blob(user, upload, |tx, blob| {
            let machine_ref = target_machine(self, tx, user, machine, mode)?;
            if let PushMode::Idempotent(condition) = mode {
                // The order of these questions is part of the contract.
                if let Some(newest) = newest(tx, user.id, &of_machine)?
                    && newest.blob.digest == blob.digest
                    && damaged != Some(newest.id)
                {
                    return Ok((newest, Placed::Unused));
                }
                let newest = newest(tx, user.id, &Selector::default())?;
                let newest = newest.map(|newest| newest.blob.digest.to_string());
                if !condition.holds(newest.as_deref()) {
                    return Err(precondition_failed());
                }
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
            self.audit(tx, Event::of(user, "snapshot.push").machine(machine).subject(id))?;
            if self.policy.keep > 0 {
                self.delete_older(tx, user, machine, machine_ref)?;
            }
            let stored = newest(tx, user.id, &of_machine)?;
            Ok((stored.ok_or_else(StoreError::no_snapshot)?, Placed::Named))
        });
        let push = || Event::of(user, "snapshot.push").machine(machine);
        let (snapshot, placed) = done.inspect_err(|error| self.audit_refusal(push(), error))?;
        if self.policy.keep > 0 {
            self.unlink_a_few();
        }
        Ok((snapshot, placed == Placed::Named))
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

    /// The id of a machine's newest snapshot if it has this digest and its file is damaged: then
    /// the same bytes are stored once more, not acknowledged as they are. Looked at before the
    /// transaction, which must not wait for a file to be read. A snapshot that becomes the newest
    /// between the two was synced by another push a moment ago: it is taken as whole.
    fn damaged_newest(
        &self, user: i64, of_machine: &Selector, digest: Digest,
    ) -> Result<Option<i64>> {
        let newest = self.db.read(|c| newest(c, user, of_machine))?;
        let same = newest.filter(|newest| newest.blob.digest == digest);
        Ok(same.filter(|same| self.open_snapshot(same).is_err()).map(|same| same.id))
    }

    /// Finds the newest snapshot that matches; Missing also for another user's.
    pub fn snapshot(&self, user: i64, which: &Selector) -> Result<Snapshot> {
        let found = self.db.read(|c| newest(c, user, which))?;
        found.ok_or_else(StoreError::no_snapshot)
    }

    /// Opens a snapshot's file after its digest was compared.
    pub fn open_snapshot(&self, snapshot: &Snapshot) -> Result<File> {
        self.open_blob(snapshot.blob, StoreError::no_snapshot, || {
            format!("snapshot {}", snapshot.id)
        })
    }

    /// At most `limit` rows of the history, newest first, and below which id the next page is.
    pub fn history(
        &self, user: i64, which: &Selector, limit: usize,
    ) -> Result<(Vec<String>, Option<i64>)> {
        // One more than asked for tells whether there is a next page.
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let page = |c: &Connection| select(c, user, which, limit + 1, "row, id", read);
        let mut found: Vec<(String, i64)> = self.db.read(page)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(_, id)| *id);
        Ok((found.into_iter().map(|(row, _)| row).collect(), next))
    }
}

/// The machine that a push comes from, as its mode allows.
fn target_machine(
    store: &Store, tx: &Transaction<'_>, user: &User, machine: &MachineId, mode: &PushMode,
) -> Result<i64> {
    match (machine_ref(tx, user.id, machine)?, mode) {
        (Some((machine_ref, false)), _) => Ok(machine_ref),
        (_, PushMode::Idempotent(_)) => Err(StoreError::new(
            ErrorKind::MachineNotRegistered,
            "this machine is not registered: register it with POST /api/machines first",
        )),
        (_, PushMode::Append) => store.upsert_machine(tx, user, machine, None),
    }
}

fn precondition_failed() -> StoreError {
    let sentence = "the newest snapshot is not the one the condition names: pull, then push again";
    StoreError::new(ErrorKind::PreconditionFailed, sentence)
}

/// The newest of a user's snapshots that match.
fn newest(connection: &Connection, user: i64, which: &Selector) -> Result<Option<Snapshot>> {
    let columns = "id, machine_id, file, size_bytes, sha256, row";
    let read = |row: &Row<'_>| {
        let (id, machine_id, json) = (row.get(0)?, row.get(1)?, row.get(5)?);
        Ok(Snapshot { id, machine_id, blob: Blob::from_row(row, 2)?, row: json })
    };
    Ok(select(connection, user, which, 1, columns, read)?.pop())
}

/// These columns of a user's snapshots that match, newest first, at most `limit`.
fn select<T>(
    connection: &Connection, user: i64, which: &Selector, limit: usize, columns: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    // The indexed column and key to begin with.
    let (column, key) = match &which.machine {
        None => ("user_id", user),
        Some(machine) => match machine_ref(connection, user, machine)? {
            Some((machine_ref, _)) => ("machine_ref", machine_ref),
            None => return Ok(Vec::new()),
        },
    };
    // The `+` keeps SQLite from choosing the larger index.
    let sql = format!(
        "SELECT {columns} FROM snapshot_rows
          WHERE {column} = ?1 AND +user_id = ?2 AND id BETWEEN ?3 AND ?4
          ORDER BY id DESC LIMIT ?5"
    );
    let high = which.before.map_or(i64::MAX, |before| before.saturating_sub(1));
    let (low, high) = which.id.map_or((i64::MIN, high), |id| (id, id.min(high)));
    query_rows(connection, &sql, params![key, user, low, high, limit], read)
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
