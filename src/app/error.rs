//! The one error of HTTP handlers, its JSON, and the one mapping from store errors to statuses.

use crate::store::{BadBearer, ErrorKind, StoreError};
use crate::util::limits::RETRY_AFTER_S;
use crate::util::log;

use super::response::Response;

/// A refusal: status, machine word and a sentence a person can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    status: u16,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl Error {
    /// An error of any status.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Error {
        Error { status, code, message: message.into(), headers: Vec::new() }
    }

    /// With one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Error {
        self.headers.push((name, value.into()));
        self
    }

    /// 400: the request itself is wrong.
    pub fn malformed(message: impl Into<String>) -> Error {
        Error::new(400, "bad_request", message)
    }

    /// 401: no credentials, or none that count (RFC 6750, section 3).
    pub fn unauthorized() -> Error {
        StoreError::unauthorized(BadBearer::Unknown).into()
    }

    /// 404 for a path that is no route.
    pub fn no_route() -> Error {
        Error::new(404, "not_found", "there is nothing at this path")
    }

    /// 413 with the limit in bytes and what moves it.
    pub fn too_large(limit: u64, moved_by: &str) -> Error {
        let message = format!("the body is larger than the limit of {limit} bytes{moved_by}");
        Error::new(413, "too_large", message)
    }

    /// 503: try again.
    pub fn overloaded(message: &str) -> Error {
        Error::new(503, "overloaded", message).with("Retry-After", RETRY_AFTER_S.to_string())
    }

    /// 500 that shows nothing of the inside.
    pub fn internal() -> Error {
        Error::new(500, "internal", "the server failed; its log says why")
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Response {
        let body = serde_json::json!({ "error": error.message, "code": error.code });
        let response = Response::json(error.status, &body);
        error.headers.into_iter().fold(response, |r, (name, value)| r.with(name, value))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        let (status, code) = match error.kind {
            ErrorKind::NoSnapshot => (404, "no_snapshot"),
            ErrorKind::NotFound => (404, "not_found"),
            ErrorKind::MachineNotRegistered => (404, "machine_not_registered"),
            ErrorKind::Exists => (409, "conflict"),
            ErrorKind::KeyExists => (409, "key_exists"),
            ErrorKind::TooMany => (409, "too_many"),
            ErrorKind::PreconditionFailed => (412, "precondition_failed"),
            ErrorKind::QuotaExceeded => (507, "quota_exceeded"),
            ErrorKind::DiskFull => (507, "disk_full"),
            // Why is for the log; the client is told the same about each.
            ErrorKind::Unauthorized(_) => {
                return Error::new(401, "unauthorized", error.to_string())
                    .with("WWW-Authenticate", "Bearer");
            }
            ErrorKind::Busy => return Error::overloaded(&error.to_string()),
            ErrorKind::Damaged => {
                log::error(&error.to_string());
                (500, "snapshot_damaged")
            }
            // What went wrong inside is the log's alone.
            ErrorKind::Unusable | ErrorKind::Internal => {
                log::error(&error.to_string());
                return Error::internal();
            }
        };
        Error::new(status, code, error.to_string())
    }
}

impl From<getrandom::Error> for Error {
    fn from(error: getrandom::Error) -> Error {
        StoreError::from(error).into()
    }
}
