//! Responses as handlers build them. A body may have any length: above 64 KiB it waits for its
//! reader in an unlinked file, not in memory.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::{App, HandlerResult};
use crate::gate::response::Attachment;
use crate::store::{self, RowSink, StoreError, User};
use crate::util::limits::{RESPONSE_FILE_BYTES_PER_USER_MAX, RESPONSE_MEMORY_BYTES_MAX};
use crate::util::sync::{Pool, PoolGuard, Share, lock};

pub use crate::gate::response::Response;

impl Response {
    /// A JSON response from a value or from JSON text.
    pub fn json(status: u16, body: impl Display) -> Response {
        Response::text(status, "application/json", body.to_string())
    }

    /// `{"member": ROW}`, where the row is JSON.
    pub fn row(status: u16, member: &str, row: &str) -> Response {
        Response::json(status, format_args!("{{\"{member}\":{row}}}"))
    }

    /// `{"ok": true}`, for calls whose clients read only the status.
    pub fn done(status: u16) -> Response {
        Response::row(status, "ok", "true")
    }

    /// The bytes of a file, unchanged.
    pub fn file(file: File, len: u64) -> Response {
        let attachment = Attachment { file, len, base64: false, offset: 0, _held: None };
        Response { attachment: Some(attachment), ..Response::empty(200) }
            .with("Content-Type", "application/octet-stream")
    }

    /// The non-empty JSON object `row` with one more member: the bytes of a file as base64.
    pub fn row_with_file(row: &str, member: &str, file: File, len: u64) -> Response {
        let open = format!("{},\"{member}\":\"", row.strip_suffix('}').unwrap_or(row));
        let attachment = Attachment { file, len, base64: true, offset: open.len(), _held: None };
        Response { attachment: Some(attachment), ..Response::json(200, open + "\"}") }
    }

    /// Moves a body to a file if it is too long to wait in memory.
    pub fn into_file_if_long(self, app: &App, user_id: Option<i64>) -> HandlerResult {
        if self.attachment.is_some() || self.body.len() <= RESPONSE_MEMORY_BYTES_MAX {
            return Ok(self);
        }
        let mut out = BodyWriter::new(app, user_id);
        out.push(&self.body)?;
        out.finish(self)
    }
}

impl App {
    /// `{"member": [ROW, …]}`: `list` passes the rows, each a JSON object, one by one.
    pub fn rows(
        &self, user: &User, member: &str, list: impl FnOnce(RowSink<'_>) -> store::Result<()>,
    ) -> HandlerResult {
        self.rows_and(user, member, list, "")
    }

    /// Like `rows`, with more members as JSON text that begins with a comma.
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

/// The only place for a long response in memory, for when the disk refuses one.
static MEMORY: LazyLock<Arc<Pool<()>>> = LazyLock::new(|| Pool::new([None]));

/// A body that is being written.
struct BodyWriter<'a> {
    app: &'a App,
    /// Bytes that are not in the file: all of a short body, or the newest piece of a long one.
    buffer: Vec<u8>,
    file: Option<File>,
    /// Number of bytes in the file.
    len: u64,
    /// This body's share of the bytes that the user's responses may occupy in files.
    room: Share,
    /// Set if the file is in memory.
    in_memory: Option<PoolGuard<()>>,
}

impl<'a> BodyWriter<'a> {
    /// Starts the body of a response to this user, or to an unauthenticated client.
    fn new(app: &'a App, user_id: Option<i64>) -> BodyWriter<'a> {
        let room = Share::of(lock(&app.response_bytes).entry(user_id).or_default());
        BodyWriter { app, room, buffer: Vec::new(), file: None, len: 0, in_memory: None }
    }

    /// Returns the response with this body: in memory if it is short, else in its file.
    fn finish(mut self, response: Response) -> HandlerResult {
        if self.file.is_some() && !self.buffer.is_empty() {
            self.flush()?;
        }
        let (body, len, held) = (self.buffer, self.len, Box::new((self.room, self.in_memory)));
        let whole = |file| Attachment { file, len, base64: false, offset: 0, _held: Some(held) };
        let attachment = self.file.map(whole);
        Ok(Response { body, attachment, ..response })
    }

    fn push(&mut self, bytes: &[u8]) -> store::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > RESPONSE_MEMORY_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Moves the buffer to the file, and both to memory if the disk refuses it.
    fn flush(&mut self) -> store::Result<()> {
        let bytes = self.buffer.len() as u64;
        let busy = |why| StoreError::new(store::ErrorKind::Busy, why);
        if self.room.grow(bytes, RESPONSE_FILE_BYTES_PER_USER_MAX).is_err() {
            let many =
                "too many long responses of yours wait to be read; read them, then try again";
            return Err(busy(many));
        }
        // The space that pushes may not take is not for responses either.
        let (store, policy) = (&self.app.store, self.app.settings.policy);
        let has_room = self.in_memory.is_some() || policy.check_free(store.free_bytes()?).is_ok();
        if has_room && self.file.is_none() {
            self.file = store.response_file().ok();
        }
        let to_disk =
            has_room && self.file.as_mut().is_some_and(|file| file.write_all(&self.buffer).is_ok());
        if !to_disk && self.move_to_memory().is_err() {
            let full = "the disk is short, and the place for one long response is taken; try again";
            return Err(busy(full));
        }
        self.len = self.len.saturating_add(bytes);
        self.buffer.clear();
        Ok(())
    }

    /// Writes the file's content and then the buffer to a file in memory.
    fn move_to_memory(&mut self) -> io::Result<()> {
        let place = MEMORY.take(Duration::ZERO).ok_or(ErrorKind::WouldBlock)?;
        let mut memory = File::from(memfd_create("response", MemfdFlags::CLOEXEC)?);
        if let Some(mut file) = self.file.take() {
            file.rewind()?;
            io::copy(&mut io::Read::take(file, self.len), &mut memory)?;
        }
        memory.write_all(&self.buffer)?;
        (self.file, self.in_memory) = (Some(memory), Some(place));
        Ok(())
    }
}
