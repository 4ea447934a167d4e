//! GET /healthz.

use serde_json::json;

use crate::app::{App, HandlerResult, Request, Response};

/// Returns 200 while the store can accept pushes and serve pulls.
pub fn healthz(app: &App, _request: &Request) -> HandlerResult {
    Ok(match app.store.failing() {
        None => {
            Response::json(200, json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
        }
        Some(code) => Response::json(503, json!({ "status": "failing", "code": code })),
    })
}
