//! Machines of a user.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::Store;
use super::audit::Event;
use super::error::{Result, StoreError};
use crate::limits::MACHINES_PER_USER_MAX;
use crate::time::{now_ms, rfc3339};
use crate::types::MachineId;

/// A machine as the API shows it. What the client never sent is null.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Row id.
    pub id: i64,
    /// The client's id.
    pub machine_id: String,
    /// The owner.
    pub user_id: i64,
    /// Usually the host name.
    pub name: String,
    /// Operating system.
    pub platform: Option<String>,
    /// Processor architecture.
    pub arch: Option<String>,
    /// Version of the client.
    pub cli_version: Option<String>,
    /// RFC 3339, as all times here.
    pub created_at: String,
    /// Last registration.
    pub updated_at: String,
    /// Last registration or push.
    pub last_seen_at: String,
    /// Last push.
    pub last_push_at: Option<String>,
    /// Snapshots stored.
    pub snapshot_count: i64,
    /// The one with the highest id.
    pub latest_snapshot_id: Option<i64>,
}

/// What a registration says of a machine.
pub struct Registration<'a> {
    /// The client's id.
    pub machine_id: &'a MachineId,
    /// Its name; None keeps the one it has, and a new machine is named by its id.
    pub name: Option<&'a str>,
    /// Operating system.
    pub platform: Option<&'a str>,
    /// Processor architecture.
    pub arch: Option<&'a str>,
    /// Version of the client.
    pub cli_version: Option<&'a str>,
}

impl Registration<'_> {
    /// Of a machine of which a call tells nothing but the id.
    pub(super) fn unnamed(machine_id: &MachineId) -> Registration<'_> {
        Registration { machine_id, name: None, platform: None, arch: None, cli_version: None }
    }
}

const COLUMNS: &str = "id, machine_id, user_id, name, platform, arch, cli_version, created_at,
    updated_at, last_seen_at, last_push_at, snapshot_count,
    (SELECT max(s.id) FROM state_snapshots s WHERE s.machine_ref = machines.id)";

impl Store {
    /// Adds a machine, or updates it: a registration says all it knows, so what it leaves out
    /// keeps its old value. A hidden machine comes back. True if it is new.
    pub fn register_machine(
        &self,
        user: (i64, &str),
        machine: &Registration<'_>,
        peer: IpAddr,
    ) -> Result<(Machine, bool)> {
        let done = self.db.write(|tx| {
            let known = machine_ref(tx, user.0, machine.machine_id)?.is_some();
            let id = upsert_machine(tx, user, machine, Some(peer))?;
            let sql = format!("SELECT {COLUMNS} FROM machines WHERE id = ?1");
            let row = tx.prepare_cached(&sql)?.query_row([id], Machine::from_row)?;
            Ok((row, !known))
        })?;
        Ok(done)
    }

    /// Hides a machine from lists; its snapshots stay, and registering it brings it back.
    pub fn hide_machine(
        &self,
        user: (i64, &str),
        machine_id: &MachineId,
        peer: IpAddr,
    ) -> Result<()> {
        self.db.write(|tx| {
            let hidden = tx.execute(
                "UPDATE machines SET hidden_at = ?3
                  WHERE user_id = ?1 AND machine_id = ?2 AND hidden_at IS NULL",
                params![user.0, machine_id.as_str(), now_ms()],
            )?;
            if hidden == 0 {
                return Err(StoreError::Missing("machine").into());
            }
            let event = Event::ok("machine.remove").user(user.0, user.1).peer(peer);
            event.machine(machine_id.as_str()).write(tx)?;
            Ok(())
        })?;
        Ok(())
    }

    /// The user's machines, newest activity first.
    pub fn machines(&self, user_id: i64) -> Result<Vec<Machine>> {
        self.db.read(|c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM machines WHERE user_id = ?1 AND hidden_at IS NULL
                  ORDER BY last_seen_at DESC, id DESC"
            ))?;
            let machines = statement.query_map([user_id], Machine::from_row)?;
            Ok(machines.collect::<rusqlite::Result<_>>()?)
        })
    }
}

impl Machine {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Machine> {
        Ok(Machine {
            id: row.get(0)?,
            machine_id: row.get(1)?,
            user_id: row.get(2)?,
            name: row.get(3)?,
            platform: row.get(4)?,
            arch: row.get(5)?,
            cli_version: row.get(6)?,
            created_at: rfc3339(row.get(7)?),
            updated_at: rfc3339(row.get(8)?),
            last_seen_at: rfc3339(row.get(9)?),
            last_push_at: row.get::<_, Option<i64>>(10)?.map(rfc3339),
            snapshot_count: row.get(11)?,
            latest_snapshot_id: row.get(12)?,
        })
    }
}

/// Adds or updates a machine and says its row id. Calls that only name a machine leave its name.
pub(super) fn upsert_machine(
    tx: &Transaction<'_>,
    (user_id, email): (i64, &str),
    machine: &Registration<'_>,
    peer: Option<IpAddr>,
) -> Result<i64> {
    let known = machine_ref(tx, user_id, machine.machine_id)?.is_some();
    if !known && machines_of(tx, user_id)? >= MACHINES_PER_USER_MAX {
        return Err(StoreError::TooMany("machines"));
    }
    let id = tx
        .prepare_cached(
            "INSERT INTO machines (user_id, machine_id, name, platform, arch, cli_version,
                                   created_at, updated_at, last_seen_at)
             VALUES (?1, ?2, coalesce(?3, ?2), ?4, ?5, ?6, ?7, ?7, ?7)
             ON CONFLICT (user_id, machine_id) DO UPDATE SET
               name = coalesce(?3, name), platform = coalesce(?4, platform),
               arch = coalesce(?5, arch), cli_version = coalesce(?6, cli_version),
               updated_at = ?7, last_seen_at = ?7, hidden_at = NULL
             RETURNING id",
        )?
        .query_row(
            params![
                user_id,
                machine.machine_id.as_str(),
                machine.name,
                machine.platform,
                machine.arch,
                machine.cli_version,
                now_ms()
            ],
            |row| row.get(0),
        )?;
    let event = Event::ok("machine.register").user(user_id, email);
    let event = event.machine(machine.machine_id.as_str());
    peer.into_iter().fold(event, Event::peer).write(tx)?;
    Ok(id)
}

/// Row id of a machine of this user and whether it is hidden; None if it was never registered.
pub(super) fn machine_ref(
    connection: &Connection,
    user_id: i64,
    machine_id: &MachineId,
) -> Result<Option<(i64, bool)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, hidden_at IS NOT NULL FROM machines WHERE user_id = ?1 AND machine_id = ?2",
    )?;
    let found = statement
        .query_row(params![user_id, machine_id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}

fn machines_of(connection: &Connection, user_id: i64) -> Result<i64> {
    let sql = "SELECT count(*) FROM machines WHERE user_id = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([user_id], |row| row.get(0))?)
}
