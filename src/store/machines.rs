//! Machines of a user.

use rusqlite::{Connection, OptionalExtension, Row, params};
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
    /// Its name.
    pub name: &'a str,
    /// Operating system.
    pub platform: Option<&'a str>,
    /// Processor architecture.
    pub arch: Option<&'a str>,
    /// Version of the client.
    pub cli_version: Option<&'a str>,
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
        peer: std::net::IpAddr,
    ) -> Result<(Machine, bool)> {
        let now = now_ms();
        let done = self.db.write(|tx| {
            let (user_id, email) = user;
            let known = machine_ref(tx, user_id, machine.machine_id)?.is_some();
            if !known && machines_of(tx, user_id)? >= MACHINES_PER_USER_MAX {
                return Err(StoreError::TooManyMachines.into());
            }
            tx.prepare_cached(
                "INSERT INTO machines (user_id, machine_id, name, platform, arch, cli_version,
                                       created_at, updated_at, last_seen_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7)
                 ON CONFLICT (user_id, machine_id) DO UPDATE SET
                   name = excluded.name, platform = coalesce(excluded.platform, platform),
                   arch = coalesce(excluded.arch, arch),
                   cli_version = coalesce(excluded.cli_version, cli_version),
                   updated_at = excluded.updated_at, last_seen_at = excluded.last_seen_at,
                   hidden_at = NULL",
            )?
            .execute(params![
                user_id,
                machine.machine_id.as_str(),
                machine.name,
                machine.platform,
                machine.arch,
                machine.cli_version,
                now
            ])?;
            let sql =
                format!("SELECT {COLUMNS} FROM machines WHERE user_id = ?1 AND machine_id = ?2");
            let row = tx
                .prepare_cached(&sql)?
                .query_row(params![user_id, machine.machine_id.as_str()], Machine::from_row)?;
            Event::ok("machine.register")
                .user(user_id, email)
                .machine(machine.machine_id.as_str())
                .peer(peer)
                .write(tx)?;
            Ok((row, !known))
        })?;
        Ok(done)
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
