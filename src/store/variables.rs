//! Variables of projects and the keys of their layers.

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::Store;
use super::entities::{Target, find};
use super::error::{Result, StoreError};
use crate::limits::VARIABLES_MAX;
use crate::time::{now_ms, rfc3339};

/// A variable as the API shows it.
#[derive(Serialize)]
pub struct Variable {
    /// Row id.
    pub id: i64,
    /// The project's id.
    pub project_id: i64,
    /// Free text, such as `dev`.
    pub environment_tier: String,
    /// Its name in clear.
    pub name: String,
    /// `shared`, `personal` or `restricted`.
    pub visibility: String,
    /// The user for personal ones.
    pub owner_user_id: Option<i64>,
    /// In the user's words.
    pub description: Option<String>,
    /// 0 or 1.
    pub required: i64,
    /// Where the value is: `inline`.
    pub value_source: String,
    /// base64.
    pub encrypted_value: Option<String>,
    /// Always null.
    pub vault_secret_id: Option<String>,
    /// Always null.
    pub encrypted_external_ref: Option<String>,
    /// The layer key uploaded last before the value was written.
    pub layer_key_id: Option<i64>,
    /// Counts writes.
    pub current_version: i64,
}

/// A value to write.
pub struct NewVariable<'a> {
    /// Free text, such as `dev`.
    pub tier: &'a str,
    /// Its name in clear.
    pub name: &'a str,
    /// `shared`, `personal` or `restricted`.
    pub visibility: &'a str,
    /// Where the value is.
    pub value_source: &'a str,
    /// base64.
    pub encrypted_value: Option<&'a str>,
    /// In the user's words; None keeps.
    pub description: Option<&'a str>,
    /// None keeps.
    pub required: Option<bool>,
}

/// A key of a layer.
#[derive(Serialize)]
pub struct LayerKey {
    /// Row id.
    pub id: i64,
    /// Made by the client.
    pub layer_id: String,
    /// base64.
    pub wrapped_dek: String,
    /// RFC 3339.
    pub created_at: String,
}

const COLUMNS: &str = "v.id, v.project_id, v.environment_tier, v.name, v.visibility, e.user_id,
    v.description, v.required, v.value_source, v.encrypted_value, v.layer_key, v.current_version
    FROM variables v JOIN entities e ON e.id = v.project_id";

impl Store {
    /// Writes a variable; the row says which layer key was current.
    pub fn set_variable(&self, project: Target<'_>, new: &NewVariable<'_>) -> Result<Variable> {
        let layer = match new.visibility {
            "personal" => format!("personal:{}:{}:{}", project.id, new.tier, project.user.0),
            other => format!("{other}:{}:{}", project.id, new.tier),
        };
        let variable = self.db.write(|tx| {
            find(tx, project)?;
            bounded(tx, "variables", project.id)?;
            let id: i64 = tx
                .prepare_cached(
                    "INSERT INTO variables (project_id, environment_tier, name, visibility,
                       value_source, encrypted_value, description, required, layer_key, created_at,
                       updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, coalesce(?8, 0),
                       (SELECT id FROM layer_keys WHERE project_id = ?1 AND layer_id = ?9
                         ORDER BY upload DESC LIMIT 1), ?10, ?10)
                     ON CONFLICT DO UPDATE SET value_source = excluded.value_source,
                       encrypted_value = excluded.encrypted_value,
                       description = coalesce(?7, description), required = coalesce(?8, required),
                       layer_key = excluded.layer_key, updated_at = excluded.updated_at,
                       current_version = current_version + 1
                     RETURNING id",
                )?
                .query_row(
                    params![
                        project.id,
                        new.tier,
                        new.name,
                        new.visibility,
                        new.value_source,
                        new.encrypted_value,
                        new.description,
                        new.required,
                        layer,
                        now_ms()
                    ],
                    |row| row.get(0),
                )?;
            let sql = format!("SELECT {COLUMNS} WHERE v.id = ?1");
            Ok(tx.prepare_cached(&sql)?.query_row([id], Variable::from_row)?)
        })?;
        Ok(variable)
    }

    /// The variables of a project, of one tier or visibility if given.
    pub fn variables(
        &self,
        project: Target<'_>,
        tier: Option<&str>,
        visibility: Option<&str>,
    ) -> Result<Vec<Variable>> {
        self.db.read(|c| {
            find(c, project)?;
            let mut statement = c.prepare_cached(&format!(
                "SELECT {COLUMNS} WHERE v.project_id = ?1
                    AND (?2 IS NULL OR v.environment_tier = ?2)
                    AND (?3 IS NULL OR v.visibility = ?3)
                  ORDER BY v.environment_tier, v.name, v.visibility"
            ))?;
            let rows =
                statement.query_map(params![project.id, tier, visibility], Variable::from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Deletes a variable.
    pub fn delete_variable(
        &self,
        project: Target<'_>,
        tier: &str,
        visibility: &str,
        name: &str,
    ) -> Result<()> {
        self.db.write(|tx| {
            find(tx, project)?;
            let deleted = tx.execute(
                "DELETE FROM variables WHERE project_id = ?1 AND environment_tier = ?2
                    AND visibility = ?3 AND name = ?4",
                params![project.id, tier, visibility, name],
            )?;
            match deleted {
                0 => Err(StoreError::Missing("variable").into()),
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Keeps a layer key beside those it has, and notes that it was uploaded last.
    pub fn add_layer_key(&self, project: Target<'_>, layer: &str, wrapped: &str) -> Result<()> {
        self.db.write(|tx| {
            find(tx, project)?;
            bounded(tx, "layer_keys", project.id)?;
            tx.prepare_cached(
                "INSERT INTO layer_keys (project_id, layer_id, wrapped_dek, created_at, upload)
                 VALUES (?1, ?2, ?3, ?4, 1 + (SELECT coalesce(max(upload), 0) FROM layer_keys
                                               WHERE project_id = ?1 AND layer_id = ?2))
                 ON CONFLICT DO UPDATE SET upload = excluded.upload",
            )?
            .execute(params![project.id, layer, wrapped, now_ms()])?;
            Ok(())
        })?;
        Ok(())
    }

    /// The keys of a project, of one layer if given; the one uploaded last comes first.
    pub fn layer_keys(&self, project: Target<'_>, layer: Option<&str>) -> Result<Vec<LayerKey>> {
        self.db.read(|c| {
            find(c, project)?;
            let mut statement = c.prepare_cached(
                "SELECT id, layer_id, wrapped_dek, created_at FROM layer_keys
                  WHERE project_id = ?1 AND (?2 IS NULL OR layer_id = ?2)
                  ORDER BY layer_id, upload DESC",
            )?;
            let rows = statement.query_map(params![project.id, layer], |row| {
                Ok(LayerKey {
                    id: row.get(0)?,
                    layer_id: row.get(1)?,
                    wrapped_dek: row.get(2)?,
                    created_at: rfc3339(row.get(3)?),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// One write too many is refused also where it would change a row: the bound is far off.
fn bounded(tx: &rusqlite::Transaction<'_>, table: &'static str, project: i64) -> Result<()> {
    let sql = format!("SELECT count(*) FROM {table} WHERE project_id = ?1");
    let count: Option<i64> =
        tx.prepare_cached(&sql)?.query_row([project], |row| row.get(0)).optional()?;
    match count.unwrap_or(0) {
        n if n >= VARIABLES_MAX => Err(StoreError::TooMany("variables or keys of this project")),
        _ => Ok(()),
    }
}

impl Variable {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Variable> {
        let visibility: String = row.get(4)?;
        let user: i64 = row.get(5)?;
        Ok(Variable {
            id: row.get(0)?,
            project_id: row.get(1)?,
            environment_tier: row.get(2)?,
            name: row.get(3)?,
            owner_user_id: (visibility == "personal").then_some(user),
            visibility,
            description: row.get(6)?,
            required: row.get(7)?,
            value_source: row.get(8)?,
            encrypted_value: row.get(9)?,
            vault_secret_id: None,
            encrypted_external_ref: None,
            layer_key_id: row.get(10)?,
            current_version: row.get(11)?,
        })
    }
}
