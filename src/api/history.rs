//! GET /api/machines/history.

use serde_json::json;

use super::Answer;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::{HISTORY_PAGE_ROWS, HISTORY_PAGE_ROWS_MAX};
use crate::store::snapshots::Page;
use crate::store::tokens::Bearer;

/// A page of the user's snapshots, newest first.
pub fn history(context: &Context, request: Request, who: &Bearer) -> Answer {
    let limit = match request.query.one("limit")? {
        None => HISTORY_PAGE_ROWS,
        Some(text) => limit(text)?,
    };
    let page = Page {
        machine: request.query.machine("machine_id")?,
        before: request.query.id("before")?,
        limit,
    };
    let (snapshots, next_before) = context.store.history(who.user_id, &page)?;
    let body = json!({ "snapshots": snapshots, "next_before": next_before });
    Ok(Response::json(200, &body))
}

/// At least 1; more than a page counts as a page, also a number too large to hold.
fn limit(text: &str) -> Result<u64, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(rows) if digits && rows > 0 => Ok(rows.min(HISTORY_PAGE_ROWS_MAX)),
        Err(_) if digits => Ok(HISTORY_PAGE_ROWS_MAX),
        _ => Err(ApiError::malformed("limit must be a whole number of at least 1")),
    }
}
