//! The one error of HTTP handlers, its JSON, and the one mapping from store errors to statuses.

use crate::limits::RETRY_AFTER_S;
use crate::log;
use crate::store::StoreError;

use super::response::Response;

/// A refusal: status, machine word and a sentence a person can act on.
#[derive(Debug)]
pub struct ApiError {
    status: u16,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl ApiError {
    /// An error of any status.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), headers: Vec::new() }
    }

    /// With one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> ApiError {
        self.headers.push((name, value.into()));
        self
    }

    /// 400: the request itself is wrong.
    pub fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "bad_request", message)
    }

    /// 401: no credentials, or none that count (RFC 6750, section 3).
    pub fn unauthorized() -> ApiError {
        ApiError::new(
            401,
            "unauthorized",
            "sign in first: send `Authorization: Bearer` with an API token or a JWT that is \
             neither expired nor revoked",
        )
        .with("WWW-Authenticate", "Bearer")
    }

    /// 404 for a path that is no route.
    pub fn no_route() -> ApiError {
        ApiError::new(404, "not_found", "there is nothing at this path")
    }

    /// 413 with the limit in bytes and what moves it.
    pub fn too_large(limit: u64, moved_by: &str) -> ApiError {
        let message = format!("the body is larger than the limit of {limit} bytes{moved_by}");
        ApiError::new(413, "too_large", message)
    }

    /// 503: try again.
    pub fn overloaded(message: &str) -> ApiError {
        ApiError::new(503, "overloaded", message).with("Retry-After", RETRY_AFTER_S.to_string())
    }

    /// 507: the disk is full, or nearly.
    pub fn disk_full() -> ApiError {
        ApiError::new(
            507,
            "disk_full",
            "the server is short of disk space: free some, or lower --min-free, and push again",
        )
    }

    /// 500 that shows nothing of the inside.
    pub fn internal() -> ApiError {
        ApiError::new(500, "internal", "the server failed; its log says why")
    }
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Response {
        let body = serde_json::json!({ "error": error.message, "code": error.code });
        let response = Response::json(error.status, &body);
        error.headers.into_iter().fold(response, |r, (name, value)| r.with(name, value))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Missing("snapshot") => {
                ApiError::new(404, "no_snapshot", "there is no such snapshot; push one first")
            }
            StoreError::Missing(what) => {
                ApiError::new(404, "not_found", format!("there is no such {what}"))
            }
            StoreError::Exists(what) => {
                ApiError::new(409, "conflict", format!("a {what} of this name already exists"))
            }
            StoreError::KeyExists(what) => ApiError::new(
                409,
                "key_exists",
                format!("another {what} already exists and stays: what it encrypted needs it"),
            ),
            StoreError::MachineNotRegistered => ApiError::new(
                404,
                "machine_not_registered",
                "this machine is not registered: register it with POST /api/machines first",
            ),
            StoreError::TooMany(what) => ApiError::new(
                409,
                "too_many",
                format!("there are as many {what} as this server keeps"),
            ),
            StoreError::PreconditionFailed => ApiError::new(
                412,
                "precondition_failed",
                "the newest snapshot is not the one the condition names: pull, then push again",
            ),
            StoreError::OverQuota { used, allowed } => ApiError::new(
                507,
                "quota_exceeded",
                format!(
                    "this push does not fit: {used} of {allowed} bytes are used; ask the \
                     operator to prune old snapshots or to raise the quota"
                ),
            ),
            StoreError::DiskFull => ApiError::disk_full(),
            StoreError::Busy => ApiError::overloaded("the database is busy; try again"),
            StoreError::Damaged { what, reason } => {
                log::error(&format!("{what} is damaged: {reason}"));
                ApiError::new(
                    500,
                    "snapshot_damaged",
                    format!(
                        "{what} is damaged on the server and is not served; pull another one, \
                         and tell the operator to run `configsync-server check`"
                    ),
                )
            }
            other => {
                log::error(&other.to_string());
                ApiError::internal()
            }
        }
    }
}

impl From<getrandom::Error> for ApiError {
    fn from(error: getrandom::Error) -> ApiError {
        StoreError::from(error).into()
    }
}
