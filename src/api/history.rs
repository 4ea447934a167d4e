//! GET /api/machines/history.

use serde_json::json;

use super::Answer;
use crate::context::Context;
use crate::http::response::array;
use crate::http::{ApiError, Request, Response};
use crate::limits::{HISTORY_PAGE_ROWS, HISTORY_PAGE_ROWS_MAX};
use crate::store::Caller;
use crate::store::snapshots::Selector;

/// A page of the user's snapshots, newest first.
pub fn history(context: &Context, request: Request, who: &Caller) -> Answer {
    let limit = request.query.one("limit")?.map_or(Ok(HISTORY_PAGE_ROWS), limit)?;
    let (machine, before) = (request.query.parsed("machine_id")?, request.query.id("before")?);
    let which = Selector { id: None, machine, before };
    let (rows, next) = context.store.history(who.id, &which, limit)?;
    let body = format!("{{\"snapshots\":{},\"next_before\":{}}}", array(&rows), json!(next));
    Ok(Response::text(200, body))
}

/// At least 1; more than a page counts as a page, also a number too large to hold.
fn limit(text: &str) -> Result<usize, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(rows) if digits && rows > 0 => Ok(rows.min(HISTORY_PAGE_ROWS_MAX)),
        Err(_) if digits => Ok(HISTORY_PAGE_ROWS_MAX),
        _ => Err(ApiError::malformed("limit must be a whole number of at least 1")),
    }
}
