//! Which projects and profiles a machine has, and what it last synced.

use rusqlite::{Row, Transaction, params};

use super::db::{execute, query_each, query_one, query_opt, query_scalar};
use super::entities::{Kind, Target};
use super::error::Result;
use super::machines::machine_ref;
use super::{RowSink, Store, User};
use crate::util::types::MachineId;

/// A user's machine that a call is about.
pub struct UserMachine<'a> {
    pub user: &'a User,
    /// The client's id of the machine.
    pub machine: MachineId,
}

impl<'a> UserMachine<'a> {
    fn project(&self, id: i64) -> Target<'a> {
        Target { user: self.user, kind: Kind::PROJECT, id }
    }
}

impl Store {
    /// The live projects of a machine, each row merged with its link; none of a machine that is
    /// unknown.
    pub fn linked_projects(&self, on: &UserMachine<'_>, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT json_insert(e.row, '$.local_path', l.local_path,
                                      '$.last_synced_version', l.last_synced_version)
                     FROM machines m JOIN machine_projects l ON l.machine_ref = m.id
                     JOIN entity_rows e ON e.id = l.project_id AND e.user_id = m.user_id
                    WHERE m.user_id = ?1 AND m.machine_id = ?2 ORDER BY e.id";
        self.db.read(|c| query_each(c, sql, params![on.user.id, on.machine], rows))
    }

    /// The row id of the machine; one that only this call names is registered by it.
    fn linked_machine(&self, tx: &Transaction<'_>, on: &UserMachine<'_>) -> Result<i64> {
        match machine_ref(tx, on.user.id, &on.machine)? {
            Some((machine, _)) => Ok(machine),
            None => self.upsert_machine(tx, on.user, &on.machine, None),
        }
    }

    /// Links a project to a machine, which need not be registered. What was last synced becomes
    /// the project's current version: the client links after it pushed or pulled that.
    pub fn link_project(
        &self, on: &UserMachine<'_>, project: i64, path: Option<&str>,
    ) -> Result<String> {
        self.write_to(on.project(project), |tx, entity| {
            let version = entity.current_version;
            let sql = "INSERT INTO machine_projects (machine_ref, project_id, local_path,
                                                     last_synced_version)
                       VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
                         local_path = excluded.local_path,
                         last_synced_version = excluded.last_synced_version
                       RETURNING json_object('project_id', project_id, 'local_path', local_path,
                                             'last_synced_version', last_synced_version)";
            query_scalar(tx, sql, params![self.linked_machine(tx, on)?, project, path, version])
        })
    }

    /// Changes what is given of a link: a path (Some(None) clears it), a version.
    pub fn change_link(
        &self, on: &UserMachine<'_>, project: i64, path: Option<Option<&str>>, synced: Option<i64>,
    ) -> Result<String> {
        self.write_to(on.project(project), |tx, _| {
            let sql = "UPDATE machine_projects
                          SET local_path = iif(?3, ?4, local_path),
                              last_synced_version = coalesce(?5, last_synced_version)
                        WHERE machine_ref = ?1 AND project_id = ?2
                       RETURNING json_object('project_id', project_id, 'local_path', local_path,
                                             'last_synced_version', last_synced_version)";
            let machine = self.linked_machine(tx, on)?;
            let new = params![machine, project, path.is_some(), path.flatten(), synced];
            query_one(tx, "link", sql, new, |row| row.get(0))
        })
    }

    /// Marks a profile active on a machine, or not; each profile has its own mark.
    pub fn set_profile_active(
        &self, on: &UserMachine<'_>, profile: i64, active: bool,
    ) -> Result<()> {
        self.write_to(Target { kind: Kind::PROFILE, ..on.project(profile) }, |tx, _| {
            let sql = "INSERT INTO machine_profiles (machine_ref, profile_id, active)
                       VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET active = excluded.active";
            execute(tx, sql, params![self.linked_machine(tx, on)?, profile, active]).map(drop)
        })
    }

    /// Hands to `found`, for each project in turn, its current version and what the machine last
    /// synced of it (0 without a link); None where there is no such live project of the user.
    pub fn sync_states(
        &self, on: &UserMachine<'_>, projects: impl Iterator<Item = i64>,
        mut found: impl FnMut(Option<(i64, i64)>) -> Result<()>,
    ) -> Result<()> {
        let sql = "SELECT e.current_version, coalesce((SELECT l.last_synced_version
                            FROM machines m JOIN machine_projects l ON l.machine_ref = m.id
                           WHERE m.user_id = ?1 AND m.machine_id = ?2 AND l.project_id = e.id), 0)
                     FROM entity_rows e WHERE e.id = ?3 AND e.user_id = ?1 AND e.kind = ?4";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.db.read(|c| {
            for id in projects {
                let values = params![on.user.id, on.machine, id, Kind::PROJECT.0];
                found(query_opt(c, sql, values, read)?)?;
            }
            Ok(())
        })
    }

    /// Notes what a machine has synced; projects that are not linked are passed over.
    pub fn commit_sync(
        &self, on: &UserMachine<'_>, updates: impl Iterator<Item = (i64, u32)>,
    ) -> Result<()> {
        let sql = "UPDATE machine_projects SET last_synced_version = ?3
                    WHERE project_id = ?2 AND machine_ref =
                      (SELECT id FROM machines WHERE user_id = ?1 AND machine_id = ?4)";
        self.write_as(on.user, |tx| {
            for (project, version) in updates {
                execute(tx, sql, params![on.user.id, project, version, on.machine])?;
            }
            Ok(())
        })
    }
}
