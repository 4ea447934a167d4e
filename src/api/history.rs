//! GET /api/machines/history.

use serde_json::json;

use crate::app::{App, Error, HandlerResult, Request};
use crate::store::snapshots::Selector;
use crate::store::{RowSink, User};
use crate::util::limits::{HISTORY_PAGE_ROWS, HISTORY_PAGE_ROWS_MAX};
use crate::util::types::are_digits;

/// A page of the user's snapshots, newest first.
pub fn history(app: &App, request: &Request, user: &User) -> HandlerResult {
    let limit = request.query.one("limit")?.map_or(Ok(HISTORY_PAGE_ROWS), limit)?;
    let (machine, before) = (request.query.parsed("machine_id")?, request.query.id("before")?);
    let which = Selector { id: None, machine, before };
    let (snapshots, next) = app.store.history(user.id, &which, limit)?;
    let list = |sink: RowSink<'_>| snapshots.iter().try_for_each(|one| sink(&one.row));
    app.rows_and(user, "snapshots", list, &format!(",\"next_before\":{}", json!(next)))
}

/// At least 1; more than a page counts as a page, also a number too large to hold.
fn limit(text: &str) -> Result<usize, Error> {
    let rows = if are_digits(text) { text.parse().unwrap_or(usize::MAX) } else { 0 };
    match rows {
        0 => Err(Error::malformed("limit must be a whole number of at least 1")),
        rows => Ok(rows.min(HISTORY_PAGE_ROWS_MAX)),
    }
}
