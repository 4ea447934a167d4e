//! An answer: status, fields, and a body made of pieces that are sent without being held in
//! memory.

use std::fs::File;

use serde::Serialize;

use super::HandlerResult;
use crate::store::{self, RowSink};
use crate::util::time::{http_date, now_ms};
use crate::util::types::RandomId;

/// A part of an answer's body.
#[derive(Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The first `len` bytes of a file, as they are.
    File {
        /// Open for reading.
        file: File,
        /// Bytes to send.
        len: u64,
    },
    /// The first `len` bytes of a file, as base64.
    Base64OfFile {
        /// Open for reading.
        file: File,
        /// Bytes to encode.
        len: u64,
    },
}

impl Piece {
    /// Bytes that this piece puts on the wire.
    pub fn wire_len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File { len, .. } => *len,
            Piece::Base64OfFile { len, .. } => base64_len(*len),
        }
    }
}

/// An answer on its way out.
#[derive(Debug)]
pub struct Response {
    /// RFC 9110 status code.
    pub status: u16,
    /// Fields beside those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub pieces: Vec<Piece>,
    /// The length to declare where no body is sent (304).
    declared: Option<u64>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), pieces: Vec::new(), declared: None }
    }

    /// 304 in place of an answer whose body would have this length (RFC 9110, section 8.6).
    pub fn not_modified(length: u64) -> Response {
        Response { declared: Some(length), ..Response::empty(304) }
    }

    /// A JSON answer.
    pub fn json(status: u16, body: &impl Serialize) -> Response {
        Response::text(status, serde_json::to_string(body).unwrap_or_default())
    }

    /// An answer of text.
    pub fn plain(status: u16, content_type: &'static str, text: impl Into<String>) -> Response {
        let pieces = vec![Piece::Bytes(text.into().into_bytes())];
        Response { pieces, ..Response::empty(status) }.with("Content-Type", content_type)
    }

    /// An answer of JSON that is text already.
    pub fn text(status: u16, json: impl Into<String>) -> Response {
        Response::plain(status, JSON, json)
    }

    /// `{"member": ROW}`, the row being JSON.
    pub fn row(status: u16, member: &str, row: &str) -> Response {
        Response::text(status, format!("{{\"{member}\":{row}}}"))
    }

    /// `{"member": [ROW, …]}`: `list` hands over the rows, each a JSON object, one by one.
    pub fn rows(
        member: &str, list: impl FnOnce(RowSink<'_>) -> store::Result<()>,
    ) -> HandlerResult {
        Response::rows_and(member, list, "")
    }

    /// The same with more members, as JSON text that begins with a comma.
    pub fn rows_and(
        member: &str, list: impl FnOnce(RowSink<'_>) -> store::Result<()>, more: &str,
    ) -> HandlerResult {
        let mut body = format!("{{\"{member}\":[");
        let mut first = true;
        list(&mut |row| {
            if !std::mem::take(&mut first) {
                body.push(',');
            }
            body.push_str(row);
            Ok(())
        })?;
        Ok(Response::text(200, format!("{body}]{more}}}")))
    }

    /// `{"ok": true}`, for calls of which only the status is read.
    pub fn done(status: u16) -> Response {
        Response::row(status, "ok", "true")
    }

    /// An answer of a file's bytes as they are.
    pub fn file(file: File, len: u64) -> Response {
        Response { pieces: vec![Piece::File { file, len }], ..Response::empty(200) }
            .with("Content-Type", "application/octet-stream")
    }

    /// The JSON object `row` with one more member: the file's bytes as base64.
    pub fn row_with_file(row: &str, member: &str, file: File, len: u64) -> Response {
        let (open, close) = around(row, member);
        let pieces =
            vec![Piece::Bytes(open), Piece::Base64OfFile { file, len }, Piece::Bytes(close)];
        Response { pieces, ..Response::empty(200) }.with("Content-Type", JSON)
    }

    /// With one more field. A value with a control character would split the answer in two: then
    /// the whole answer becomes a plain 500.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        let value = value.into();
        if value.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Response::empty(500);
        }
        self.headers.push((name, value));
        self
    }

    /// The head as it is sent, with the fields that every answer has.
    pub fn head(&self, id: RandomId, close: bool) -> String {
        let (status, reason) = (self.status, reason(self.status));
        let date = http_date(now_ms());
        let mut head = format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n");
        // RFC 9110, section 8.6: never with 204, and with 304 the length that a 200 would have.
        if status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", self.content_length()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        let close = if close { "Connection: close\r\n" } else { "" };
        head.push_str(&format!("X-Request-Id: {id}\r\n{close}\r\n"));
        head
    }

    /// The length of the body in bytes.
    pub fn content_length(&self) -> u64 {
        let sum = || self.pieces.iter().map(Piece::wire_len).fold(0, u64::saturating_add);
        self.declared.unwrap_or_else(sum)
    }
}

/// The length of the body of [`Response::row_with_file`].
pub fn row_with_file_len(row: &str, member: &str, len: u64) -> u64 {
    let (open, close) = around(row, member);
    (open.len() as u64 + close.len() as u64).saturating_add(base64_len(len))
}

/// What stands before and after the text of one more member of the non-empty object `row`.
fn around(row: &str, member: &str) -> (Vec<u8>, Vec<u8>) {
    let open = row.strip_suffix('}').unwrap_or(row);
    (format!("{open},\"{member}\":\"").into_bytes(), b"\"}".to_vec())
}

const JSON: &str = "application/json";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

fn base64_len(len: u64) -> u64 {
    len.div_ceil(3).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_field_with_a_line_break_never_leaves() {
        for bad in ["a\r\nSet-Cookie: x", "a\nb", "\0", "\u{7f}"] {
            let response = Response::empty(200).with("ETag", bad);
            assert_eq!((response.status, response.headers.len()), (500, 0));
        }
    }

    #[test]
    fn the_length_is_known_before_a_byte_is_encoded() {
        for len in [0_u64, 1, 2, 3, 4, 1000] {
            let file = tempfile::tempfile().unwrap();
            let text = STANDARD.encode(vec![0; usize::try_from(len).unwrap()]);
            assert_eq!(Piece::Base64OfFile { file, len }.wire_len(), text.len() as u64);
        }
    }
}
