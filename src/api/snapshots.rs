//! POST and GET /api/machines/snapshot.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::json;

use super::{Answer, needed, short};
use crate::context::Context;
use crate::http::response::json_with_file_len;
use crate::http::{ApiError, Body, Request, Response};
use crate::limits::MESSAGE_CHARS_MAX;
use crate::store::Upload;
use crate::store::audit::Event;
use crate::store::snapshots::{Condition, Push, Selector};
use crate::store::tokens::Bearer;
use crate::types::MachineId;

/// The member of a JSON push that holds the state.
pub const STATE: &str = "encrypted_state";
/// The member that clients send in clear and that is dropped unread.
pub const METADATA: &str = "metadata";

/// What a push says beside its bytes: JSON members, or query parameters of a raw one.
#[derive(Deserialize)]
pub struct About {
    /// The machine; the older route has it in the path too.
    pub machine_id: Option<String>,
    timestamp: Option<String>,
    version: Option<String>,
    message: Option<String>,
    // Both were taken out while the body arrived and left null behind; named here so that a
    // second one, also under an escaped name, is found to be a duplicate.
    #[serde(rename = "encrypted_state")]
    _state: Option<()>,
    #[serde(rename = "metadata")]
    _metadata: Option<()>,
}

/// Stores a snapshot.
pub fn push(context: &Context, mut request: Request, who: &Bearer) -> Answer {
    let condition = request.condition()?;
    let about = match request.body {
        Body::JsonFile { .. } => request.json()?,
        _ => About::from_query(&request)?,
    };
    let machine = needed("machine_id", about.machine_id.as_deref())?;
    let machine = MachineId::parse(machine).map_err(ApiError::malformed)?;
    let push = about.push(&machine, &condition, who, request.peer())?;
    let (snapshot, stored) = context.store.push(&push, uploaded(&mut request)?)?;
    let status = if stored { 201 } else { 200 };
    Ok(Response::json(status, &json!({ "snapshot": snapshot })))
}

/// The file that came with a request; an empty one is none.
pub fn uploaded(request: &mut Request) -> Result<Upload, ApiError> {
    match std::mem::take(&mut request.body) {
        Body::File(upload) | Body::JsonFile { upload, .. } if !upload.is_empty() => Ok(upload),
        _ => Err(ApiError::malformed("the encrypted bytes are missing or empty")),
    }
}

/// GET /api/machines/snapshot.
pub fn pull(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = request.query.machine("machine_id")?;
    send(context, &request, who, &Selector { id: request.query.id("id")?, machine })
}

/// Sends a snapshot: as JSON with base64, or, asked for by `Accept`, the bytes themselves.
pub fn send(context: &Context, request: &Request, who: &Bearer, which: &Selector) -> Answer {
    let snapshot = context.store.snapshot(who.user_id, which)?;
    let etag = format!("\"{}\"", snapshot.sha256);
    let size = snapshot.size_bytes;
    if request.has_already(&snapshot.sha256)? {
        let length = match request.wants_bytes {
            true => size,
            false => json_with_file_len(&snapshot, STATE, size),
        };
        return Ok(Response::not_modified(length).with("ETag", etag));
    }
    let file = context.store.open_snapshot(&snapshot)?;
    let response = match request.wants_bytes {
        true => Response::file(file, size)
            .with("X-Snapshot-Id", snapshot.id.to_string())
            .with("X-Machine-Id", snapshot.machine_id.as_str()),
        false => Response::json_with_file(&snapshot, STATE, file, size),
    };
    let event = Event::ok("snapshot.pull").user(who.user_id, &who.email).peer(request.peer());
    context.store.audit_later(event.machine(&snapshot.machine_id).subject(snapshot.id));
    Ok(response.with("ETag", etag))
}

impl About {
    /// The push that this describes; the six endpoints' rules.
    pub fn push<'a>(
        &'a self,
        machine: &'a MachineId,
        condition: &'a Condition,
        who: &'a Bearer,
        peer: IpAddr,
    ) -> Result<Push<'a>, ApiError> {
        Ok(Push {
            user: (who.user_id, &who.email),
            machine,
            version: short("version", self.version.as_deref())?.unwrap_or("1.0"),
            message: self.message.as_deref().map(message).transpose()?,
            timestamp: short("timestamp", self.timestamp.as_deref())?,
            condition,
            peer,
            retry: true,
            registers: false,
        })
    }

    fn from_query(request: &Request) -> Result<About, ApiError> {
        let one = |name| Ok::<_, ApiError>(request.query.one(name)?.map(str::to_owned));
        Ok(About {
            machine_id: one("machine_id")?,
            timestamp: one("timestamp")?,
            version: one("version")?,
            message: one("message")?,
            _state: None,
            _metadata: None,
        })
    }
}

/// A message may have lines; other control characters could act on the terminal that shows it.
fn message(text: &str) -> Result<&str, ApiError> {
    if text.chars().count() > MESSAGE_CHARS_MAX {
        let rule = format!("message may have at most {MESSAGE_CHARS_MAX} characters");
        return Err(ApiError::malformed(rule));
    }
    match text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        true => Err(ApiError::malformed("message may not contain control characters")),
        false => Ok(text),
    }
}
