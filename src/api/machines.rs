//! GET and POST /api/machines.

use serde_json::json;

use super::Answer;
use crate::context::Context;
use crate::http::response::array;
use crate::http::{Request, Response};
use crate::store::Caller;

/// Registers a machine or updates it.
pub fn register(context: &Context, request: Request, who: &Caller) -> Answer {
    let (row, new) = context.store.register_machine(who, &request.json()?)?;
    Ok(Response::row(if new { 201 } else { 200 }, "machine", &row))
}

/// The user's machines.
pub fn list(context: &Context, _request: Request, who: &Caller) -> Answer {
    let machines = array(&context.store.machines(who.id, false)?);
    let user = json!({ "id": who.id, "email": who.email });
    Ok(Response::text(200, format!("{{\"machines\":{machines},\"user\":{user}}}")))
}
