//! Which projects and profiles a machine has, and what it last synced.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::entities::{Entity, Kind, Target, find};
use super::error::{Result, StoreError};
use super::machines::{Registration, machine_ref, upsert_machine};
use crate::types::MachineId;

/// A project on a machine.
pub struct Link {
    /// Where it lies there.
    pub local_path: Option<String>,
    /// What that machine last had.
    pub last_synced_version: i64,
}

/// A user's machine that a call is about.
#[derive(Clone, Copy)]
pub struct OnMachine<'a> {
    /// Id and address of the user.
    pub user: (i64, &'a str),
    /// The client's id of the machine.
    pub machine: &'a MachineId,
    /// The client's address.
    pub peer: IpAddr,
}

impl<'a> OnMachine<'a> {
    fn entity(self, kind: Kind, id: i64) -> Target<'a> {
        Target { user: self.user, kind, id, peer: self.peer }
    }
}

impl Store {
    /// The live projects of a machine with their links; none of a machine that is unknown.
    pub fn linked_projects(&self, on: OnMachine<'_>) -> Result<Vec<(Entity, Link)>> {
        self.db.read(|c| {
            let Some((machine, _)) = machine_ref(c, on.user.0, on.machine)? else {
                return Ok(Vec::new());
            };
            let mut statement = c.prepare_cached(
                "SELECT l.project_id, l.local_path, l.last_synced_version
                   FROM machine_projects l JOIN entities e ON e.id = l.project_id
                  WHERE l.machine_ref = ?1 AND e.user_id = ?2 AND e.deleted_at IS NULL
                  ORDER BY l.project_id",
            )?;
            let rows = statement.query_map([machine, on.user.0], |row| {
                let link = Link { local_path: row.get(1)?, last_synced_version: row.get(2)? };
                Ok((row.get::<_, i64>(0)?, link))
            })?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            let with_entity = |(id, link)| Ok((find(c, on.entity(Kind::Project, id))?, link));
            rows.into_iter().map(with_entity).collect()
        })
    }

    /// Links a project to a machine, which need not be registered. What was last synced becomes
    /// the project's current version: the client links after it pushed or pulled that.
    pub fn link_project(
        &self,
        on: OnMachine<'_>,
        project: i64,
        local_path: Option<&str>,
    ) -> Result<Link> {
        let link = self.db.write(|tx| {
            let version = find(tx, on.entity(Kind::Project, project))?.current_version;
            let machine = known_machine(tx, on)?;
            tx.execute(
                "INSERT INTO machine_projects (machine_ref, project_id, local_path,
                                               last_synced_version)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
                   local_path = excluded.local_path,
                   last_synced_version = excluded.last_synced_version",
                params![machine, project, local_path, version],
            )?;
            Ok(find_link(tx, on, project)?.ok_or(StoreError::Missing("link"))?)
        })?;
        Ok(link)
    }

    /// Changes what is given of a link.
    pub fn change_link(
        &self,
        on: OnMachine<'_>,
        project: i64,
        local_path: Option<Option<&str>>,
        synced: Option<i64>,
    ) -> Result<Link> {
        let link = self.db.write(|tx| {
            find(tx, on.entity(Kind::Project, project))?;
            let old = find_link(tx, on, project)?.ok_or(StoreError::Missing("link"))?;
            let machine = known_machine(tx, on)?;
            let new = Link {
                local_path: local_path.map_or(old.local_path, |path| path.map(str::to_owned)),
                last_synced_version: synced.unwrap_or(old.last_synced_version),
            };
            tx.execute(
                "UPDATE machine_projects SET local_path = ?3, last_synced_version = ?4
                  WHERE machine_ref = ?1 AND project_id = ?2",
                params![machine, project, new.local_path, new.last_synced_version],
            )?;
            Ok(new)
        })?;
        Ok(link)
    }

    /// Marks a profile active on a machine, or not; each profile has its own mark.
    pub fn set_profile_active(&self, on: OnMachine<'_>, profile: i64, active: bool) -> Result<()> {
        self.db.write(|tx| {
            find(tx, on.entity(Kind::Profile, profile))?;
            let machine = known_machine(tx, on)?;
            tx.execute(
                "INSERT INTO machine_profiles (machine_ref, profile_id, active) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET active = excluded.active",
                params![machine, profile, active],
            )?;
            Ok(())
        })?;
        Ok(())
    }

    /// For each project its current version and what the machine last synced of it (0 without a
    /// link); None where there is no such live project of the user.
    pub fn sync_state(&self, on: OnMachine<'_>, ids: &[i64]) -> Result<Vec<Option<(i64, i64)>>> {
        self.db.read(|c| {
            ids.iter()
                .map(|id| match find(c, on.entity(Kind::Project, *id)) {
                    Ok(project) => {
                        let synced = find_link(c, on, *id)?.map_or(0, |l| l.last_synced_version);
                        Ok(Some((project.current_version, synced)))
                    }
                    Err(StoreError::Missing(_)) => Ok(None),
                    Err(error) => Err(error),
                })
                .collect()
        })
    }

    /// Notes what a machine has synced; projects that are not linked are passed over.
    pub fn commit_sync(&self, on: OnMachine<'_>, updates: &[(i64, i64)]) -> Result<()> {
        self.db.write(|tx| {
            for (project, version) in updates {
                if find_link(tx, on, *project)?.is_some() {
                    tx.prepare_cached(
                        "UPDATE machine_projects SET last_synced_version = ?3
                          WHERE project_id = ?2 AND machine_ref =
                            (SELECT id FROM machines WHERE user_id = ?1 AND machine_id = ?4)",
                    )?
                    .execute(params![
                        on.user.0,
                        project,
                        version,
                        on.machine.as_str()
                    ])?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn find_link(connection: &Connection, on: OnMachine<'_>, project: i64) -> Result<Option<Link>> {
    let mut statement = connection.prepare_cached(
        "SELECT l.local_path, l.last_synced_version
           FROM machine_projects l JOIN machines m ON m.id = l.machine_ref
          WHERE m.user_id = ?1 AND m.machine_id = ?2 AND l.project_id = ?3",
    )?;
    let found = statement.query_row(params![on.user.0, on.machine.as_str(), project], |row| {
        Ok(Link { local_path: row.get(0)?, last_synced_version: row.get(1)? })
    });
    Ok(found.optional()?)
}

/// The row id of a machine; one that only this call names is registered by it.
fn known_machine(tx: &rusqlite::Transaction<'_>, on: OnMachine<'_>) -> Result<i64> {
    match machine_ref(tx, on.user.0, on.machine)? {
        Some((machine, _)) => Ok(machine),
        None => upsert_machine(tx, on.user, &Registration::unnamed(on.machine), Some(on.peer)),
    }
}
