//! POST and GET /api/machines/snapshot.

use super::Answer;
use crate::context::Context;
use crate::http::response::row_with_file_len;
use crate::http::{ApiError, Body, Request, Response};
use crate::store::audit::Event;
use crate::store::snapshots::{About, Rules, Selector};
use crate::store::{Caller, Upload};

/// The member of a JSON push that holds the state.
pub const STATE: &str = "encrypted_state";
/// The member that clients send in clear and that is dropped unread.
pub const METADATA: &str = "metadata";

/// Stores a snapshot.
pub fn push(context: &Context, mut request: Request, who: &Caller) -> Answer {
    let rules = Rules::Strict(request.condition()?);
    let about = match request.body {
        Body::JsonFile { .. } => request.json()?,
        _ => from_query(&request)?,
    };
    let machine = about.machine_id.as_ref();
    let machine = machine.ok_or_else(|| ApiError::malformed("machine_id is needed"))?;
    let upload = uploaded(&mut request)?;
    let (snapshot, stored) = context.store.push(who, machine, &about, &rules, upload)?;
    context.metrics.pushes.add(stored.into());
    Ok(Response::row(if stored { 201 } else { 200 }, "snapshot", &snapshot.row))
}

/// What a raw push says beside its bytes.
fn from_query(request: &Request) -> Result<About, ApiError> {
    let mut about = About::default();
    about.machine_id = request.query.parsed("machine_id")?;
    about.version = request.query.parsed("version")?;
    about.message = request.query.parsed("message")?;
    about.timestamp = request.query.parsed("timestamp")?;
    Ok(about)
}

/// The file that came with a request; an empty one is none.
pub fn uploaded(request: &mut Request) -> Result<Upload, ApiError> {
    match std::mem::take(&mut request.body) {
        Body::File(upload) | Body::JsonFile { upload, .. } if !upload.is_empty() => Ok(upload),
        _ => Err(ApiError::malformed("the encrypted bytes are missing or empty")),
    }
}

/// GET /api/machines/snapshot.
pub fn pull(context: &Context, request: Request, who: &Caller) -> Answer {
    let (id, machine) = (request.query.id("id")?, request.query.parsed("machine_id")?);
    send(context, &request, who, &Selector { id, machine, before: None })
}

/// Sends a snapshot: as JSON with base64, or, asked for by `Accept`, the bytes themselves.
pub fn send(context: &Context, request: &Request, who: &Caller, which: &Selector) -> Answer {
    let snapshot = context.store.snapshot(who.id, which)?;
    let (size, digest) = (snapshot.blob.size, snapshot.blob.digest.to_string());
    let etag = format!("\"{digest}\"");
    if request.has_already(&digest)? {
        let length = match request.wants_bytes {
            true => size,
            false => row_with_file_len(&snapshot.row, STATE, size),
        };
        return Ok(Response::not_modified(length).with("ETag", etag));
    }
    let file = context.store.open_snapshot(&snapshot)?;
    if !request.head {
        let event = Event::of(who, "snapshot.pull").machine(&snapshot.machine_id);
        context.store.audit_later(event.subject(snapshot.id));
        context.metrics.pulls.add(1);
    }
    let response = match request.wants_bytes {
        true => Response::file(file, size)
            .with("X-Snapshot-Id", snapshot.id.to_string())
            .with("X-Machine-Id", snapshot.machine_id),
        false => Response::row_with_file(&snapshot.row, STATE, file, size),
    };
    Ok(response.with("ETag", etag))
}
