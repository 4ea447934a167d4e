//! Why a request is refused, or did not arrive.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use crate::util::limits::RETRY_AFTER_S;
use crate::util::log;

/// A refusal: status, machine word and a sentence that a person can act on.
///
/// It is the one error of HTTP here: of the gate itself, of admission, of handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// RFC 9110 status code.
    pub status: u16,
    /// The `code` of the JSON body.
    pub code: &'static str,
    /// The `error` of the JSON body; its beginning stands in the status line too.
    pub sentence: String,
    /// Fields that belong to the status, such as `Allow` or `Retry-After`.
    pub fields: Vec<(&'static str, String)>,
    /// What the log says beside the code, such as why a bearer token is refused.
    pub reason: Option<&'static str>,
}

impl Error {
    /// An error of any status.
    pub fn new(status: u16, code: &'static str, sentence: impl Into<String>) -> Error {
        Error { status, code, sentence: sentence.into(), fields: Vec::new(), reason: None }
    }

    /// With one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Error {
        self.fields.push((name, value.into()));
        self
    }

    /// 400: the request itself is wrong.
    pub fn malformed(sentence: impl Into<String>) -> Error {
        Error::new(400, "bad_request", sentence)
    }

    /// 413 with the limit in bytes and what moves it.
    pub fn too_large(limit: u64, moved_by: &str) -> Error {
        let sentence = format!("the body is larger than the limit of {limit} bytes{moved_by}");
        Error::new(413, "too_large", sentence)
    }

    /// 415: the body is of a type that the route does not take.
    pub fn unsupported(sentence: &str) -> Error {
        Error::new(415, "unsupported_media_type", sentence)
    }

    /// 503: try again.
    pub fn overloaded(sentence: &str) -> Error {
        Error::new(503, "overloaded", sentence).with("Retry-After", RETRY_AFTER_S.to_string())
    }

    /// 500 that shows nothing of the inside.
    pub fn internal() -> Error {
        Error::new(500, "internal", "the server failed; its log says why")
    }

    /// The same, with the cause in the log.
    pub fn caused_by(cause: impl Display) -> Error {
        log::error(&cause.to_string());
        Error::internal()
    }

    /// 408, or [`CLIENT_LEFT`]: why this phase of a request did not arrive, which the flag bounds.
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

    /// The same while a body is received.
    pub fn of_body(cause: io::Error) -> Error {
        Error::not_received(&cause, "request body", "--body-grace")
    }
}

/// The status, as nginx logs it, of a request whose client left before its response: nobody reads
/// one.
pub const CLIENT_LEFT: u16 = 499;
