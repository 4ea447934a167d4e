//! Entities of five kinds, their versions and their keys.

use std::fs::File;

use rusqlite::{Connection, Params, Row, Transaction, params};
use serde::Deserialize;

use super::audit::Event;
use super::blobs::Blob;
use super::db::{execute, query_each, query_one, query_opt, query_scalar};
use super::error::{ErrorKind, Result, StoreError};
use super::upload::Upload;
use super::{RowSink, Store, User};
use crate::util::limits::DELETED_ROWS_MAX;
use crate::util::time::now_ms;
use crate::util::types::{Key, Long, Message, Name, Short};

/// The five kinds, by their word in rows and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub &'static str);

impl Kind {
    /// The kind that has variables and links to machines.
    pub const PROJECT: Kind = Kind("project");
    /// The kind that is activated on machines.
    pub const PROFILE: Kind = Kind("profile");
    const WORKSPACE: Kind = Kind("workspace");
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::PROJECT, Kind::WORKSPACE, Kind("config"), Kind("module"), Kind::PROFILE];

    /// By the word in a path: `projects`.
    pub fn from_plural(word: &str) -> Option<Kind> {
        let singular = word.strip_suffix('s')?;
        Kind::ALL.into_iter().find(|kind| kind.0 == singular)
    }
}

/// What the store needs of an entity beside its row.
pub struct Entity {
    /// A JSON object.
    pub row: String,
    /// The newest version; 0 without one.
    pub current_version: i64,
    /// The user's wrapped data key, base64.
    pub wrapped_dek: Option<String>,
}

/// What a new entity is made of, or what a change sets: then what is None keeps its value.
#[derive(Deserialize)]
pub struct EntityBody {
    /// Its name in commands; unique among the live ones of a user and kind.
    pub slug: Option<Name>,
    /// Its name for people.
    pub name: Option<Name>,
    description: Option<Message>,
    /// Where a project is cloned from.
    pub git_url: Option<Long>,
    /// The branch of that.
    pub git_branch: Option<Long>,
    source_hint: Option<Long>,
    module_type: Option<Short>,
    is_default: Option<bool>,
}

/// What a version says beside its bytes.
#[derive(Deserialize)]
pub struct VersionBody {
    content_hash: Option<Short>,
    pushed_from_machine_id: Option<Short>,
}

/// Which entity a call is about, and whose it must be.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub user: &'a User,
    pub kind: Kind,
    pub id: i64,
}

impl Store {
    /// The user's live entities of a kind, oldest first; with `git_url` those of that URL alone.
    pub fn entities(
        &self, user: i64, kind: Kind, git_url: Option<&str>, rows: RowSink<'_>,
    ) -> Result<()> {
        let sql = "SELECT row FROM entity_rows WHERE user_id = ?1 AND kind = ?2
                      AND (?3 IS NULL OR git_url = ?3) ORDER BY id";
        self.db.read(|c| query_each(c, sql, params![user, kind.0, git_url], rows))
    }

    pub fn entity(&self, target: Target<'_>) -> Result<Entity> {
        self.db.read(|c| find(c, target))
    }

    /// Runs the transaction of a request that changes a live entity, or what belongs to it.
    pub(super) fn write_to<T>(
        &self, target: Target<'_>, work: impl FnOnce(&Transaction<'_>, Entity) -> Result<T>,
    ) -> Result<T> {
        self.write_as(target.user, |tx| work(tx, find(tx, target)?))
    }

    /// Rows of what belongs to a live entity.
    pub(super) fn rows_of(
        &self, target: Target<'_>, sql: &str, values: impl Params, rows: RowSink<'_>,
    ) -> Result<()> {
        self.db.read(|c| find(c, target).and_then(|_| query_each(c, sql, values, rows)))
    }

    /// Adds an entity. One of the same slug whose first version never came is taken over: no client
    /// could get past it. If that one has a key it is deleted instead, since the client that put it
    /// there may still encrypt for its id, and this one will bring another key.
    pub fn add_entity(&self, user: &User, kind: Kind, new: &EntityBody) -> Result<String> {
        let EntityBody { slug, name, description, git_url, git_branch, .. } = new;
        self.write_as(user, |tx| {
            let now = now_ms();
            let abandoned = "UPDATE entities SET deleted_at = ?4, is_default = 0
                WHERE user_id = ?1 AND kind = ?2 AND slug = ?3 AND deleted_at IS NULL
                  AND current_version = 0 AND wrapped_dek IS NOT NULL";
            if execute(tx, abandoned, params![user.id, kind.0, slug, now])? > 0 {
                purge(tx, user)?;
            }
            let is_default = kind == Kind::PROFILE && new.is_default == Some(true);
            if is_default {
                let sql = "UPDATE entities SET is_default = 0 WHERE user_id = ?1 AND kind = ?2";
                execute(tx, sql, params![user.id, kind.0])?;
            }
            let sql = "INSERT INTO entities (user_id, kind, slug, name, description, git_url,
                         git_branch, source_hint, module_type, is_default, created_at, updated_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)
                       ON CONFLICT (user_id, kind, slug) WHERE deleted_at IS NULL DO UPDATE SET
                         name = excluded.name, description = excluded.description,
                         git_url = excluded.git_url, git_branch = excluded.git_branch,
                         source_hint = excluded.source_hint, module_type = excluded.module_type,
                         is_default = excluded.is_default, updated_at = excluded.updated_at
                       WHERE current_version = 0 RETURNING id";
            let (hint, module) = (&new.source_hint, &new.module_type);
            let row = params![
                user.id, kind.0, slug, name, description, git_url, git_branch, hint, module,
                is_default, now
            ];
            let added = query_opt(tx, sql, row, |row| row.get(0))?;
            let id = added.ok_or_else(|| taken(kind, slug.as_deref()))?;
            self.audit(tx, Event::of(user, "entity.add").subject(id))?;
            Ok(find(tx, Target { user, kind, id })?.row)
        })
    }

    /// Renames an entity; id, versions and key stay.
    pub fn change_entity(&self, target: Target<'_>, new: &EntityBody) -> Result<String> {
        let (user, EntityBody { name, slug, description, .. }) = (target.user, new);
        self.write_to(target, |tx, _| {
            let sql = "UPDATE OR IGNORE entities SET name = coalesce(?3, name),
                         slug = coalesce(?4, slug), description = coalesce(?5, description),
                         updated_at = ?6 WHERE user_id = ?1 AND id = ?2";
            let row = params![user.id, target.id, name, slug, description, now_ms()];
            if execute(tx, sql, row)? == 0 {
                return Err(taken(target.kind, slug.as_deref()));
            }
            self.audit(tx, Event::of(user, "entity.change").subject(target.id))?;
            Ok(find(tx, target)?.row)
        })
    }

    /// Marks an entity deleted. Row and files stay until they are pruned, or until so many were
    /// deleted after it.
    pub fn delete_entity(&self, target: Target<'_>) -> Result<()> {
        let purged = self.write_to(target, |tx, _| {
            let sql = "UPDATE entities SET deleted_at = ?3, is_default = 0
                        WHERE user_id = ?1 AND id = ?2";
            execute(tx, sql, params![target.user.id, target.id, now_ms()])?;
            self.audit(tx, Event::of(target.user, "entity.remove").subject(target.id))?;
            purge(tx, target.user)
        })?;
        if purged > 0 {
            self.unlink_a_few();
        }
        Ok(())
    }

    /// Stores the next version and returns its row; its number is given in the transaction.
    pub fn push_version(
        &self, target: Target<'_>, body: &VersionBody, upload: Upload,
    ) -> Result<String> {
        let (user, id) = (target.user, target.id);
        let event = || Event::of(user, "entity.push").subject(id);
        let (row, _) = self.store_blob(user, upload, event(), |tx, blob| {
            let number = find(tx, target)?.current_version + 1;
            self.check_room(tx, user.id, blob.size)?;
            let sql = "INSERT INTO entity_versions (entity_id, user_id, version, file, size_bytes,
                         sha256, content_hash, pushed_from_machine_id, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let (file, digest) = (blob.file.to_string(), blob.digest.0);
            let (hash, from, now) = (&body.content_hash, &body.pushed_from_machine_id, now_ms());
            let row = params![id, user.id, number, file, blob.size, digest, hash, from, now];
            execute(tx, sql, row)?;
            self.audit(tx, event())?;
            let sql = "SELECT row FROM version_rows WHERE entity_id = ?1 AND version = ?2";
            Ok((query_scalar(tx, sql, [id, number])?, true))
        })?;
        Ok(row)
    }

    /// The versions, newest first.
    pub fn versions(&self, target: Target<'_>, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT row FROM version_rows WHERE entity_id = ?1 ORDER BY version DESC";
        self.rows_of(target, sql, [target.id], rows)
    }

    /// Opens the ciphertext of a version (None: the newest) and returns its length.
    pub fn open_version(&self, target: Target<'_>, number: Option<i64>) -> Result<(File, u64)> {
        let (number, blob) = self.db.read(|c| {
            let current = find(c, target)?.current_version;
            let number = number.unwrap_or(current);
            let sql = "SELECT file, size_bytes, sha256 FROM version_rows
                        WHERE entity_id = ?1 AND version = ?2";
            let read = |row: &Row<'_>| Blob::from_row(row, 0);
            Ok((number, query_one(c, "version", sql, [target.id, number], read)?))
        })?;
        let what = || format!("{} {} version {number}", target.kind.0, target.id);
        Ok((self.open_blob(blob, || StoreError::missing("version"), what)?, blob.size))
    }

    /// Stores the user's wrapped data key. The first stays: replacing it would make every
    /// version unreadable.
    pub fn add_entity_key(&self, target: Target<'_>, wrapped: &Key) -> Result<()> {
        self.write_to(target, |tx, entity| match entity.wrapped_dek {
            Some(known) if known == **wrapped => Ok(()),
            Some(_) => Err(StoreError::key_exists("key")),
            None => {
                let sql = "UPDATE entities SET wrapped_dek = ?3 WHERE user_id = ?1 AND id = ?2";
                execute(tx, sql, params![target.user.id, target.id, wrapped])?;
                self.audit(tx, Event::of(target.user, "entity.key").subject(target.id))
            }
        })
    }

    /// Puts a workspace into a profile, or takes it out; repeating either changes nothing.
    pub fn set_profile_workspace(
        &self, profile: Target<'_>, workspace: i64, member: bool,
    ) -> Result<()> {
        let sql = match member {
            true => "INSERT INTO profile_workspaces VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            false => "DELETE FROM profile_workspaces WHERE profile_id = ?1 AND workspace_id = ?2",
        };
        self.write_to(profile, |tx, _| {
            if member {
                find(tx, Target { kind: Kind::WORKSPACE, id: workspace, ..profile })?;
            }
            execute(tx, sql, [profile.id, workspace]).map(drop)
        })
    }
}

/// Deletes the rows of those deleted longest ago where there are too many.
fn purge(tx: &Transaction<'_>, user: &User) -> Result<usize> {
    let sql = "DELETE FROM entities WHERE id IN (SELECT id FROM entities
                 WHERE user_id = ?1 AND deleted_at IS NOT NULL
                 ORDER BY deleted_at DESC, id DESC LIMIT -1 OFFSET ?2)";
    execute(tx, sql, [user.id, DELETED_ROWS_MAX])
}

/// Another live entity has the slug. The released client looks for "already exists".
fn taken(kind: Kind, slug: Option<&str>) -> StoreError {
    let (kind, slug) = (kind.0, slug.unwrap_or_default());
    let sentence = format!(
        "a {kind} with the slug '{slug}' already exists: use that one, choose another slug, or \
         rename or delete that {kind} first"
    );
    StoreError::new(ErrorKind::Exists, sentence)
}

/// A live entity of this kind and user; Missing for any other, like for an unknown id.
pub(super) fn find(connection: &Connection, target: Target<'_>) -> Result<Entity> {
    let sql = "SELECT row, current_version, wrapped_dek FROM entity_rows
                WHERE id = ?1 AND user_id = ?2 AND kind = ?3";
    let values = params![target.id, target.user.id, target.kind.0];
    query_one(connection, target.kind.0, sql, values, |row| {
        Ok(Entity { row: row.get(0)?, current_version: row.get(1)?, wrapped_dek: row.get(2)? })
    })
}
