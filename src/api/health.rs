//! GET /healthz.

use serde_json::json;

use super::Answer;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};

/// 200 while the database answers and the data folder can be written.
pub fn healthz(context: &Context, _request: Request) -> Answer {
    match context.store.healthy() {
        true => {
            let body = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
            Ok(Response::json(200, &body))
        }
        false => Err(ApiError::overloaded("the data folder cannot be read or written")),
    }
}
