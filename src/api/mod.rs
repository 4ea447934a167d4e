//! The six endpoints of the self-hosting API, and health: one file each.

pub mod health;
pub mod history;
pub mod login;
pub mod machines;
pub mod snapshots;

use crate::http::{ApiError, Response};
use crate::limits::SHORT_CHARS_MAX;
use crate::types::checked_text;

/// What a handler makes of a request.
pub type Answer = Result<Response, ApiError>;

/// A value that must be there.
fn needed<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, ApiError> {
    value.ok_or_else(|| ApiError::malformed(format!("{field} is needed")))
}

/// An optional text of the short kind.
fn short<'a>(field: &str, value: Option<&'a str>) -> Result<Option<&'a str>, ApiError> {
    let checked = value.map(|text| checked_text(field, text, SHORT_CHARS_MAX)).transpose();
    checked.map_err(ApiError::malformed)
}
