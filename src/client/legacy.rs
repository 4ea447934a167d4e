//! The older dialect: whole-machine snapshots, actions, and what a login asks.

use serde_json::json;

use crate::api::Answer;
use crate::api::snapshots::{send, uploaded};
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::store::Caller;
use crate::store::snapshots::{About, Rules, Selector};
use crate::types::MachineId;

/// GET /api/auth/verify: only the status is read.
pub fn verify(_context: &Context, _request: Request, who: &Caller) -> Answer {
    let body = json!({ "valid": true, "user_id": who.id, "email": who.email });
    Ok(Response::json(200, &body))
}

/// POST /api/auth/register: there is no sign-up.
pub fn closed(_context: &Context, _request: Request) -> Answer {
    Err(ApiError::new(
        403,
        "registration_closed",
        "there is no sign-up on this server: its operator adds users with \
         `configsync-server user add EMAIL` and tokens with `configsync-server token create`",
    ))
}

/// GET /api/usage.
pub fn usage(context: &Context, _request: Request, who: &Caller) -> Answer {
    let (stored_bytes, quota_bytes) = context.store.usage(who.id)?;
    let snapshots = context.store.snapshot_count(who.id)?;
    let body =
        json!({ "stored_bytes": stored_bytes, "snapshots": snapshots, "quota_bytes": quota_bytes });
    Ok(Response::json(200, &body))
}

/// GET /api/auth/keypair.
pub fn keypair(context: &Context, _request: Request, who: &Caller) -> Answer {
    Ok(Response::text(200, context.store.keypair(who.id)?))
}

/// POST /api/auth/keypair: the first one stays.
pub fn add_keypair(context: &Context, request: Request, who: &Caller) -> Answer {
    context.store.add_keypair(who, &request.json()?)?;
    Ok(Response::done(201))
}

/// POST /api/machines/register: as POST /api/machines, but 200 also the first time.
pub fn register(context: &Context, request: Request, who: &Caller) -> Answer {
    let (row, _) = context.store.register_machine(who, &request.json()?)?;
    Ok(Response::row(200, "machine", &row))
}

/// DELETE /api/machines/{mid}: hides it; its snapshots stay.
pub fn remove_machine(context: &Context, request: Request, who: &Caller) -> Answer {
    context.store.hide_machine(who, &request.param_as(0)?)?;
    Ok(Response::done(200))
}

/// POST /api/machines/{mid}/push: always a new snapshot, also from an unknown machine.
pub fn push(context: &Context, mut request: Request, who: &Caller) -> Answer {
    let machine: MachineId = request.param_as(0)?;
    let about: About = request.json()?;
    if about.machine_id.as_ref().is_some_and(|id| *id != machine) {
        return Err(ApiError::malformed("machine_id differs from the one in the path"));
    }
    let upload = uploaded(&mut request)?;
    let (snapshot, _) = context.store.push(who, &machine, &about, &Rules::Always, upload)?;
    context.metrics.pushes.add(1);
    Ok(Response::json(200, &json!({ "success": true, "snapshot_id": snapshot.id })))
}

/// GET /api/machines/latest.
pub fn latest(context: &Context, request: Request, who: &Caller) -> Answer {
    let machine = request.query.parsed("machine_id")?;
    send(context, &request, who, &Selector { machine, ..Selector::default() })
}

/// GET /api/machines/snapshot/{id}.
pub fn snapshot(context: &Context, request: Request, who: &Caller) -> Answer {
    let id = Some(request.param_id(0)?);
    send(context, &request, who, &Selector { id, ..Selector::default() })
}

/// GET /api/machines/{mid}/actions. HEAD delivers nothing.
pub fn actions(context: &Context, request: Request, who: &Caller) -> Answer {
    let actions = context.store.actions(who.id, &request.param_as(0)?, !request.head)?;
    Ok(Response::rows("actions", &actions))
}

/// DELETE /api/machines/{mid}/actions: those that the last GET delivered.
pub fn clear_actions(context: &Context, request: Request, who: &Caller) -> Answer {
    context.store.clear_actions(who.id, &request.param_as(0)?)?;
    Ok(Response::done(200))
}

/// GET /api/machines/{mid}/configs and /modules: no command reads them.
pub fn no_configs(_context: &Context, _request: Request, _who: &Caller) -> Answer {
    Ok(Response::rows("configs", &[]))
}

/// As [`no_configs`].
pub fn no_modules(_context: &Context, _request: Request, _who: &Caller) -> Answer {
    Ok(Response::rows("modules", &[]))
}
