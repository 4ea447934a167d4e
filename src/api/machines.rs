//! GET and POST /api/machines.

use serde_json::json;

use crate::app::{App, HandlerResult, Request, Response};
use crate::store::{RowSink, User};

/// Registers or updates a machine.
pub fn register(app: &App, request: &Request, user: &User) -> HandlerResult {
    let (row, new) = app.store.register_machine(user, &request.json()?)?;
    Ok(Response::row(if new { 201 } else { 200 }, "machine", &row))
}

/// Lists the user's machines.
pub fn list(app: &App, _request: &Request, user: &User) -> HandlerResult {
    let owner = json!({ "id": user.id, "email": user.email });
    let list = |rows: RowSink<'_>| app.store.machines(user.id, rows);
    app.rows_and(user, "machines", list, &format!(",\"user\":{owner}"))
}
