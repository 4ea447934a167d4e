//! Entities of five kinds, their versions and their keys.

use std::fs::File;
use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::Store;
use super::audit::Event;
use super::blobs::Blob;
use super::error::{Result, StoreError};
use super::files::Upload;
use crate::limits::ENTITIES_MAX;
use crate::time::{now_ms, rfc3339};

/// The five kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder under version control.
    Project,
    /// A group of projects.
    Workspace,
    /// A configuration file.
    Config,
    /// A group of configuration files.
    Module,
    /// A set of workspaces and packages.
    Profile,
}

impl Kind {
    const ALL: [Kind; 5] =
        [Kind::Project, Kind::Workspace, Kind::Config, Kind::Module, Kind::Profile];

    /// The word in a path: `projects`.
    pub fn from_plural(word: &str) -> Option<Kind> {
        let singular = word.strip_suffix('s')?;
        Kind::ALL.into_iter().find(|kind| kind.word() == singular)
    }

    /// The word in rows and answers: `project`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Project => "project",
            Kind::Workspace => "workspace",
            Kind::Config => "config",
            Kind::Module => "module",
            Kind::Profile => "profile",
        }
    }
}

/// An entity's row.
pub struct Entity {
    /// Row id; clients bind it into what they encrypt.
    pub id: i64,
    /// Its name in commands; unique among the live ones of a user and kind.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// In the user's words.
    pub description: Option<String>,
    /// Where a project is cloned from.
    pub git_url: Option<String>,
    /// The branch of that.
    pub git_branch: Option<String>,
    /// Where a config lies.
    pub source_hint: Option<String>,
    /// What a module is.
    pub module_type: Option<String>,
    /// A profile is the user's default.
    pub is_default: bool,
    /// The newest version; 0 without one.
    pub current_version: i64,
    /// The user's wrapped data key, base64.
    pub wrapped_dek: Option<String>,
    /// RFC 3339, as the next.
    pub created_at: String,
    /// Last change or version.
    pub updated_at: String,
}

/// What a new entity is made of.
pub struct NewEntity<'a> {
    /// Its kind.
    pub kind: Kind,
    /// As in [`Entity`], as all that follows.
    pub slug: &'a str,
    /// For people.
    pub name: &'a str,
    /// In the user's words.
    pub description: Option<&'a str>,
    /// Where a project is cloned from.
    pub git_url: Option<&'a str>,
    /// The branch of that.
    pub git_branch: Option<&'a str>,
    /// Where a config lies.
    pub source_hint: Option<&'a str>,
    /// What a module is.
    pub module_type: Option<&'a str>,
    /// Takes the mark from the profile that has it.
    pub is_default: bool,
}

/// What a change sets; None keeps.
#[derive(Default)]
pub struct Change<'a> {
    /// For people.
    pub name: Option<&'a str>,
    /// Must be free.
    pub slug: Option<&'a str>,
    /// In the user's words.
    pub description: Option<&'a str>,
}

/// Which entity a call is about, and whose it must be.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Id and address of the user.
    pub user: (i64, &'a str),
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: i64,
    /// The client's address.
    pub peer: IpAddr,
}

/// A version's row.
pub struct Version {
    /// Row id.
    pub id: i64,
    /// 1, 2, 3, …
    pub version: i64,
    /// Bytes of the ciphertext.
    pub size_bytes: u64,
    /// As the client sent it.
    pub content_hash: Option<String>,
    /// As the client sent it.
    pub pushed_from_machine_id: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    blob: Blob,
}

const COLUMNS: &str = "id, slug, name, description, git_url, git_branch, source_hint, module_type,
    is_default, current_version, wrapped_dek, created_at, updated_at FROM entities";
const VERSION_COLUMNS: &str = "id, version, content_hash, pushed_from_machine_id, created_at, file,
    size_bytes, sha256 FROM entity_versions";

impl Store {
    /// The user's live entities of a kind, oldest first; with `git_url` those of that URL alone.
    pub fn entities(&self, user: i64, kind: Kind, git_url: Option<&str>) -> Result<Vec<Entity>> {
        self.db.read(|c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT {COLUMNS} WHERE user_id = ?1 AND kind = ?2 AND deleted_at IS NULL
                    AND (?3 IS NULL OR git_url = ?3) ORDER BY id"
            ))?;
            let rows =
                statement.query_map(params![user, kind.word(), git_url], Entity::from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// One live entity.
    pub fn entity(&self, target: Target<'_>) -> Result<Entity> {
        self.db.read(|c| find(c, target))
    }

    /// Adds an entity; Exists if its slug is taken.
    pub fn add_entity(
        &self,
        user: (i64, &str),
        new: &NewEntity<'_>,
        peer: IpAddr,
    ) -> Result<Entity> {
        let (kind, word) = (new.kind, new.kind.word());
        let entity =
            self.db.write(|tx| {
                let count = "SELECT count(*) FROM entities
                          WHERE user_id = ?1 AND kind = ?2 AND deleted_at IS NULL";
                let live: i64 = tx.query_row(count, params![user.0, word], |row| row.get(0))?;
                if live >= ENTITIES_MAX {
                    return Err(StoreError::TooMany("entities of this kind").into());
                }
                if new.is_default {
                    tx.execute(
                        "UPDATE entities SET is_default = 0 WHERE user_id = ?1 AND kind = ?2",
                        params![user.0, word],
                    )?;
                }
                let added = tx.execute(
                "INSERT INTO entities (user_id, kind, slug, name, description, git_url, git_branch,
                                       source_hint, module_type, is_default, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11) ON CONFLICT DO NOTHING",
                params![user.0, word, new.slug, new.name, new.description, new.git_url,
                    new.git_branch, new.source_hint, new.module_type, new.is_default, now_ms()],
            )?;
                if added == 0 {
                    return Err(StoreError::Exists(word).into());
                }
                let target = Target { user, kind, id: tx.last_insert_rowid(), peer };
                event("entity.add", target).write(tx)?;
                Ok(find(tx, target)?)
            })?;
        Ok(entity)
    }

    /// Renames an entity; id, versions and key stay.
    pub fn change_entity(&self, target: Target<'_>, change: &Change<'_>) -> Result<Entity> {
        let entity = self.db.write(|tx| {
            find(tx, target)?;
            let changed = tx.execute(
                "UPDATE OR IGNORE entities SET name = coalesce(?3, name), slug = coalesce(?4, slug),
                        description = coalesce(?5, description), updated_at = ?6
                  WHERE user_id = ?1 AND id = ?2",
                params![target.user.0, target.id, change.name, change.slug, change.description,
                    now_ms()],
            )?;
            if changed == 0 {
                return Err(StoreError::Exists(target.kind.word()).into());
            }
            event("entity.change", target).write(tx)?;
            Ok(find(tx, target)?)
        })?;
        Ok(entity)
    }

    /// Marks an entity deleted. Row and files stay until they are pruned.
    pub fn delete_entity(&self, target: Target<'_>) -> Result<()> {
        self.db.write(|tx| {
            find(tx, target)?;
            tx.execute(
                "UPDATE entities SET deleted_at = ?3, is_default = 0 WHERE user_id = ?1 AND id = ?2",
                params![target.user.0, target.id, now_ms()],
            )?;
            event("entity.remove", target).write(tx)?;
            Ok(())
        })?;
        Ok(())
    }

    /// Stores the next version; its number is given in the transaction that stores it.
    pub fn push_version(
        &self,
        target: Target<'_>,
        upload: Upload,
        content_hash: Option<&str>,
        machine: Option<&str>,
    ) -> Result<Version> {
        let (version, _) = self.store_blob(upload, |tx, blob, space| {
            let number = find(tx, target)?.current_version + 1;
            space.check(tx, target.user.0, blob.size)?;
            tx.prepare_cached(
                "INSERT INTO entity_versions (entity_id, user_id, version, file, size_bytes,
                                              sha256, content_hash, pushed_from_machine_id,
                                              created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                target.id,
                target.user.0,
                number,
                blob.file.to_string(),
                blob.size,
                blob.digest.0,
                content_hash,
                machine,
                now_ms()
            ])?;
            event("entity.push", target).write(tx)?;
            Ok((find_version(tx, target.id, number)?, true))
        })?;
        Ok(version)
    }

    /// All versions, newest first.
    pub fn versions(&self, target: Target<'_>) -> Result<Vec<Version>> {
        self.db.read(|c| {
            find(c, target)?;
            let mut statement = c.prepare_cached(&format!(
                "SELECT {VERSION_COLUMNS} WHERE entity_id = ?1 ORDER BY version DESC"
            ))?;
            let rows = statement.query_map([target.id], Version::from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Opens the ciphertext of a version (None: the newest) and says its length.
    pub fn open_version(&self, target: Target<'_>, number: Option<i64>) -> Result<(File, u64)> {
        let (number, blob) = self.db.read(|c| {
            let number = number.unwrap_or(find(c, target)?.current_version);
            Ok((number, find_version(c, target.id, number)?.blob))
        })?;
        let what = || format!("{} {} version {number}", target.kind.word(), target.id);
        let file = self.open_blob(blob, what)?;
        self.audit_later(event("entity.pull", target));
        Ok((file, blob.size))
    }

    /// Stores the user's wrapped data key. The first stays: replacing it would make every
    /// version unreadable.
    pub fn add_entity_key(&self, target: Target<'_>, wrapped_dek: &str) -> Result<()> {
        self.db.write(|tx| match find(tx, target)?.wrapped_dek {
            Some(known) if known == wrapped_dek => Ok(()),
            Some(_) => Err(StoreError::KeyExists("key").into()),
            None => {
                tx.execute(
                    "UPDATE entities SET wrapped_dek = ?3 WHERE user_id = ?1 AND id = ?2",
                    params![target.user.0, target.id, wrapped_dek],
                )?;
                event("entity.key", target).write(tx)?;
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Puts a workspace into a profile, or takes it out; either twice is as good.
    pub fn set_profile_workspace(
        &self,
        profile: Target<'_>,
        workspace: i64,
        member: bool,
    ) -> Result<()> {
        self.db.write(|tx: &Transaction<'_>| {
            find(tx, profile)?;
            let sql = match member {
                true => {
                    find(tx, Target { kind: Kind::Workspace, id: workspace, ..profile })?;
                    "INSERT INTO profile_workspaces (profile_id, workspace_id) VALUES (?1, ?2)
                     ON CONFLICT DO NOTHING"
                }
                false => {
                    "DELETE FROM profile_workspaces WHERE profile_id = ?1 AND workspace_id = ?2"
                }
            };
            tx.execute(sql, [profile.id, workspace])?;
            Ok(())
        })?;
        Ok(())
    }
}

/// A live entity of this kind and user; Missing for any other, like for an unknown id.
pub(super) fn find(connection: &Connection, target: Target<'_>) -> Result<Entity> {
    let sql = format!(
        "SELECT {COLUMNS} WHERE id = ?1 AND user_id = ?2 AND kind = ?3 AND deleted_at IS NULL"
    );
    connection
        .prepare_cached(&sql)?
        .query_row(params![target.id, target.user.0, target.kind.word()], Entity::from_row)
        .optional()?
        .ok_or(StoreError::Missing(target.kind.word()))
}

fn find_version(connection: &Connection, entity: i64, number: i64) -> Result<Version> {
    let sql = format!("SELECT {VERSION_COLUMNS} WHERE entity_id = ?1 AND version = ?2");
    connection
        .prepare_cached(&sql)?
        .query_row([entity, number], Version::from_row)
        .optional()?
        .ok_or(StoreError::Missing("version"))
}

fn event(name: &'static str, target: Target<'_>) -> Event {
    Event::ok(name).user(target.user.0, target.user.1).peer(target.peer).subject(target.id)
}

impl Entity {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Entity> {
        Ok(Entity {
            id: row.get(0)?,
            slug: row.get(1)?,
            name: row.get(2)?,
            description: row.get(3)?,
            git_url: row.get(4)?,
            git_branch: row.get(5)?,
            source_hint: row.get(6)?,
            module_type: row.get(7)?,
            is_default: row.get(8)?,
            current_version: row.get(9)?,
            wrapped_dek: row.get(10)?,
            created_at: rfc3339(row.get(11)?),
            updated_at: rfc3339(row.get(12)?),
        })
    }
}

impl Version {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Version> {
        let blob = Blob::from_row(row, 5)?;
        Ok(Version {
            id: row.get(0)?,
            version: row.get(1)?,
            size_bytes: blob.size,
            content_hash: row.get(2)?,
            pushed_from_machine_id: row.get(3)?,
            created_at: rfc3339(row.get(4)?),
            blob,
        })
    }
}
