//! GET /api/usage.

use serde_json::json;

use crate::app::{App, HandlerResult, Request, Response};
use crate::store::User;

/// Returns the user's stored bytes, quota and number of snapshots.
pub fn usage(app: &App, _request: &Request, user: &User) -> HandlerResult {
    let (stored_bytes, quota_bytes, snapshots) = app.store.usage(user.id)?;
    let body =
        json!({ "stored_bytes": stored_bytes, "quota_bytes": quota_bytes, "snapshots": snapshots });
    Ok(Response::json(200, body))
}
