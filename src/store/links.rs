//! Which projects and profiles a machine has, and which versions it last synced.

use rusqlite::{Transaction, params};
use serde::{Deserialize, Deserializer};

use super::db::{execute, query_each, query_one, query_opt, query_scalar};
use super::entities::Target;
use super::error::Result;
use super::{RowSink, Store, User};
use crate::util::types::{Long, MachineId, Short};

/// A change to a link; a field that is None keeps its value.
#[derive(Deserialize)]
pub struct LinkChange {
    /// Some(None): the member is null, which clears the path.
    #[serde(default, deserialize_with = "present")]
    local_path: Option<Option<Long>>,
    last_synced_version: Option<u32>,
}

fn present<'de, D: Deserializer<'de>>(
    value: D,
) -> std::result::Result<Option<Option<Long>>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// A version that a machine has now; only those of projects are recorded.
#[derive(Deserialize)]
pub struct Synced {
    entity_type: Short,
    entity_id: i64,
    new_last_synced_version: u32,
}

impl Store {
    /// Lists the live projects of a machine, each row merged with its link; none for an unknown
    /// machine.
    pub fn linked_projects(&self, user: i64, machine: &MachineId, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT json_insert(e.row, '$.local_path', l.local_path,
                                      '$.last_synced_version', l.last_synced_version)
                     FROM machines m JOIN machine_projects l ON l.machine_ref = m.id
                     JOIN entity_rows e ON e.id = l.project_id AND e.user_id = m.user_id
                    WHERE m.user_id = ?1 AND m.machine_id = ?2 ORDER BY e.id";
        self.db.read(|c| query_each(c, sql, params![user, machine], rows))
    }

    /// Returns the row id of a machine. An unknown one is registered; a hidden one stays hidden.
    fn linked_machine(
        &self, tx: &Transaction<'_>, user: &User, machine: &MachineId,
    ) -> Result<i64> {
        let sql = "SELECT id FROM machines WHERE user_id = ?1 AND machine_id = ?2";
        match query_opt(tx, sql, params![user.id, machine], |row| row.get(0))? {
            Some(id) => Ok(id),
            None => self.upsert_machine(tx, user, machine, None),
        }
    }

    /// Links a project to a machine, which need not be registered. The last synced version becomes
    /// the project's current one: the client links after it pushed or pulled that version.
    pub fn link_project(
        &self, project: Target<'_>, machine: &MachineId, path: Option<&Long>,
    ) -> Result<String> {
        self.write_to(project, |tx| {
            let sql = "INSERT INTO machine_projects (machine_ref, project_id, local_path,
                                                     last_synced_version)
                       SELECT ?1, id, ?3, current_version FROM entities WHERE id = ?2
                       ON CONFLICT DO UPDATE SET local_path = excluded.local_path,
                         last_synced_version = excluded.last_synced_version
                       RETURNING json_object('project_id', project_id, 'local_path', local_path,
                                             'last_synced_version', last_synced_version)";
            let machine = self.linked_machine(tx, project.user, machine)?;
            query_scalar(tx, sql, params![machine, project.id, path])
        })
    }

    pub fn change_link(
        &self, project: Target<'_>, machine: &MachineId, new: &LinkChange,
    ) -> Result<String> {
        let sql = "UPDATE machine_projects
                      SET local_path = iif(?4, ?5, local_path),
                          last_synced_version = coalesce(?6, last_synced_version)
                    WHERE project_id = ?3 AND machine_ref =
                      (SELECT id FROM machines WHERE user_id = ?1 AND machine_id = ?2)
                   RETURNING json_object('project_id', project_id, 'local_path', local_path,
                                         'last_synced_version', last_synced_version)";
        let LinkChange { local_path, last_synced_version: version } = new;
        let (user, id, given) = (project.user.id, project.id, local_path.is_some());
        let values = params![user, machine, id, given, local_path.iter().flatten().next(), version];
        self.write_to(project, |tx| query_one(tx, "link", sql, values, |row| row.get(0)))
    }

    /// Sets whether a profile is active on a machine, independently of other profiles.
    pub fn set_profile_active(
        &self, profile: Target<'_>, machine: &MachineId, active: bool,
    ) -> Result<()> {
        self.write_to(profile, |tx| {
            let sql = "INSERT INTO machine_profiles (machine_ref, profile_id, active)
                       VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET active = excluded.active";
            let machine = self.linked_machine(tx, profile.user, machine)?;
            execute(tx, sql, params![machine, profile.id, active]).map(drop)
        })
    }

    /// Returns the current version of a project and the version that the machine last synced (0
    /// without a link); None if the user has no such live project.
    pub fn sync_state(
        &self, user: i64, machine: &MachineId, project: i64,
    ) -> Result<Option<(i64, i64)>> {
        let sql = "SELECT e.current_version, coalesce((SELECT l.last_synced_version
                            FROM machines m JOIN machine_projects l ON l.machine_ref = m.id
                           WHERE m.user_id = ?1 AND m.machine_id = ?2 AND l.project_id = e.id), 0)
                     FROM entity_rows e WHERE e.id = ?3 AND e.user_id = ?1 AND e.kind = 'project'";
        let values = params![user, machine, project];
        self.db.read(|c| query_opt(c, sql, values, |row| row.try_into()))
    }

    /// Records the versions that a machine has synced; projects that are not linked are skipped.
    pub fn commit_sync(&self, user: &User, machine: &MachineId, synced: &[Synced]) -> Result<()> {
        let sql = "UPDATE machine_projects SET last_synced_version = ?3
                    WHERE project_id = ?2 AND machine_ref =
                      (SELECT id FROM machines WHERE user_id = ?1 AND machine_id = ?4)";
        self.write_as_user(user, |tx| {
            for Synced { entity_id, new_last_synced_version: version, .. } in
                synced.iter().filter(|synced| &*synced.entity_type == "project")
            {
                execute(tx, sql, params![user.id, entity_id, version, machine])?;
            }
            Ok(())
        })
    }
}
