//! A response on its way to the client, from the application or from the gate itself, and the only
//! code that writes its head.

use std::fs::File;
use std::time::SystemTime;

use super::error::Error;
use crate::util::limits::SENTENCE_BYTES_MAX;
use crate::util::types::RandomId;

/// A response whose body is partly in memory and partly in a file. `app::response` adds what
/// handlers need to make one.
#[derive(Default)]
pub struct Response {
    /// RFC 9110 status code.
    pub status: u16,
    /// Why the request is refused: the sentence follows the standard phrase in the status line, and
    /// the log gets the rest.
    pub refusal: Option<Error>,
    /// Header fields besides those that every response has.
    pub fields: Vec<(String, String)>,
    /// The part of the body that is in memory.
    pub body: Vec<u8>,
    /// Length of `body` as the application declared it: after HEAD, `body` itself is empty.
    pub declared: Option<u64>,
    /// The file that is part of the body.
    pub attachment: Option<Attachment>,
}

/// A file that is part of a body.
pub struct Attachment {
    /// Open for reading.
    pub file: File,
    /// Number of its bytes to send.
    pub len: u64,
    /// Whether to send it as base64.
    pub base64: bool,
    /// Number of bytes of the body in memory that precede it.
    pub offset: usize,
    /// A guard to hold until it is sent, such as its share of the user's bytes in files.
    pub _held: Option<Box<dyn Send>>,
}

impl Response {
    /// A response without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, ..Response::default() }
    }

    /// A text response.
    pub fn text(status: u16, content_type: &str, text: impl Into<String>) -> Response {
        let body = text.into().into_bytes();
        Response { body, ..Response::empty(status) }.with("Content-Type", content_type)
    }

    /// Adds a header field.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Response {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Returns the head as sent, with the fields that every response has. `phrase` is the standard
    /// phrase of the status.
    ///
    /// Apart from `100 Continue`, only this writes a head to a client, and it writes only printable
    /// ASCII: no value can begin a second line.
    pub fn head(&self, id: RandomId, phrase: &str, close: bool) -> String {
        let mut head = format!("HTTP/1.1 {} {phrase}", self.status);
        if let Some(Error { sentence, .. }) = &self.refusal {
            head.push_str(": ");
            head.extend(printable(sentence).take(SENTENCE_BYTES_MAX));
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut field = |name: &str, value: &str| {
            head.push_str("\r\n");
            head.extend(printable(name).chain(": ".chars()).chain(printable(value)));
        };
        field("Date", &date);
        // RFC 9110, section 8.6: forbidden with 204, optional with 304.
        if !matches!(self.status, 204 | 304) {
            let of_file = self.attachment.as_ref().map_or(0, |file| {
                if file.base64 { file.len.div_ceil(3).saturating_mul(4) } else { file.len }
            });
            let length = self.declared.unwrap_or(self.body.len() as u64).saturating_add(of_file);
            field("Content-Length", &length.to_string());
        }
        self.fields.iter().for_each(|(name, value)| field(name, value));
        field("Cache-Control", "no-store");
        field("X-Content-Type-Options", "nosniff");
        field("X-Request-Id", &id.to_string());
        if close {
            field("Connection", "close");
        }
        head.push_str("\r\n\r\n");
        head
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Response {
        let body = serde_json::json!({ "error": error.sentence, "code": error.code });
        let response = Response::text(error.status, "application/json", body.to_string());
        let response = error.fields.iter().fold(response, |r, (name, value)| r.with(name, value));
        Response { refusal: Some(error), ..response }
    }
}

/// Replaces every character that must not appear in a head.
pub fn printable(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_begins_a_second_line() {
        let response = Response {
            refusal: Some(Error::malformed("a\r\nX-Evil: 1\r\n\r\nb")),
            ..Response::empty(404).with("X-Name", "é\nX-Evil: 2\r")
        };
        let head = response.head(RandomId(0), "Not Found", true);
        let lines: Vec<_> = head.split("\r\n").collect();
        assert_eq!(lines[0], "HTTP/1.1 404 Not Found: a??X-Evil: 1????b");
        assert!(lines.contains(&"X-Name: ??X-Evil: 2?"), "{head}");
        assert!(head.chars().all(|c| matches!(c, ' '..='~' | '\r' | '\n')));
        assert!(!lines.iter().any(|line| line.starts_with("X-Evil") || line.contains('\n')));
    }
}
