//! Which projects and profiles a machine has, and the sync protocol over them.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::app::App;
use crate::app::HandlerResult;
use crate::app::{Request, Response};
use crate::store::User;
use crate::store::links::OnMachine;
use crate::util::types::{Long, MachineId};

/// GET /api/machines/{mid}/projects: each project merged with its link.
pub fn list(app: &App, request: &Request, who: &User) -> HandlerResult {
    let machine = &request.param_as(0)?;
    app.rows(who, "projects", |rows| app.store.linked_projects(OnMachine { who, machine }, rows))
}

#[derive(Deserialize)]
struct New {
    project_id: i64,
    local_path: Option<Long>,
}

/// POST /api/machines/{mid}/projects.
pub fn add(app: &App, request: &Request, who: &User) -> HandlerResult {
    let machine = &request.param_as(0)?;
    let New { project_id, local_path } = request.json()?;
    let on = OnMachine { who, machine };
    let row = app.store.link_project(on, project_id, local_path.as_deref())?;
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
pub fn change(app: &App, request: &Request, who: &User) -> HandlerResult {
    let machine = &request.param_as(0)?;
    let id = request.param_id(1)?;
    let body: Change = request.json()?;
    let path = body.local_path.as_ref().map(Option::as_deref);
    let synced = body.last_synced_version.map(i64::from);
    let row = app.store.change_link(OnMachine { who, machine }, id, path, synced)?;
    Ok(Response::row(200, "link", &row))
}

#[derive(Deserialize)]
struct Mark {
    active: bool,
}

/// PATCH /api/machines/{mid}/profiles/{id}.
pub fn mark_profile(app: &App, request: &Request, who: &User) -> HandlerResult {
    let machine = &request.param_as(0)?;
    let id = request.param_id(1)?;
    let Mark { active } = request.json()?;
    app.store.set_profile_active(OnMachine { who, machine }, id, active)?;
    let link = json!({ "profile_id": id, "machine_id": &**machine, "active": active });
    Ok(Response::json(200, &json!({ "link": link })))
}

#[derive(Deserialize)]
struct Plan {
    machine_id: MachineId,
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
pub fn plan(app: &App, request: &Request, who: &User) -> HandlerResult {
    let body: Plan = request.json()?;
    let ids: Vec<i64> = body.entities.iter().map(|entity| entity.id).collect();
    let states = app.store.sync_state(OnMachine { who, machine: &body.machine_id }, &ids)?;
    let rows = body.entities.iter().zip(states).map(|(local, state)| {
        let known = state.filter(|_| local.kind == "project");
        let Some((current, synced)) = known else { return unknown(local) };
        json!({
            "type": local.kind,
            "id": local.id,
            "action": action(local.local_version, synced, current),
            "current_version": current,
            "last_synced_version": synced,
        })
    });
    Ok(Response::json(200, &json!({ "actions": rows.collect::<Vec<_>>() })))
}

fn unknown(local: &Local) -> Value {
    json!({
        "type": local.kind,
        "id": local.id,
        "action": "error",
        "error": "not found",
        "current_version": 0,
    })
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
    entity_type: String,
    entity_id: i64,
    new_last_synced_version: u32,
}

/// POST /api/sync/commit.
pub fn commit(app: &App, request: &Request, who: &User) -> HandlerResult {
    let body: Commit = request.json()?;
    let projects = body.updates.iter().filter(|update| update.entity_type == "project");
    let updates: Vec<_> =
        projects.map(|u| (u.entity_id, i64::from(u.new_last_synced_version))).collect();
    app.store.commit_sync(OnMachine { who, machine: &body.machine_id }, &updates)?;
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
