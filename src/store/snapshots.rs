//! Snapshots: pushed, found, listed.

use std::fs::File;
use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, params};
use serde::Serialize;

use super::Store;
use super::audit::Event;
use super::blobs::{Blob, Space};
use super::db::Failure;
use super::error::{Result, StoreError};
use super::files::Upload;
use super::machines::{Registration, machine_ref, upsert_machine};
use crate::time::{now_ms, rfc3339};
use crate::types::MachineId;

/// A snapshot as the API shows it.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// Row id; a higher one is newer.
    pub id: i64,
    /// The machine it was pushed from.
    pub machine_id: String,
    /// That machine's name today.
    pub machine_name: String,
    /// Bytes of the encrypted state.
    pub size_bytes: u64,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Of the client's state format.
    pub version: String,
    /// The user's words.
    pub message: Option<String>,
    /// As the client wrote it.
    pub timestamp: Option<String>,
    /// RFC 3339, from the server's clock.
    pub created_at: String,
    #[serde(skip)]
    blob: Blob,
}

/// Entity tags of a condition (RFC 9110, section 13.1).
#[derive(Debug, PartialEq, Eq)]
pub enum Etags {
    /// `*`: anything that exists.
    Any,
    /// These digests.
    OneOf(Vec<String>),
}

/// What must hold of the user's newest snapshot for a push to be done.
#[derive(Debug, Default)]
pub struct Condition {
    /// It must be one of these.
    pub if_match: Option<Etags>,
    /// It must be none of these.
    pub if_none_match: Option<Etags>,
}

/// Which snapshot a pull asks for; all parts given must match.
#[derive(Debug, Default)]
pub struct Selector {
    /// By id; None: the newest.
    pub id: Option<i64>,
    /// Of this machine; None: of any.
    pub machine: Option<MachineId>,
}

/// Which page of a history is asked for.
pub struct Page {
    /// Of this machine; None: of all.
    pub machine: Option<MachineId>,
    /// Below this id; None: from the newest.
    pub before: Option<i64>,
    /// Rows at most.
    pub limit: u64,
}

/// A push beside its bytes.
pub struct Push<'a> {
    /// The user's id and address.
    pub user: (i64, &'a str),
    /// The machine it comes from.
    pub machine: &'a MachineId,
    /// Of the client's state format.
    pub version: &'a str,
    /// The user's words.
    pub message: Option<&'a str>,
    /// As the client wrote it.
    pub timestamp: Option<&'a str>,
    /// What must hold.
    pub condition: &'a Condition,
    /// The client's address.
    pub peer: IpAddr,
    /// The same bytes again are a retry and store nothing.
    pub retry: bool,
    /// An unknown machine is registered, a hidden one comes back; else both are refused.
    pub registers: bool,
}

const COLUMNS: &str = "s.id, m.machine_id, m.name, s.version, s.message, s.client_timestamp,
    s.created_at, s.file, s.size_bytes, s.sha256
    FROM state_snapshots s JOIN machines m ON m.id = s.machine_ref";

impl Store {
    /// Stores a snapshot. When this returns Ok, its bytes and its row are on disk. False if these
    /// bytes were the machine's newest snapshot already: then nothing is stored.
    pub fn push(&self, push: &Push<'_>, upload: Upload) -> Result<(Snapshot, bool)> {
        self.store_blob(upload, |tx, blob, space| insert(tx, push, blob, space))
    }

    /// Finds a snapshot; Missing for one that is not there or another user's.
    pub fn snapshot(&self, user_id: i64, which: &Selector) -> Result<Snapshot> {
        let found = self.db.read(|c| {
            let mut wheres = vec!["s.user_id = ?1"];
            let mut values: Vec<&dyn ToSql> = vec![&user_id];
            let machine = match &which.machine {
                None => None,
                Some(id) => match machine_ref(c, user_id, id)? {
                    Some((machine, _)) => Some(machine),
                    None => return Ok(None),
                },
            };
            if let Some(machine) = &machine {
                wheres.push("s.machine_ref = ?2");
                values.push(machine);
            }
            if let Some(id) = &which.id {
                wheres.push(if machine.is_some() { "s.id = ?3" } else { "s.id = ?2" });
                values.push(id);
            }
            let wheres = wheres.join(" AND ");
            let sql = format!("SELECT {COLUMNS} WHERE {wheres} ORDER BY s.id DESC LIMIT 1");
            let mut statement = c.prepare_cached(&sql)?;
            Ok(statement.query_row(values.as_slice(), Snapshot::from_row).optional()?)
        })?;
        found.ok_or(StoreError::Missing("snapshot"))
    }

    /// Opens a snapshot's file after its digest was compared.
    pub fn open_snapshot(&self, snapshot: &Snapshot) -> Result<File> {
        self.open_blob(snapshot.blob, || format!("snapshot {}", snapshot.id))
    }

    /// A page of the history, newest first, and where the next begins.
    pub fn history(&self, user_id: i64, page: &Page) -> Result<(Vec<Snapshot>, Option<i64>)> {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let rows = i64::try_from(page.limit).unwrap_or(i64::MAX).saturating_add(1);
        let before = page.before.unwrap_or(i64::MAX);
        let mut snapshots = self.db.read(|c| {
            let (column, key) = match &page.machine {
                None => ("user_id", user_id),
                Some(id) => match machine_ref(c, user_id, id)? {
                    Some((machine, _)) => ("machine_ref", machine),
                    None => return Ok(Vec::new()),
                },
            };
            let mut statement = c.prepare_cached(&format!(
                "SELECT {COLUMNS} WHERE s.{column} = ?1 AND s.user_id = ?2 AND s.id < ?3
                  ORDER BY s.id DESC LIMIT ?4"
            ))?;
            let found =
                statement.query_map(params![key, user_id, before, rows], Snapshot::from_row)?;
            Ok(found.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let more = snapshots.len() > limit;
        snapshots.truncate(limit);
        let next = snapshots.last().filter(|_| more).map(|last| last.id);
        Ok((snapshots, next))
    }

    /// True if a push of `low` to `high` bytes could be a repetition of a newest snapshot, which
    /// needs no room.
    pub fn could_be_repeated(&self, user_id: i64, low: u64, high: u64) -> Result<bool> {
        self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM machines m JOIN state_snapshots s ON s.id =
                   (SELECT max(id) FROM state_snapshots WHERE machine_ref = m.id)
                  WHERE m.user_id = ?1 AND s.size_bytes BETWEEN ?2 AND ?3)",
            )?;
            let high = i64::try_from(high).unwrap_or(i64::MAX);
            Ok(statement.query_row(params![user_id, low, high], |row| row.get(0))?)
        })
    }
}

/// The transaction of a push. The order of its questions is part of the contract: is the machine
/// known, are these bytes there already, does the condition hold, is there room.
fn insert(
    tx: &Transaction<'_>,
    push: &Push<'_>,
    blob: Blob,
    space: &Space,
) -> std::result::Result<(Snapshot, bool), Failure> {
    let (user_id, email) = push.user;
    let machine = machine(tx, push)?;
    if push.retry
        && let Some(newest) = newest(tx, "machine_ref", machine)?
        && newest.blob.digest == blob.digest
        && newest.size_bytes == blob.size
    {
        return Ok((newest, false));
    }
    let newest = newest(tx, "user_id", user_id)?;
    if !push.condition.holds(newest.as_ref().map(|newest| newest.sha256.as_str())) {
        return Err(StoreError::PreconditionFailed.into());
    }
    space.check(tx, user_id, blob.size)?;
    let mut statement = tx.prepare_cached(
        "INSERT INTO state_snapshots (user_id, machine_ref, file, size_bytes, sha256, version,
                                      message, client_timestamp, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        user_id,
        machine,
        blob.file.to_string(),
        blob.size,
        blob.digest.0,
        push.version,
        push.message,
        push.timestamp,
        now_ms()
    ])?;
    let id = tx.last_insert_rowid();
    let sql = format!("SELECT {COLUMNS} WHERE s.id = ?1");
    let snapshot = tx.prepare_cached(&sql)?.query_row([id], Snapshot::from_row)?;
    let event = Event::ok("snapshot.push").user(user_id, email).machine(push.machine.as_str());
    event.peer(push.peer).subject(id).write(tx)?;
    Ok((snapshot, true))
}

/// The machine's row; where the push may register it, also one that is new or was hidden.
fn machine(tx: &Transaction<'_>, push: &Push<'_>) -> Result<i64> {
    match machine_ref(tx, push.user.0, push.machine)? {
        Some((machine, false)) => Ok(machine),
        _ if !push.registers => Err(StoreError::MachineNotRegistered),
        _ => upsert_machine(tx, push.user, &Registration::unnamed(push.machine), Some(push.peer)),
    }
}

fn newest(connection: &Connection, column: &str, key: i64) -> Result<Option<Snapshot>> {
    let sql = format!("SELECT {COLUMNS} WHERE s.{column} = ?1 ORDER BY s.id DESC LIMIT 1");
    Ok(connection.prepare_cached(&sql)?.query_row([key], Snapshot::from_row).optional()?)
}

impl Condition {
    fn holds(&self, newest: Option<&str>) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.cover(newest))
            && !self.if_none_match.as_ref().is_some_and(|tags| tags.cover(newest))
    }
}

impl Etags {
    /// True if the tags name what is there.
    pub fn cover(&self, digest: Option<&str>) -> bool {
        match (self, digest) {
            (_, None) => false,
            (Etags::Any, Some(_)) => true,
            (Etags::OneOf(tags), Some(digest)) => tags.iter().any(|tag| tag == digest),
        }
    }
}

impl Snapshot {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
        let blob = Blob::from_row(row, 7)?;
        Ok(Snapshot {
            id: row.get(0)?,
            machine_id: row.get(1)?,
            machine_name: row.get(2)?,
            size_bytes: blob.size,
            sha256: blob.digest.to_string(),
            version: row.get(3)?,
            message: row.get(4)?,
            timestamp: row.get(5)?,
            created_at: rfc3339(row.get(6)?),
            blob,
        })
    }
}
