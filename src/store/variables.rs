//! Variables of projects and the keys of their layers.

use rusqlite::params;
use serde::Deserialize;

use super::db::{execute, execute_one, query_scalar};
use super::entities::Target;
use super::error::Result;
use super::{RowSink, Store};
use crate::util::time::now_ms;
use crate::util::types::{Base64, Key, Message, Name, Short, Visibility};

/// A variable to write. An update keeps `description` and `required` where they are None, and
/// replaces the value.
#[derive(Deserialize)]
pub struct VariableBody {
    environment_tier: Name,
    visibility: Option<Visibility>,
    value_source: Option<Short>,
    encrypted_value: Option<Base64>,
    /// Must be the caller's id.
    pub owner_user_id: Option<i64>,
    description: Option<Message>,
    required: Option<bool>,
}

/// A key of a layer.
#[derive(Deserialize)]
pub struct LayerKeyBody {
    layer_id: Name,
    wrapped_dek: Key,
}

impl Store {
    /// Writes a variable; its row names the layer key that is current now.
    pub fn set_variable(
        &self, project: Target<'_>, name: &Name, new: &VariableBody,
    ) -> Result<String> {
        let visibility = new.visibility.as_deref().unwrap_or("shared");
        // Layer ids as clients form them; restricted values are in the shared layer.
        let (id, tier) = (project.id, &new.environment_tier);
        let layer = match visibility {
            "personal" => format!("personal:{id}:{tier}:{}", project.user.id),
            _ => format!("shared:{id}:{tier}"),
        };
        self.write_to(project, |tx| {
            let sql = "INSERT INTO variables (project_id, environment_tier, name, visibility,
                         value_source, encrypted_value, description, required, layer_key,
                         created_at, updated_at)
                       VALUES (?1, ?2, ?3, ?4, coalesce(?5, 'inline'), ?6, ?7, coalesce(?8, 0),
                         (SELECT id FROM layer_keys WHERE project_id = ?1 AND layer_id = ?9
                           ORDER BY upload DESC LIMIT 1), ?10, ?10)
                       ON CONFLICT DO UPDATE SET value_source = excluded.value_source,
                         encrypted_value = excluded.encrypted_value,
                         description = coalesce(?7, description),
                         required = coalesce(?8, required), layer_key = excluded.layer_key,
                         updated_at = excluded.updated_at, current_version = current_version + 1
                       RETURNING id";
            let VariableBody { value_source: source, description, required, .. } = new;
            let (value, now) = (&new.encrypted_value, now_ms());
            let row = params![
                id, tier, name, visibility, source, value, description, required, layer, now
            ];
            let id: i64 = query_scalar(tx, sql, row)?;
            query_scalar(tx, "SELECT row FROM variable_rows WHERE id = ?1", [id])
        })
    }

    /// Lists the variables of a project, of one tier or visibility if given.
    pub fn variables(
        &self, project: Target<'_>, tier: Option<&str>, visibility: Option<&Visibility>,
        rows: RowSink<'_>,
    ) -> Result<()> {
        let sql = "SELECT row FROM variable_rows WHERE project_id = ?1
                      AND (?2 IS NULL OR environment_tier = ?2)
                      AND (?3 IS NULL OR visibility = ?3)
                    ORDER BY environment_tier, name, visibility";
        self.rows_of(project, sql, params![project.id, tier, visibility], rows)
    }

    pub fn delete_variable(
        &self, project: Target<'_>, tier: &str, visibility: &str, name: &str,
    ) -> Result<()> {
        let sql = "DELETE FROM variables WHERE project_id = ?1 AND environment_tier = ?2
                      AND visibility = ?3 AND name = ?4";
        let values = params![project.id, tier, visibility, name];
        self.write_to(project, |tx| execute_one(tx, "variable", sql, values))
    }

    /// Stores a layer key beside the existing ones, as the one uploaded last.
    pub fn add_layer_key(&self, project: Target<'_>, new: &LayerKeyBody) -> Result<()> {
        let sql = "INSERT INTO layer_keys (project_id, layer_id, wrapped_dek, created_at, upload)
                   VALUES (?1, ?2, ?3, ?4, 1 + (SELECT coalesce(max(upload), 0) FROM layer_keys
                                                 WHERE project_id = ?1 AND layer_id = ?2))
                   ON CONFLICT DO UPDATE SET upload = excluded.upload";
        let values = params![project.id, new.layer_id, new.wrapped_dek, now_ms()];
        self.write_to(project, |tx| execute(tx, sql, values).map(drop))
    }

    /// Lists the keys of a project, of one layer if given; the key uploaded last comes first.
    pub fn layer_keys(
        &self, project: Target<'_>, layer: Option<&str>, rows: RowSink<'_>,
    ) -> Result<()> {
        let sql = "SELECT row FROM layer_key_rows WHERE project_id = ?1
                      AND (?2 IS NULL OR layer_id = ?2) ORDER BY layer_id, upload DESC";
        self.rows_of(project, sql, params![project.id, layer], rows)
    }
}
