//! Why a request is refused or did not arrive.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use crate::util::limits::RETRY_AFTER_S;
use crate::util::log;

/// A refusal: a status, a machine-readable code and a sentence that a person can act on.
///
/// This is the only HTTP error type: the gate, admission and handlers all return it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// RFC 9110 status code.
    pub status: u16,
    /// The `code` of the JSON body.
    pub code: &'static str,
    /// The `error` of the JSON body; the status line carries its beginning too.
    pub sentence: String,
    /// Header fields that belong to the status, such as `Allow` or `Retry-After`.
    pub fields: Vec<(&'static str, String)>,
    /// What the log records besides the code, such as why a bearer token is refused.
    pub reason: Option<&'static str>,
}

impl Error {
    /// An error of any status.
    pub fn new(status: u16, code: &'static str, sentence: impl Into<String>) -> Error {
        Error { status, code, sentence: sentence.into(), fields: Vec::new(), reason: None }
    }

    /// Adds a header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Error {
        self.fields.push((name, value.into()));
        self
    }

    /// 400: the request itself is wrong.
    pub fn malformed(sentence: impl Into<String>) -> Error {
        Error::new(400, "bad_request", sentence)
    }

    /// 413 with the limit in bytes and what sets it.
    pub fn too_large(limit: u64, moved_by: &str) -> Error {
        let sentence = format!("the body is larger than the limit of {limit} bytes{moved_by}");
        Error::new(413, "too_large", sentence)
    }

    /// 415: the route does not accept a body of this type.
    pub fn unsupported(sentence: &str) -> Error {
        Error::new(415, "unsupported_media_type", sentence)
    }

    /// 503: the client should try again.
    pub fn overloaded(sentence: &str) -> Error {
        Error::new(503, "overloaded", sentence).with("Retry-After", RETRY_AFTER_S.to_string())
    }

    /// 500 that reveals no internals.
    pub fn internal() -> Error {
        Error::new(500, "internal", "the server failed; its log says why")
    }

    /// Like [`Error::internal`], with the cause in the log.
    pub fn caused_by(cause: impl Display) -> Error {
        log::error(&cause.to_string());
        Error::internal()
    }

    /// 408 or [`CLIENT_LEFT`]: why this phase of a request did not arrive; `flag` names its limit.
    /// What follows on the connection cannot be told from a second request.
    pub fn not_received(cause: &io::Error, phase: &str, flag: &str) -> Error {
        match cause.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                let slow =
                    format!("the {phase} came too slowly; {flag} on the server is its limit");
                Error::new(408, "too_slow", slow)
            }
            _ => Error::new(CLIENT_LEFT, "client_left", ""),
        }
    }

    /// The same for a request body.
    pub fn of_body(cause: io::Error) -> Error {
        Error::not_received(&cause, "request body", "--body-grace")
    }
}

/// The status of a request whose client left before its response, as nginx logs it. It is never
/// sent.
pub const CLIENT_LEFT: u16 = 499;
