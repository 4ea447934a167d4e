//! Machines of a user.

use rusqlite::{Transaction, params};
use serde::Deserialize;

use super::audit::Event;
use super::db::{execute_one, query_each, query_one, query_opt, query_scalar};
use super::error::Result;
use super::{RowSink, Store, User, users};
use crate::util::time::now_ms;
use crate::util::types::{Email, MachineId, Name, Short};

/// A machine's registration. The client sends all it knows, so a missing field keeps its value.
#[derive(Deserialize)]
pub struct Registration {
    /// The client's id.
    pub machine_id: MachineId,
    /// Usually the host name.
    pub name: Name,
    platform: Option<Short>,
    arch: Option<Short>,
    cli_version: Option<Short>,
}

impl Store {
    /// Adds or updates a machine; a hidden one is listed again. Returns its row, and true if it is
    /// new.
    pub fn register_machine(&self, user: &User, new: &Registration) -> Result<(String, bool)> {
        self.write_as_user(user, |tx| {
            let sql = "SELECT NOT EXISTS
                         (SELECT 1 FROM machines WHERE user_id = ?1 AND machine_id = ?2)";
            let is_new = query_scalar(tx, sql, params![user.id, new.machine_id])?;
            let id = self.upsert_machine(tx, user, &new.machine_id, Some(new))?;
            Ok((query_scalar(tx, "SELECT row FROM machine_rows WHERE id = ?1", [id])?, is_new))
        })
    }

    /// Adds or updates a machine and returns its row id. Without a registration, a known machine
    /// keeps its name and a new one is named by its id. Clients register before every push, so
    /// there is an audit row only if something changed.
    pub(super) fn upsert_machine(
        &self, tx: &Transaction<'_>, user: &User, machine: &MachineId, new: Option<&Registration>,
    ) -> Result<i64> {
        let name = new.map(|new| &new.name);
        let platform = new.map(|new| &new.platform);
        let arch = new.map(|new| &new.arch);
        let version = new.map(|new| &new.cli_version);
        let row = params![user.id, machine, name, platform, arch, version, now_ms()];
        let sql = "UPDATE machines SET last_seen_at = ?7
                    WHERE user_id = ?1 AND machine_id = ?2 AND hidden_at IS NULL
                      AND name = coalesce(?3, name) AND platform IS coalesce(?4, platform)
                      AND arch IS coalesce(?5, arch) AND cli_version IS coalesce(?6, cli_version)
                   RETURNING id";
        if let Some(id) = query_opt(tx, sql, row, |row| row.get(0))? {
            return Ok(id);
        }
        let sql = "INSERT INTO machines (user_id, machine_id, name, platform, arch, cli_version,
                                         created_at, updated_at, last_seen_at)
                   VALUES (?1, ?2, coalesce(?3, ?2), ?4, ?5, ?6, ?7, ?7, ?7)
                   ON CONFLICT (user_id, machine_id) DO UPDATE SET
                     name = coalesce(?3, name), platform = coalesce(?4, platform),
                     arch = coalesce(?5, arch), cli_version = coalesce(?6, cli_version),
                     updated_at = ?7, last_seen_at = ?7, hidden_at = NULL
                   RETURNING id";
        let id = query_scalar(tx, sql, row)?;
        self.audit(tx, Event::of(user, "machine.register").machine(machine).subject(id))?;
        Ok(id)
    }

    /// Hides a machine from lists; its snapshots stay, and registering it brings it back.
    pub fn hide_machine(&self, user: &User, machine: &MachineId) -> Result<()> {
        self.write_as_user(user, |tx| {
            let sql = "UPDATE machines SET hidden_at = ?3
                        WHERE user_id = ?1 AND machine_id = ?2 AND hidden_at IS NULL";
            execute_one(tx, "machine", sql, params![user.id, machine, now_ms()])?;
            self.audit(tx, Event::of(user, "machine.remove").machine(machine))
        })
    }

    /// Lists the user's machines that are not hidden, most recently active first.
    pub fn machines(&self, user: i64, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT row FROM machine_rows WHERE user_id = ?1 AND hidden_at IS NULL
                    ORDER BY last_seen_at DESC, id DESC";
        self.db.read(|c| query_each(c, sql, [user], rows))
    }

    /// Removes a machine with its snapshots and links: rows first, then files. Returns the number
    /// of snapshots. Accepts any text: an old folder can hold a machine with a reserved name.
    pub fn remove_machine(&self, email: &Email, machine: &str) -> Result<u64> {
        let snapshots = self.write_with_reserve(|tx| {
            let user = users::find(tx, email)?;
            let sql = "DELETE FROM machines WHERE user_id = ?1 AND machine_id = ?2
                       RETURNING id, snapshot_count";
            let values = params![user.id, machine];
            let (id, snapshots) = query_one(
                tx,
                "machine (see `configsync-server machine list`)",
                sql,
                values,
                |row| row.try_into(),
            )?;
            Event::of(&user, "machine.remove").machine(machine).subject(id).insert(tx)?;
            Ok(snapshots)
        })?;
        self.unlink_deleted(None)?;
        Ok(snapshots)
    }
}
