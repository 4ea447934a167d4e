//! The routes that the released ConfigSync command line calls, on the same store as the six
//! endpoints.

pub mod entities;
pub mod environments;
pub mod legacy;
pub mod links;
pub mod variables;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::api::Answer;
use crate::http::{ApiError, Request, Response};
use crate::limits::KEY_CHARS_MAX;
use crate::store::links::OnMachine;
use crate::store::tokens::Bearer;
use crate::types::{MachineId, checked_name, checked_text};

/// `{"ok": true}` for calls of which only the status is read.
fn done(status: u16) -> Answer {
    Ok(Response::json(status, &json!({ "ok": true })))
}

/// A text that must be there, of one to `max` characters.
fn name<'a>(field: &str, value: Option<&'a str>, max: usize) -> Result<&'a str, ApiError> {
    let text = value.ok_or_else(|| ApiError::malformed(format!("{field} is needed")))?;
    checked_name(field, text, max).map_err(ApiError::malformed)
}

/// A text that may be absent.
fn text<'a>(field: &str, value: Option<&'a str>, max: usize) -> Result<Option<&'a str>, ApiError> {
    value.map(|text| checked_text(field, text, max)).transpose().map_err(ApiError::malformed)
}

/// A wrapped key or another small secret that must be there: canonical base64.
fn key<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, ApiError> {
    let text = name(field, value, KEY_CHARS_MAX)?;
    match STANDARD.decode(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(ApiError::malformed(format!("{field} must be canonical base64"))),
    }
}

/// The machine that the first segment names.
fn machine(request: &Request) -> Result<MachineId, ApiError> {
    MachineId::parse(request.param(0)).map_err(ApiError::malformed)
}

fn on<'a>(request: &Request, who: &'a Bearer, machine: &'a MachineId) -> OnMachine<'a> {
    OnMachine { user: (who.user_id, &who.email), machine, peer: request.peer() }
}
