//! GET /healthz.

use serde_json::json;

use crate::app::{App, HandlerResult, Request, Response};
use crate::store::Health;

/// 200 while pushes would be taken and pulls be served.
pub fn healthz(app: &App, _request: &Request) -> HandlerResult {
    let code = match app.store.health() {
        Health::Good => {
            let body = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
            return Ok(Response::json(200, body));
        }
        Health::Database => "database",
        Health::DiskFull => "disk_full",
        Health::DataFolder => "data_folder",
    };
    Ok(Response::json(503, json!({ "status": "failing", "code": code })))
}
