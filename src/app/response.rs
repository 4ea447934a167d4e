//! A response as handlers make it.

use std::fs::File;

use serde::Serialize;

use super::spooled::BodyWriter;
use super::{App, Error, HandlerResult};
use crate::gate::response::{Attachment, Content};
use crate::store::{self, RowSink, User};

/// Status, fields, and a body of which a file may be a part.
pub struct Response {
    /// RFC 9110 status code.
    pub status: u16,
    /// Fields beside those that every response has.
    pub fields: Vec<(&'static str, String)>,
    /// The body that is in memory.
    pub body: Vec<u8>,
    /// The file in it.
    pub attachment: Option<Attachment>,
    /// The machine word and the sentence of a refusal.
    pub refusal: Option<(&'static str, String)>,
}

impl Response {
    /// A response without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, fields: Vec::new(), body: Vec::new(), attachment: None, refusal: None }
    }

    /// A response of text.
    pub fn plain(status: u16, content_type: &'static str, text: impl Into<String>) -> Response {
        let body = text.into().into_bytes();
        Response { body, ..Response::empty(status) }.with("Content-Type", content_type)
    }

    /// A response of JSON that is text already.
    pub fn text(status: u16, json: impl Into<String>) -> Response {
        Response::plain(status, JSON, json)
    }

    /// A response of a value as JSON.
    pub fn json(status: u16, body: &impl Serialize) -> Response {
        Response::text(status, serde_json::to_string(body).unwrap_or_default())
    }

    /// `{"member": ROW}`, the row being JSON.
    pub fn row(status: u16, member: &str, row: &str) -> Response {
        Response::text(status, format!("{{\"{member}\":{row}}}"))
    }

    /// `{"ok": true}`, for calls of which only the status is read.
    pub fn done(status: u16) -> Response {
        Response::row(status, "ok", "true")
    }

    /// A file's bytes as they are.
    pub fn file(file: File, len: u64) -> Response {
        let attachment = Attachment::of(file, len, false, 0);
        Response { attachment: Some(attachment), ..Response::empty(200) }
            .with("Content-Type", "application/octet-stream")
    }

    /// The non-empty JSON object `row` with one more member: the file's bytes as base64.
    pub fn row_with_file(row: &str, member: &str, file: File, len: u64) -> Response {
        let open = format!("{},\"{member}\":\"", row.strip_suffix('}').unwrap_or(row));
        let attachment = Some(Attachment::of(file, len, true, open.len()));
        Response { attachment, ..Response::text(200, open + "\"}") }
    }

    /// With one more field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.fields.push((name, value.into()));
        self
    }

    /// A body that is too long to wait in memory goes to a file.
    pub fn spool(mut self, app: &App, user_id: i64) -> HandlerResult {
        if self.attachment.is_none() {
            let body = std::mem::take(&mut self.body);
            let text = std::str::from_utf8(&body).map_err(|_| Error::internal())?;
            (self.body, self.attachment) = BodyWriter::write(app, user_id, |rows| rows(text))?;
        }
        Ok(self)
    }
}

impl App {
    /// `{"member": [ROW, …]}`: `list` hands over the rows, each a JSON object, one by one.
    pub fn rows(
        &self, user: &User, member: &str, list: impl FnOnce(RowSink<'_>) -> store::Result<()>,
    ) -> HandlerResult {
        self.rows_and(user, member, list, "")
    }

    /// The same with more members, as JSON text that begins with a comma.
    pub fn rows_and(
        &self, user: &User, member: &str, list: impl FnOnce(RowSink<'_>) -> store::Result<()>,
        more: &str,
    ) -> HandlerResult {
        let (body, attachment) = BodyWriter::write(self, user.id, |out| {
            out(&format!("{{\"{member}\":["))?;
            let mut separator = "";
            list(&mut |row| {
                out(std::mem::replace(&mut separator, ","))?;
                out(row)
            })?;
            out(&format!("]{more}}}"))
        })?;
        Ok(Response { body, attachment, ..Response::text(200, "") })
    }
}

impl Attachment {
    fn of(file: File, len: u64, base64: bool, offset: usize) -> Attachment {
        Attachment { content: Content::File(file), len, base64, offset, held: None }
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Response {
        let body = serde_json::json!({ "error": error.sentence, "code": error.code });
        let mut response = Response::json(error.status, &body);
        response.fields.extend(error.fields);
        response.refusal = Some((error.code, error.sentence));
        response
    }
}

const JSON: &str = "application/json";
