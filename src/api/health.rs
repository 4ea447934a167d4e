//! GET /healthz.

use serde_json::json;

use crate::app::App;
use crate::app::HandlerResult;
use crate::app::{Error, Request, Response};

/// 200 while the database answers and the data folder can be written.
pub fn healthz(app: &App, _request: &Request) -> HandlerResult {
    match app.store.healthy() {
        true => {
            let body = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
            Ok(Response::json(200, &body))
        }
        false => Err(Error::overloaded("the data folder cannot be read or written")),
    }
}
