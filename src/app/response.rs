//! A response as handlers make it.

use std::fmt::Display;
use std::fs::File;

use super::spooled::BodyWriter;
use super::{App, HandlerResult};
use crate::gate::response::Attachment;
use crate::store::{self, RowSink, User};

pub use crate::gate::response::Response;

impl Response {
    /// A response of JSON: a value, or what is JSON text already.
    pub fn json(status: u16, body: impl Display) -> Response {
        Response::text(status, "application/json", body.to_string())
    }

    /// `{"member": ROW}`, the row being JSON.
    pub fn row(status: u16, member: &str, row: &str) -> Response {
        Response::json(status, format_args!("{{\"{member}\":{row}}}"))
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
        Response { attachment, ..Response::json(200, open + "\"}") }
    }

    /// A body that is too long to wait in memory goes to a file.
    pub fn spool(self, app: &App, user_id: Option<i64>) -> HandlerResult {
        if self.attachment.is_some() {
            return Ok(self);
        }
        let mut out = BodyWriter::new(app, user_id);
        out.push(&self.body)?;
        out.finish(self)
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
        let mut out = BodyWriter::new(self, Some(user.id));
        out.push(format!("{{\"{member}\":[").as_bytes())?;
        let mut separator = "";
        list(&mut |row| {
            out.push(std::mem::replace(&mut separator, ",").as_bytes())?;
            out.push(row.as_bytes())
        })?;
        out.push(format!("]{more}}}").as_bytes())?;
        out.finish(Response::json(200, ""))
    }
}

impl Attachment {
    /// All of a file, as base64 or as it is, after so many bytes of the body.
    pub fn of(file: File, len: u64, base64: bool, offset: usize) -> Attachment {
        Attachment { file, len, base64, offset, _held: None }
    }
}
