//! Machines of a user.

use rusqlite::{Connection, Row, Transaction, params};
use serde::Deserialize;

use super::audit::Event;
use super::db::{execute, execute_one, query_each, query_one, query_opt, query_scalar};
use super::error::{Result, StoreError};
use super::prune::Pruned;
use super::{RowSink, Store, User, users};
use crate::util::limits::MACHINES_PER_USER_MAX;
use crate::util::time::now_ms;
use crate::util::types::{Email, MachineId, Name, Short};

/// What a registration says of a machine: all it knows, so what it leaves out keeps its value.
#[derive(Deserialize)]
pub struct Registration {
    /// The client's id.
    pub machine_id: MachineId,
    /// Its name, usually the host's.
    pub name: Name,
    platform: Option<Short>,
    arch: Option<Short>,
    cli_version: Option<Short>,
}

impl Store {
    /// Adds a machine, or updates it; a hidden one comes back. Its row, and true if it is new.
    pub fn register_machine(&self, who: &User, new: &Registration) -> Result<(String, bool)> {
        self.write_as(who, |tx| {
            let known = machine_ref(tx, who.id, &new.machine_id)?.is_some();
            let id = upsert(tx, who, &new.machine_id, Some(new))?;
            Ok((query_scalar(tx, "SELECT row FROM machine_rows WHERE id = ?1", [id])?, !known))
        })
    }

    /// Hides a machine from lists; its snapshots stay, and registering it brings it back.
    pub fn hide_machine(&self, who: &User, machine: &MachineId) -> Result<()> {
        self.write_as(who, |tx| {
            let sql = "UPDATE machines SET hidden_at = ?3
                        WHERE user_id = ?1 AND machine_id = ?2 AND hidden_at IS NULL";
            execute_one(tx, "machine", sql, params![who.id, machine, now_ms()])?;
            Event::of(who, "machine.remove").machine(machine).write(tx)
        })
    }

    /// The user's machines, newest activity first; `hidden` ones too if asked for.
    pub fn machines(&self, user: i64, hidden: bool, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT row FROM machine_rows WHERE user_id = ?1 AND (?2 OR hidden_at IS NULL)
                    ORDER BY last_seen_at DESC, id DESC";
        self.db.read(|c| query_each(c, sql, params![user, hidden], rows))
    }

    /// Removes a machine with its snapshots and links: rows first, then files; returns how many
    /// snapshots. Any text may be asked for: an old folder can hold a machine of a reserved name.
    pub fn remove_machine(&self, email: &Email, machine: &str) -> Result<u64> {
        let snapshots = self.write(|tx| {
            let user = users::find(tx, email)?;
            let sql = "SELECT id, snapshot_count FROM machines
                        WHERE user_id = ?1 AND machine_id = ?2";
            let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
            let values = params![user.id, machine];
            let (id, snapshots) = query_one(tx, "machine", sql, values, read)?;
            execute(tx, "DELETE FROM machines WHERE id = ?1", [id])?;
            Event::of(&user, "machine.remove").machine(machine).subject(id).write(tx)?;
            Ok(snapshots)
        })?;
        self.unlink_deleted(&mut Pruned::default())?;
        Ok(snapshots)
    }

    /// How many snapshots the user has.
    pub fn snapshot_count(&self, user: i64) -> Result<i64> {
        let sql = "SELECT coalesce(sum(snapshot_count), 0) FROM machines WHERE user_id = ?1";
        self.db.read(|c| query_scalar(c, sql, [user]))
    }
}

/// Adds or updates a machine and says its row id. A call that names nothing but the id keeps the
/// name of a known machine; a new one is named by its id.
pub(super) fn upsert(
    tx: &Transaction<'_>, who: &User, machine: &MachineId, new: Option<&Registration>,
) -> Result<i64> {
    let count = "SELECT count(*) FROM machines WHERE user_id = ?1";
    if machine_ref(tx, who.id, machine)?.is_none()
        && query_scalar::<i64>(tx, count, [who.id])? >= MACHINES_PER_USER_MAX
    {
        return Err(StoreError::too_many("machines"));
    }
    let sql = "INSERT INTO machines (user_id, machine_id, name, platform, arch, cli_version,
                                     created_at, updated_at, last_seen_at)
               VALUES (?1, ?2, coalesce(?3, ?2), ?4, ?5, ?6, ?7, ?7, ?7)
               ON CONFLICT (user_id, machine_id) DO UPDATE SET
                 name = coalesce(?3, name), platform = coalesce(?4, platform),
                 arch = coalesce(?5, arch), cli_version = coalesce(?6, cli_version),
                 updated_at = ?7, last_seen_at = ?7, hidden_at = NULL
               RETURNING id";
    let name = new.map(|new| &new.name);
    let platform = new.map(|new| &new.platform);
    let arch = new.map(|new| &new.arch);
    let version = new.map(|new| &new.cli_version);
    let row = params![who.id, machine, name, platform, arch, version, now_ms()];
    let id = query_scalar(tx, sql, row)?;
    Event::of(who, "machine.register").machine(machine).subject(id).write(tx)?;
    Ok(id)
}

/// Row id of a machine of this user and whether it is hidden; None if it was never registered.
pub(super) fn machine_ref(
    connection: &Connection, user: i64, machine: &MachineId,
) -> Result<Option<(i64, bool)>> {
    let sql =
        "SELECT id, hidden_at IS NOT NULL FROM machines WHERE user_id = ?1 AND machine_id = ?2";
    query_opt(connection, sql, params![user, machine], |row| Ok((row.get(0)?, row.get(1)?)))
}
