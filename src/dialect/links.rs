//! Which projects and profiles a machine has, and the sync protocol over them.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::check_entries;
use crate::app::{App, Error, HandlerResult, Request, Response};
use crate::store::User;
use crate::store::links::UserMachine;
use crate::util::types::{Long, MachineId, Short};

/// GET /api/machines/{mid}/projects: each project merged with its link.
pub fn list(app: &App, request: &Request, user: &User) -> HandlerResult {
    let on = &on(request, user)?;
    app.rows(user, "projects", |rows| app.store.linked_projects(on, rows))
}

#[derive(Deserialize)]
struct New {
    project_id: i64,
    local_path: Option<Long>,
}

/// POST /api/machines/{mid}/projects.
pub fn add(app: &App, request: &Request, user: &User) -> HandlerResult {
    let on = on(request, user)?;
    let New { project_id, local_path } = request.json()?;
    let row = app.store.link_project(&on, project_id, local_path.as_deref())?;
    Ok(Response::row(201, "link", &row))
}

#[derive(Deserialize)]
struct Change {
    /// None: absent. Some(None): null.
    #[serde(default, deserialize_with = "present")]
    local_path: Option<Option<Long>>,
    last_synced_version: Option<u32>,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Long>>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// PATCH /api/machines/{mid}/projects/{id}.
pub fn change(app: &App, request: &Request, user: &User) -> HandlerResult {
    let (on, id) = (on(request, user)?, request.param_id(1)?);
    let Change { local_path, last_synced_version } = request.json()?;
    let path = local_path.as_ref().map(Option::as_deref);
    let row = app.store.change_link(&on, id, path, last_synced_version.map(i64::from))?;
    Ok(Response::row(200, "link", &row))
}

#[derive(Deserialize)]
struct Mark {
    active: bool,
}

/// PATCH /api/machines/{mid}/profiles/{id}.
pub fn mark_profile(app: &App, request: &Request, user: &User) -> HandlerResult {
    let (on, id) = (on(request, user)?, request.param_id(1)?);
    let Mark { active } = request.json()?;
    app.store.set_profile_active(&on, id, active)?;
    let link = json!({ "profile_id": id, "machine_id": &*on.machine, "active": active });
    Ok(Response::json(200, json!({ "link": link })))
}

fn on<'a>(request: &Request, user: &'a User) -> Result<UserMachine<'a>, Error> {
    Ok(UserMachine { user, machine: request.param_as(0)? })
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

/// POST /api/sync/plan: what each project of a machine needs. Hashes are never looked at: the
/// client's are of blobs that hold the time they were made.
pub fn plan(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Plan { machine_id: machine, entities } = request.json()?;
    check_entries("entities", entities.len())?;
    let on = &UserMachine { user, machine };
    app.rows(user, "actions", |rows| {
        let mut locals = entities.iter();
        app.store.sync_states(on, entities.iter().map(|local| local.id), |state| {
            let Some(local) = locals.next() else { return Ok(()) };
            rows(&step(local, state).to_string())
        })
    })
}

/// What a plan says of one entity; `state` is its current version and the one synced last.
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

/// What a machine does that has version `local`, last synced `synced`, of a project at `current`.
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
    updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    entity_type: Short,
    entity_id: i64,
    new_last_synced_version: u32,
}

/// POST /api/sync/commit.
pub fn commit(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Commit { machine_id: machine, updates } = request.json()?;
    check_entries("updates", updates.len())?;
    let projects = updates.iter().filter(|update| &*update.entity_type == "project");
    let synced = projects.map(|update| (update.entity_id, update.new_last_synced_version));
    app.store.commit_sync(&UserMachine { user, machine }, synced)?;
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
