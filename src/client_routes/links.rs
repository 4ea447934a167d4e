//! The projects and profiles of a machine, and the sync protocol over them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::check_entries;
use crate::app::{App, HandlerResult, Request, Response};
use crate::store::User;
use crate::store::entities::Target;
use crate::store::links::Synced;
use crate::util::types::{Long, MachineId, Short};

/// GET /api/machines/{mid}/projects: each project merged with its link.
pub fn list(app: &App, request: &Request, user: &User) -> HandlerResult {
    let machine = request.param_as(0)?;
    app.rows(user, "projects", |rows| app.store.linked_projects(user.id, &machine, rows))
}

#[derive(Deserialize)]
struct New {
    project_id: i64,
    local_path: Option<Long>,
}

/// POST /api/machines/{mid}/projects.
pub fn add(app: &App, request: &Request, user: &User) -> HandlerResult {
    let New { project_id: id, local_path } = request.json()?;
    let project = Target { user, kind: "project", id };
    let row = app.store.link_project(project, &request.param_as(0)?, local_path.as_ref())?;
    Ok(Response::row(201, "link", &row))
}

/// PATCH /api/machines/{mid}/projects/{id}.
pub fn change(app: &App, request: &Request, user: &User) -> HandlerResult {
    let project = Target { user, kind: "project", id: request.param_id(1)? };
    let row = app.store.change_link(project, &request.param_as(0)?, &request.json()?)?;
    Ok(Response::row(200, "link", &row))
}

#[derive(Deserialize)]
struct Mark {
    active: bool,
}

/// PATCH /api/machines/{mid}/profiles/{id}.
pub fn mark_profile(app: &App, request: &Request, user: &User) -> HandlerResult {
    let profile = Target { user, kind: "profile", id: request.param_id(1)? };
    let Mark { active } = request.json()?;
    app.store.set_profile_active(profile, &request.param_as(0)?, active)?;
    let link =
        json!({ "profile_id": profile.id, "machine_id": request.param(0), "active": active });
    Ok(Response::json(200, json!({ "link": link })))
}

#[derive(Deserialize)]
struct Plan {
    machine_id: MachineId,
    entities: Vec<Local>,
}

#[derive(Deserialize)]
struct Local {
    #[serde(rename = "type")]
    kind: Short,
    id: i64,
    #[serde(default)]
    local_version: i64,
}

/// POST /api/sync/plan: the action for each project of a machine. Hashes are ignored: the client
/// hashes blobs that contain their own creation time.
pub fn plan(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Plan { machine_id, entities } = request.json()?;
    check_entries("entities", entities.len())?;
    app.rows(user, "actions", |rows| {
        entities.iter().try_for_each(|local| {
            let state = app.store.sync_state(user.id, &machine_id, local.id)?;
            rows(&step(local, state).to_string())
        })
    })
}

/// The entry of a plan for one entity; `state` is its current and its last synced version.
fn step(Local { kind, id, local_version }: &Local, state: Option<(i64, i64)>) -> Value {
    let kind: &str = kind;
    match state {
        Some((current, synced)) if kind == "project" => json!({
            "type": kind, "id": id, "action": action(*local_version, synced, current),
            "current_version": current, "last_synced_version": synced,
        }),
        _ => json!({
            "type": kind, "id": id, "action": "error", "current_version": 0, "error": "not found",
        }),
    }
}

/// The action for a machine at version `local`, last synced at `synced`, of a project at `current`.
fn action(local: i64, synced: i64, current: i64) -> &'static str {
    let edited = local > synced;
    match (edited, current > synced) {
        (true, true) => "conflict",
        (true, false) => "push",
        (false, _) if current > local => "pull",
        (false, _) => "noop",
    }
}

#[derive(Deserialize)]
struct Commit {
    machine_id: MachineId,
    updates: Vec<Synced>,
}

/// POST /api/sync/commit.
pub fn commit(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Commit { machine_id, updates } = request.json()?;
    check_entries("updates", updates.len())?;
    app.store.commit_sync(user, &machine_id, &updates)?;
    Ok(Response::done(200))
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
