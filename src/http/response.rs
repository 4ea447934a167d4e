//! An answer: status, fields, and a body made of pieces that are sent without being held in
//! memory.

use std::fs::File;

use base64::Engine as _;
use serde::Serialize;

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
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        Response::bytes(status, "application/json", bytes)
    }

    /// An answer of bytes.
    pub fn bytes(status: u16, content_type: &'static str, bytes: Vec<u8>) -> Response {
        Response { pieces: vec![Piece::Bytes(bytes)], ..Response::empty(status) }
            .with("Content-Type", content_type)
    }

    /// An answer of a file's bytes as they are.
    pub fn file(file: File, len: u64) -> Response {
        Response { pieces: vec![Piece::File { file, len }], ..Response::empty(200) }
            .with("Content-Type", "application/octet-stream")
    }

    /// The JSON object `fields` with one more member: the file's bytes as base64.
    pub fn json_with_file(fields: &impl Serialize, member: &str, file: File, len: u64) -> Response {
        let (open, close) = json_around(fields, member);
        let pieces =
            vec![Piece::Bytes(open), Piece::Base64OfFile { file, len }, Piece::Bytes(close)];
        Response { pieces, ..Response::empty(200) }.with("Content-Type", "application/json")
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

    /// The length of the body in bytes.
    pub fn content_length(&self) -> u64 {
        let sum = || self.pieces.iter().map(Piece::wire_len).fold(0, u64::saturating_add);
        self.declared.unwrap_or_else(sum)
    }
}

/// The length of the body of [`Response::json_with_file`].
pub fn json_with_file_len(fields: &impl Serialize, member: &str, len: u64) -> u64 {
    let (open, close) = json_around(fields, member);
    (open.len() as u64 + close.len() as u64).saturating_add(base64_len(len))
}

/// What stands before and after the text of one more member of the non-empty object `fields`.
fn json_around(fields: &impl Serialize, member: &str) -> (Vec<u8>, Vec<u8>) {
    let mut open = serde_json::to_vec(fields).unwrap_or_default();
    // Its closing brace makes room.
    open.pop();
    open.extend_from_slice(format!(",\"{member}\":\"").as_bytes());
    (open, b"\"}".to_vec())
}

fn base64_len(len: u64) -> u64 {
    len.div_ceil(3).saturating_mul(4)
}

/// Standard base64 as JSON bodies carry it.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
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
            let text = base64(&vec![0; usize::try_from(len).unwrap()]);
            assert_eq!(Piece::Base64OfFile { file, len }.wire_len(), text.len() as u64);
        }
    }
}
