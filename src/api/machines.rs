//! GET and POST /api/machines.

use serde_json::json;

use crate::app::App;
use crate::app::HandlerResult;
use crate::app::{Request, Response};
use crate::store::{RowSink, User};

/// Registers a machine or updates it.
pub fn register(app: &App, request: &Request, who: &User) -> HandlerResult {
    let (row, new) = app.store.register_machine(who, &request.json()?)?;
    Ok(Response::row(if new { 201 } else { 200 }, "machine", &row))
}

/// The user's machines.
pub fn list(app: &App, _request: &Request, who: &User) -> HandlerResult {
    let user = json!({ "id": who.id, "email": who.email });
    let list = |rows: RowSink<'_>| app.store.machines(who.id, rows);
    app.rows_and(who, "machines", list, &format!(",\"user\":{user}"))
}
