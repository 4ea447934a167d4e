//! GET and POST /api/machines.

use serde::Deserialize;
use serde_json::json;

use super::{Answer, needed, short};
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::NAME_CHARS_MAX;
use crate::store::machines::{Machine, Registration};
use crate::store::tokens::Bearer;
use crate::types::{MachineId, checked_name};

#[derive(Deserialize)]
struct Body {
    machine_id: Option<String>,
    name: Option<String>,
    platform: Option<String>,
    arch: Option<String>,
    cli_version: Option<String>,
}

/// Registers a machine or updates it.
pub fn register(context: &Context, request: Request, who: &Bearer) -> Answer {
    let Registered { machine, new } = registered(context, &request, who)?;
    Ok(Response::json(if new { 201 } else { 200 }, &json!({ "machine": machine })))
}

/// A machine after its registration.
pub struct Registered {
    /// Its row.
    pub machine: Machine,
    /// It was unknown before.
    pub new: bool,
}

/// Does what [`register`] answers.
pub fn registered(
    context: &Context,
    request: &Request,
    who: &Bearer,
) -> Result<Registered, ApiError> {
    let body: Body = request.json()?;
    let machine_id = needed("machine_id", body.machine_id.as_deref())?;
    let machine_id = MachineId::parse(machine_id).map_err(ApiError::malformed)?;
    let name = needed("name", body.name.as_deref())?;
    let registration = Registration {
        machine_id: &machine_id,
        name: Some(checked_name("name", name, NAME_CHARS_MAX).map_err(ApiError::malformed)?),
        platform: short("platform", body.platform.as_deref())?,
        arch: short("arch", body.arch.as_deref())?,
        cli_version: short("cli_version", body.cli_version.as_deref())?,
    };
    let user = (who.user_id, who.email.as_str());
    let (machine, new) = context.store.register_machine(user, &registration, request.peer())?;
    Ok(Registered { machine, new })
}

/// The user's machines.
pub fn list(context: &Context, _request: Request, who: &Bearer) -> Answer {
    let machines = context.store.machines(who.user_id)?;
    let user = json!({ "id": who.user_id, "email": who.email });
    Ok(Response::json(200, &json!({ "machines": machines, "user": user })))
}
