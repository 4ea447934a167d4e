//! Entities of five kinds, their versions and their keys.

use std::fs::File;

use rusqlite::{Connection, Params, Transaction, params};
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

/// The five kinds, as rows and responses spell them.
pub const KINDS: [&str; 5] = ["project", "workspace", "config", "module", "profile"];

/// The fields of a new entity, or of a change, where None keeps the value.
#[derive(Deserialize)]
pub struct EntityBody {
    /// Its name in commands; unique among the live entities of a user and kind.
    pub slug: Option<Name>,
    /// The display name.
    pub name: Option<Name>,
    description: Option<Message>,
    /// The URL a project is cloned from.
    pub git_url: Option<Long>,
    /// The branch of that repository.
    pub git_branch: Option<Long>,
    source_hint: Option<Long>,
    module_type: Option<Short>,
    is_default: Option<bool>,
}

/// The metadata of a pushed version.
#[derive(Deserialize)]
pub struct VersionBody {
    content_hash: Option<Short>,
    pushed_from_machine_id: Option<Short>,
}

/// The entity that a call addresses, and the user who must own it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub user: &'a User,
    pub kind: &'a str,
    pub id: i64,
}

impl Store {
    /// Lists the user's live entities of a kind, oldest first; with `git_url` only those with that
    /// URL.
    pub fn entities(
        &self, user: i64, kind: &str, git_url: Option<&str>, rows: RowSink<'_>,
    ) -> Result<()> {
        let sql = "SELECT row FROM entity_rows WHERE user_id = ?1 AND kind = ?2
                      AND (?3 IS NULL OR git_url = ?3) ORDER BY id";
        self.db.read(|c| query_each(c, sql, params![user, kind, git_url], rows))
    }

    /// Returns an entity under the name of its kind, and the user's wrapped data key beside it.
    pub fn entity(&self, target: Target<'_>) -> Result<String> {
        self.db.read(|c| find(c, target))
    }

    /// Runs the transaction of a request that changes a live entity, or rows that belong to it.
    pub(super) fn write_to<T>(
        &self, target: Target<'_>, work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write_as_user(target.user, |tx| find(tx, target).and_then(|_| work(tx)))
    }

    /// Lists rows that belong to a live entity.
    pub(super) fn rows_of(
        &self, target: Target<'_>, sql: &str, values: impl Params, rows: RowSink<'_>,
    ) -> Result<()> {
        self.db.read(|c| find(c, target).and_then(|_| query_each(c, sql, values, rows)))
    }

    /// Adds an entity. One with the same slug that never got its first version is taken over, since
    /// no client could get past it. If it has a key it is soft-deleted instead: the client that
    /// stored the key may still encrypt for its id, and the caller will bring another key. Not so a
    /// profile: clients add it without a version, mark and link it, and read its key before they
    /// bring one.
    pub fn add_entity(&self, user: &User, kind: &str, new: &EntityBody) -> Result<String> {
        self.write_as_user(user, |tx| {
            let now = now_ms();
            let sql = "UPDATE entities SET deleted_at = ?4, is_default = 0
                WHERE user_id = ?1 AND kind = ?2 AND slug = ?3 AND deleted_at IS NULL
                  AND current_version = 0 AND wrapped_dek IS NOT NULL AND kind <> 'profile'";
            if execute(tx, sql, params![user.id, kind, new.slug, now])? > 0 {
                purge(tx, "entities", user)?;
            }
            let is_default = kind == "profile" && new.is_default == Some(true);
            let sql = "UPDATE entities SET is_default = 0 WHERE user_id = ?1 AND kind = ?2 AND ?3";
            execute(tx, sql, params![user.id, kind, is_default])?;
            let sql = "INSERT INTO entities (user_id, kind, slug, name, description, git_url,
                         git_branch, source_hint, module_type, is_default, created_at, updated_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)
                       ON CONFLICT (user_id, kind, slug) WHERE deleted_at IS NULL DO UPDATE SET
                         name = excluded.name,
                         description = coalesce(excluded.description, description),
                         git_url = excluded.git_url, git_branch = excluded.git_branch,
                         source_hint = excluded.source_hint, module_type = excluded.module_type,
                         is_default = max(is_default, excluded.is_default),
                         updated_at = excluded.updated_at
                       WHERE current_version = 0 RETURNING id";
            let row = params![
                user.id, kind, new.slug, new.name, new.description, new.git_url, new.git_branch,
                new.source_hint, new.module_type, is_default, now
            ];
            let added = query_opt(tx, sql, row, |row| row.get(0))?;
            let id = added.ok_or_else(|| taken(kind, new))?;
            self.audit(tx, Event::of(user, "entity.add").subject(id))?;
            find(tx, Target { user, kind, id })
        })
    }

    /// Changes the name, slug or description of an entity; id, versions and key stay.
    pub fn change_entity(&self, target: Target<'_>, new: &EntityBody) -> Result<String> {
        self.write_to(target, |tx| {
            let sql = "UPDATE OR IGNORE entities SET name = coalesce(?3, name),
                         slug = coalesce(?4, slug), description = coalesce(?5, description),
                         updated_at = ?6 WHERE user_id = ?1 AND id = ?2";
            let (user, now) = (target.user.id, now_ms());
            let row = params![user, target.id, new.name, new.slug, new.description, now];
            if execute(tx, sql, row)? == 0 {
                return Err(taken(target.kind, new));
            }
            self.audit(tx, Event::of(target.user, "entity.change").subject(target.id))?;
            find(tx, target)
        })
    }

    /// Soft-deletes an entity. Its row and files stay until they are pruned, or until
    /// [`DELETED_ROWS_MAX`] others were deleted after it.
    pub fn delete_entity(&self, target: Target<'_>) -> Result<()> {
        let purged = self.write_to(target, |tx| {
            let sql = "UPDATE entities SET deleted_at = ?3, is_default = 0
                        WHERE user_id = ?1 AND id = ?2";
            execute(tx, sql, [target.user.id, target.id, now_ms()])?;
            self.audit(tx, Event::of(target.user, "entity.remove").subject(target.id))?;
            purge(tx, "entities", target.user)
        })?;
        if purged > 0 {
            self.unlink_a_few();
        }
        Ok(())
    }

    /// Stores the next version and returns its row; its number is assigned in the transaction.
    pub fn push_version(
        &self, target: Target<'_>, body: &VersionBody, upload: Upload,
    ) -> Result<String> {
        let push = || Event::of(target.user, "entity.push").subject(target.id);
        let (row, _) = self.store_blob(target.user, upload, push(), |tx, blob| {
            find(tx, target)?;
            self.check_room(tx, target.user.id, blob.size)?;
            let sql = "INSERT INTO entity_versions (entity_id, user_id, version, file, size_bytes,
                         sha256, content_hash, pushed_from_machine_id, created_at)
                       SELECT id, user_id, current_version + 1, ?2, ?3, ?4, ?5, ?6, ?7
                         FROM entities WHERE id = ?1 RETURNING id";
            let (file, digest) = (blob.file.to_string(), blob.digest.0);
            let (hash, from, now) = (&body.content_hash, &body.pushed_from_machine_id, now_ms());
            let row = params![target.id, file, blob.size, digest, hash, from, now];
            let id: i64 = query_scalar(tx, sql, row)?;
            self.audit(tx, push())?;
            let row = query_scalar(tx, "SELECT row FROM version_rows WHERE id = ?1", [id])?;
            Ok((row, true))
        })?;
        Ok(row)
    }

    /// Lists the versions, newest first.
    pub fn versions(&self, target: Target<'_>, rows: RowSink<'_>) -> Result<()> {
        let sql = "SELECT row FROM version_rows WHERE entity_id = ?1 ORDER BY version DESC";
        self.rows_of(target, sql, [target.id], rows)
    }

    /// Opens the ciphertext of a version (None: the newest) and returns its length.
    pub fn open_version(&self, target: Target<'_>, number: Option<i64>) -> Result<(File, u64)> {
        let sql = "SELECT file, size_bytes, sha256 FROM version_rows
                    WHERE entity_id = ?1 AND version = coalesce(?2, current_version)";
        let values = params![target.id, number];
        let blob = self.db.read(|c| {
            find(c, target)?;
            query_one(c, "version", sql, values, |row| Blob::from_row(row, 0))
        })?;
        Ok((self.open_blob(blob, StoreError::missing("version"))?, blob.size))
    }

    /// Stores the user's wrapped data key. The first key stays: replacing it would make every
    /// version unreadable.
    pub fn add_entity_key(&self, target: Target<'_>, wrapped: &Key) -> Result<()> {
        self.write_to(target, |tx| {
            let sql = "UPDATE entities SET wrapped_dek = ?3
                        WHERE user_id = ?1 AND id = ?2 AND wrapped_dek IS NULL";
            let same = "SELECT wrapped_dek = ?3 FROM entities WHERE user_id = ?1 AND id = ?2";
            let row = params![target.user.id, target.id, wrapped];
            match execute(tx, sql, row)? {
                0 if query_scalar(tx, same, row)? => Ok(()),
                0 => Err(StoreError::key_exists("key")),
                _ => self.audit(tx, Event::of(target.user, "entity.key").subject(target.id)),
            }
        })
    }

    /// Puts a workspace into a profile; repeating it changes nothing.
    pub fn add_to_profile(&self, profile: Target<'_>, workspace: i64) -> Result<()> {
        let sql = "INSERT INTO profile_workspaces VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.write_to(profile, |tx| {
            find(tx, Target { kind: "workspace", id: workspace, ..profile })?;
            execute(tx, sql, [profile.id, workspace]).map(drop)
        })
    }

    /// Removes a workspace from a profile; repeating it changes nothing.
    pub fn remove_from_profile(&self, profile: Target<'_>, workspace: i64) -> Result<()> {
        let sql = "DELETE FROM profile_workspaces WHERE profile_id = ?1 AND workspace_id = ?2";
        self.write_to(profile, |tx| execute(tx, sql, [profile.id, workspace]).map(drop))
    }
}

/// Returns a live entity of this kind and user, as [`Store::entity`] does; NotFound for any other,
/// as for an unknown id.
fn find(connection: &Connection, target: Target<'_>) -> Result<String> {
    let sql = "SELECT json_object(kind, json(row), 'wrapped_dek', wrapped_dek) FROM entity_rows
                WHERE id = ?1 AND user_id = ?2 AND kind = ?3";
    let values = params![target.id, target.user.id, target.kind];
    query_one(connection, target.kind, sql, values, |row| row.get(0))
}

/// Deletes the rows that a user soft-deleted longest ago, beyond [`DELETED_ROWS_MAX`] in this
/// table, and returns how many those were.
pub(super) fn purge(tx: &Transaction<'_>, table: &str, user: &User) -> Result<usize> {
    let sql = format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table}
          WHERE user_id = ?1 AND deleted_at IS NOT NULL
          ORDER BY deleted_at DESC, id DESC LIMIT -1 OFFSET ?2)"
    );
    execute(tx, &sql, [user.id, DELETED_ROWS_MAX])
}

/// The error if another live entity has the slug. The released client looks for "already exists".
fn taken(kind: &str, new: &EntityBody) -> StoreError {
    let slug = new.slug.as_deref().unwrap_or_default();
    let sentence = format!(
        "a {kind} with the slug '{slug}' already exists: use that one, choose another slug, or \
         rename or delete that {kind} first"
    );
    StoreError::new(ErrorKind::Exists, sentence)
}
