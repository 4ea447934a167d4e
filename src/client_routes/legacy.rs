//! The routes of the older released command line: whole-machine snapshots, environments, actions,
//! and the requests of its login.

use serde::Deserialize;
use serde_json::json;

use super::check_entries;
use crate::app::{App, Error, HandlerResult, Request, Response};
use crate::store::environments::EnvironmentBody;
use crate::store::snapshots::{PushBody, PushMode};
use crate::store::{Upload, User};
use crate::util::types::MachineId;

/// GET /api/auth/verify: clients read only the status.
pub fn verify(_app: &App, _request: &Request, user: &User) -> HandlerResult {
    let body = json!({ "valid": true, "user_id": user.id, "email": user.email });
    Ok(Response::json(200, body))
}

/// POST /api/auth/register: there is no sign-up.
pub fn closed(_app: &App, _request: &Request) -> HandlerResult {
    Err(Error::new(
        403,
        "registration_closed",
        "there is no sign-up on this server: its operator adds users with \
         `configsync-server user add EMAIL` and tokens with `configsync-server token create`",
    ))
}

/// GET /api/auth/keypair.
pub fn keypair(app: &App, _request: &Request, user: &User) -> HandlerResult {
    Ok(Response::json(200, app.store.keypair(user.id)?))
}

/// POST /api/auth/keypair: a different keypair never replaces the first one.
pub fn add_keypair(app: &App, request: &Request, user: &User) -> HandlerResult {
    app.store.add_keypair(user, &request.json()?)?;
    Ok(Response::done(201))
}

/// POST /api/machines/register: like POST /api/machines, but 200 even for a new machine.
pub fn register(app: &App, request: &Request, user: &User) -> HandlerResult {
    let (row, _) = app.store.register_machine(user, &request.json()?)?;
    Ok(Response::row(200, "machine", &row))
}

/// DELETE /api/machines/{mid}: hides the machine; its snapshots stay.
pub fn remove_machine(app: &App, request: &Request, user: &User) -> HandlerResult {
    app.store.hide_machine(user, &request.param_as(0)?)?;
    Ok(Response::done(200))
}

/// POST /api/machines/{mid}/push: always stores a new snapshot, even for an unknown machine.
pub fn push(app: &App, request: &Request, user: &User, upload: Upload) -> HandlerResult {
    let machine: MachineId = request.param_as(0)?;
    let body: PushBody = request.json()?;
    if body.machine_id.as_ref().is_some_and(|id| *id != machine) {
        return Err(Error::malformed("machine_id differs from the one in the path"));
    }
    let (snapshot, _) = app.store.push(user, &machine, &body, &PushMode::Append, upload)?;
    app.metrics.pushes.add(1);
    Ok(Response::json(200, json!({ "success": true, "snapshot_id": snapshot.id })))
}

/// GET /api/environments.
pub fn list_environments(app: &App, _request: &Request, user: &User) -> HandlerResult {
    app.rows(user, "environments", |rows| app.store.environments(user.id, rows))
}

#[derive(Deserialize)]
struct Environments {
    environments: Vec<EnvironmentBody>,
    #[serde(default)]
    delete_missing: bool,
}

/// PUT /api/environments/sync.
pub fn sync_environments(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Environments { environments, delete_missing } = request.json()?;
    check_entries("environments", environments.len())?;
    app.store.sync_environments(user, &environments, delete_missing)?;
    list_environments(app, request, user)
}

/// Lists of a machine that clients request and that are always empty: nothing on this server queues
/// actions, and no command of the client reads the other two.
pub const EMPTY_LISTS: [&str; 3] = ["actions", "configs", "modules"];

/// GET /api/machines/{mid}/{empty}.
pub fn empty_list(_app: &App, request: &Request, _user: &User) -> HandlerResult {
    Ok(Response::row(200, request.param(1), "[]"))
}

/// DELETE /api/machines/{mid}/actions, which a client sends after it applied its actions.
pub fn clear_actions(_app: &App, _request: &Request, _user: &User) -> HandlerResult {
    Ok(Response::done(200))
}
