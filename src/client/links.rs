//! Which projects and profiles a machine has, and the sync protocol over them.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::entities::row;
use super::{done, machine, on, text};
use crate::api::Answer;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::LONG_CHARS_MAX;
use crate::store::entities::Kind;
use crate::store::links::Link;
use crate::store::tokens::Bearer;
use crate::types::MachineId;

/// GET /api/machines/{mid}/projects: each project merged with its link.
pub fn list(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = machine(&request)?;
    let linked = context.store.linked_projects(on(&request, who, &machine))?;
    let rows: Vec<Value> = linked
        .iter()
        .map(|(project, link)| {
            let mut merged = row(Kind::Project, project, who);
            if let Value::Object(merged) = &mut merged {
                merged.insert("local_path".into(), json!(link.local_path));
                merged.insert("last_synced_version".into(), link.last_synced_version.into());
            }
            merged
        })
        .collect();
    Ok(Response::json(200, &json!({ "projects": rows })))
}

#[derive(Deserialize)]
struct Body {
    project_id: Option<i64>,
    /// None: absent. Some(None): null.
    #[serde(default, deserialize_with = "present")]
    local_path: Option<Option<String>>,
    last_synced_version: Option<i64>,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// POST /api/machines/{mid}/projects.
pub fn add(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = machine(&request)?;
    let body: Body = request.json()?;
    let id = body.project_id.ok_or_else(|| ApiError::malformed("project_id is needed"))?;
    let path = body.local_path.flatten();
    let path = text("local_path", path.as_deref(), LONG_CHARS_MAX)?;
    let link = context.store.link_project(on(&request, who, &machine), id, path)?;
    Ok(Response::json(201, &json!({ "link": link_row(id, &link) })))
}

/// PATCH /api/machines/{mid}/projects/{id}.
pub fn change(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = machine(&request)?;
    let id = request.param_id(1)?;
    let body: Body = request.json()?;
    let path = match &body.local_path {
        None => None,
        Some(path) => Some(text("local_path", path.as_deref(), LONG_CHARS_MAX)?),
    };
    let synced = body.last_synced_version.map(version).transpose()?;
    let link = context.store.change_link(on(&request, who, &machine), id, path, synced)?;
    Ok(Response::json(200, &json!({ "link": link_row(id, &link) })))
}

#[derive(Deserialize)]
struct Mark {
    active: Option<bool>,
}

/// PATCH /api/machines/{mid}/profiles/{id}.
pub fn mark_profile(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = machine(&request)?;
    let id = request.param_id(1)?;
    let active = request.json::<Mark>()?.active;
    let active = active.ok_or_else(|| ApiError::malformed("active is needed"))?;
    context.store.set_profile_active(on(&request, who, &machine), id, active)?;
    let link = json!({ "profile_id": id, "machine_id": machine.as_str(), "active": active });
    Ok(Response::json(200, &json!({ "link": link })))
}

#[derive(Deserialize)]
struct Plan {
    machine_id: String,
    entities: Vec<Local>,
}

#[derive(Deserialize)]
struct Local {
    #[serde(rename = "type")]
    kind: String,
    id: i64,
    #[serde(default)]
    local_version: i64,
}

/// POST /api/sync/plan: what each project of a machine needs. Hashes are never looked at: the
/// client's are of blobs that hold the time they were made.
pub fn plan(context: &Context, request: Request, who: &Bearer) -> Answer {
    let body: Plan = request.json()?;
    let machine = MachineId::parse(&body.machine_id).map_err(ApiError::malformed)?;
    let ids: Vec<i64> = body.entities.iter().map(|entity| entity.id).collect();
    let states = context.store.sync_state(on(&request, who, &machine), &ids)?;
    let actions: Vec<Value> = body
        .entities
        .iter()
        .zip(states)
        .map(|(local, state)| match state.filter(|_| local.kind == "project") {
            Some((current, synced)) => json!({
                "type": local.kind,
                "id": local.id,
                "action": action(local.local_version, synced, current),
                "current_version": current,
                "last_synced_version": synced,
            }),
            None => json!({
                "type": local.kind,
                "id": local.id,
                "action": "error",
                "error": "not found",
                "current_version": 0,
            }),
        })
        .collect();
    Ok(Response::json(200, &json!({ "actions": actions })))
}

/// What a machine does that has version `local`, last synced `synced`, of a project at `current`.
fn action(local: i64, synced: i64, current: i64) -> &'static str {
    let (edited, behind) = (local > synced, current > synced);
    match (edited, behind) {
        (true, true) => "conflict",
        (true, false) => "push",
        (false, true) if local == synced => "pull",
        (false, _) if local < synced && current > local => "pull",
        _ => "noop",
    }
}

#[derive(Deserialize)]
struct Commit {
    machine_id: String,
    updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    entity_type: String,
    entity_id: i64,
    new_last_synced_version: i64,
}

/// POST /api/sync/commit.
pub fn commit(context: &Context, request: Request, who: &Bearer) -> Answer {
    let body: Commit = request.json()?;
    let machine = MachineId::parse(&body.machine_id).map_err(ApiError::malformed)?;
    let projects = body.updates.iter().filter(|update| update.entity_type == "project");
    let updates: Result<Vec<_>, ApiError> =
        projects.map(|u| Ok((u.entity_id, version(u.new_last_synced_version)?))).collect();
    context.store.commit_sync(on(&request, who, &machine), &updates?)?;
    done(200)
}

fn version(number: i64) -> Result<i64, ApiError> {
    match number >= 0 {
        true => Ok(number),
        false => Err(ApiError::malformed("a version is 0 or more")),
    }
}

fn link_row(project_id: i64, link: &Link) -> Value {
    json!({
        "project_id": project_id,
        "local_path": link.local_path,
        "last_synced_version": link.last_synced_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_follows_the_three_versions() {
        for (local, synced, current, expected) in [
            (1, 1, 1, "noop"),
            (0, 0, 0, "noop"),
            (1, 1, 2, "pull"),
            (2, 1, 1, "push"),
            (2, 1, 2, "conflict"),
            (1, 2, 3, "pull"),
            (1, 2, 2, "pull"),
            (1, 2, 1, "noop"),
        ] {
            assert_eq!(action(local, synced, current), expected, "{local} {synced} {current}");
        }
    }
}
