//! POST and GET /api/machines/snapshot, and GET /api/machines/history.

use serde_json::json;

use crate::app::negotiation::wants_bytes;
use crate::app::{App, Error, HandlerResult, Request, Response};
use crate::store::audit::Event;
use crate::store::snapshots::{PushBody, PushMode, Selector, Snapshot};
use crate::store::{RowSink, StoreError, Upload, User};
use crate::util::limits::{HISTORY_PAGE_ROWS, HISTORY_PAGE_ROWS_MAX, PULL_SELECTIONS_MAX};
use crate::util::types::are_digits;

/// The member of a JSON push that holds the state.
pub const STATE: &str = "encrypted_state";
/// The member that clients send in clear; it is dropped unread.
pub const METADATA: &str = "metadata";

/// Stores a snapshot.
pub fn push(app: &App, request: &Request, user: &User, upload: Upload) -> HandlerResult {
    let mode = PushMode::Idempotent(request.condition()?);
    let body = if request.body.is_empty() { from_query(request)? } else { request.json()? };
    let machine = body.machine_id.as_ref();
    let machine = machine.ok_or_else(|| Error::malformed("machine_id is needed"))?;
    let (snapshot, stored) = app.store.push(user, machine, &body, &mode, upload)?;
    app.metrics.pushes.add(stored.into());
    Ok(Response::row(if stored { 201 } else { 200 }, "snapshot", &snapshot.row))
}

/// The fields of a raw push, which are in its query.
fn from_query(request: &Request) -> Result<PushBody, Error> {
    Ok(PushBody {
        machine_id: request.query.parsed("machine_id")?,
        version: request.query.parsed("version")?,
        message: request.query.parsed("message")?,
        timestamp: request.query.parsed("timestamp")?,
    })
}

/// GET /api/machines/snapshot, and the routes of the released command line: /api/machines/latest
/// and /api/machines/snapshot/{id}. The response is JSON with the state in base64, or the raw bytes
/// where `Accept` asks for them.
pub fn pull(app: &App, request: &Request, user: &User) -> HandlerResult {
    let id = match request.params.is_empty() {
        true => request.query.id("id")?,
        // That client shows only the status line: a malformed id gets the 404 of an unknown one.
        false => Some(request.param_id(0).map_err(|_| StoreError::no_snapshot())?),
    };
    let which = Selector { id, machine: request.query.parsed("machine_id")?, before: None };
    for _ in 1..PULL_SELECTIONS_MAX {
        match send(app, request, user, app.store.snapshot(user.id, &which)?) {
            // With `--keep`, a push may delete the newest after it was selected: there is a newer.
            Err(error) if error.code == "no_snapshot" && id.is_none() => {}
            pulled => return pulled,
        }
    }
    send(app, request, user, app.store.snapshot(user.id, &which)?)
}

/// The response to a pull of this snapshot.
fn send(app: &App, request: &Request, user: &User, snapshot: Snapshot) -> HandlerResult {
    let (size, digest) = (snapshot.blob.size, snapshot.blob.digest.to_string());
    let as_bytes = request.accept.as_deref().is_some_and(wants_bytes);
    // The raw bytes have a strong ETag. The JSON has a weak one, since it contains the machine's
    // name, which may change (RFC 9110, section 8.8.1).
    let etag = format!("{}\"{digest}\"", if as_bytes { "" } else { "W/" });
    let condition = request.condition()?;
    if condition.one_of.is_some_and(|digests| !digests.matches(&digest)) {
        let other = "the snapshot is not the one in If-Match: pull without it to see which it is";
        return Err(Error::new(412, "precondition_failed", other));
    }
    if condition.none_of.is_some_and(|digests| digests.matches(&digest)) {
        return Ok(Response::empty(304).with("ETag", etag));
    }
    let file = app.store.open_snapshot(&snapshot)?;
    if !request.head {
        let event = Event::of(user, "snapshot.pull").machine(&snapshot.machine_id);
        app.store.audit_later(event.subject(snapshot.id));
        app.metrics.pulls.add(1);
    }
    let response = match as_bytes {
        true => Response::file(file, size)
            .with("X-Snapshot-Id", snapshot.id.to_string())
            .with("X-Machine-Id", snapshot.machine_id),
        false => Response::row_with_file(&snapshot.row, STATE, file, size),
    };
    Ok(response.with("ETag", etag))
}

/// GET /api/machines/history: one page of the user's snapshots, newest first.
pub fn history(app: &App, request: &Request, user: &User) -> HandlerResult {
    let limit = request.query.one("limit")?.map_or(Ok(HISTORY_PAGE_ROWS), limit)?;
    let (machine, before) = (request.query.parsed("machine_id")?, request.query.id("before")?);
    let which = Selector { id: None, machine, before };
    let (rows, next) = app.store.history(user.id, &which, limit)?;
    let list = |sink: RowSink<'_>| rows.iter().try_for_each(|row| sink(row));
    app.rows_and(user, "snapshots", list, &format!(",\"next_before\":{}", json!(next)))
}

/// Parses a limit of at least 1; larger values, even those that overflow, are capped at a page.
fn limit(text: &str) -> Result<usize, Error> {
    let rows = if are_digits(text) { text.parse().unwrap_or(usize::MAX) } else { 0 };
    match rows {
        0 => Err(Error::malformed("limit must be a whole number of at least 1")),
        rows => Ok(rows.min(HISTORY_PAGE_ROWS_MAX)),
    }
}
