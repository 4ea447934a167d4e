//! Response bodies of any length: above 64 KiB they wait in an unlinked file for their reader, not
//! in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use super::{App, Error};
use crate::gate::response::{Attachment, Content};
use crate::store::{self, ErrorKind, RowSink, StoreError};
use crate::util::limits::{
    PIECE_BYTES, RESPONSE_FILE_BYTES_PER_USER_MAX, RESPONSE_MEMORY_BYTES_MAX,
};
use crate::util::sync::lock;

/// Bytes of responses that wait in files, by user; and whether the one place in memory for a
/// response that the disk refused is taken.
#[derive(Default)]
pub struct ResponseSpace {
    in_files: Mutex<HashMap<i64, u64>>,
    in_memory: Mutex<bool>,
}

/// The room of one response; given back when this goes.
struct Room {
    space: Arc<ResponseSpace>,
    user_id: i64,
    bytes: u64,
    in_memory: bool,
}

impl Room {
    fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        let mut in_files = lock(&self.space.in_files);
        let of_user = in_files.entry(self.user_id).or_default();
        let grown = of_user.saturating_add(bytes);
        if grown > RESPONSE_FILE_BYTES_PER_USER_MAX {
            return Err(Error::overloaded(
                "too many long responses of yours wait to be read; read them, then try again",
            ));
        }
        *of_user = grown;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut in_files = lock(&self.space.in_files);
        let of_user = in_files.get(&self.user_id).copied().unwrap_or(0);
        match of_user.saturating_sub(self.bytes) {
            0 => in_files.remove(&self.user_id),
            left => in_files.insert(self.user_id, left),
        };
        if self.in_memory {
            *lock(&self.space.in_memory) = false;
        }
    }
}

/// A body while it is written.
pub struct BodyWriter<'a> {
    app: &'a App,
    room: Room,
    /// What is not in the file: all of a short body, else its newest piece.
    memory: Vec<u8>,
    file: Option<File>,
    len: u64,
    /// Why the sink of a list failed, where that was not the store.
    failed: Option<Error>,
}

impl<'a> BodyWriter<'a> {
    /// An empty body of a response to this user.
    pub fn new(app: &'a App, user_id: i64) -> BodyWriter<'a> {
        let space = Arc::clone(&app.responses);
        let room = Room { space, user_id, bytes: 0, in_memory: false };
        BodyWriter { app, room, memory: Vec::new(), file: None, len: 0, failed: None }
    }

    /// The same for a body that the disk refused; one at a time is held in memory.
    fn in_memory(app: &'a App, user_id: i64) -> Result<BodyWriter<'a>, Error> {
        let mut body = BodyWriter::new(app, user_id);
        let mut taken = lock(&app.responses.in_memory);
        if *taken {
            let busy = "the disk is full and another long response waits in memory; try again";
            return Err(Error::overloaded(busy));
        }
        *taken = true;
        body.room.in_memory = true;
        drop(taken);
        Ok(body)
    }

    /// Writes what `list` hands over, again in memory if the disk refuses it.
    pub fn fill(
        app: &'a App, user_id: i64, list: impl Fn(RowSink<'_>) -> store::Result<()>,
    ) -> Result<BodyWriter<'a>, Error> {
        let mut body = BodyWriter::new(app, user_id);
        match body.take(&list) {
            Err(error) if error.kind == ErrorKind::DiskFull => {}
            done => return body.finished(done),
        }
        drop(body);
        let mut body = BodyWriter::in_memory(app, user_id)?;
        let done = body.take(&list);
        body.finished(done)
    }

    fn take(&mut self, list: impl Fn(RowSink<'_>) -> store::Result<()>) -> store::Result<()> {
        list(&mut |text| self.push(text.as_bytes()))
    }

    fn finished(self, done: store::Result<()>) -> Result<BodyWriter<'a>, Error> {
        match (done, self.failed) {
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => Err(error.into()),
            (Ok(()), _) => Ok(BodyWriter { failed: None, ..self }),
        }
    }

    /// Appends bytes.
    fn push(&mut self, bytes: &[u8]) -> store::Result<()> {
        self.memory.extend_from_slice(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        let bound = if self.file.is_some() { PIECE_BYTES } else { RESPONSE_MEMORY_BYTES_MAX };
        if self.memory.len() > bound && !self.room.in_memory { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> store::Result<()> {
        if let Err(error) = self.room.grow(self.memory.len() as u64) {
            self.failed = Some(error);
            return Err(StoreError::busy());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.app.store.response_file()?),
        };
        let written = file.write_all(&self.memory);
        self.memory.clear();
        written.map_err(|error| StoreError::io("write", "a response in tmp/".as_ref(), error))
    }

    /// The body, and the file it is in if it is long.
    pub fn finish(mut self) -> Result<(Vec<u8>, Option<Attachment>), Error> {
        if self.file.is_none() && !self.room.in_memory {
            return Ok((self.memory, None));
        }
        let content = if self.room.in_memory {
            Content::Memory(std::mem::take(&mut self.memory))
        } else {
            self.flush()?;
            Content::File(self.file.take().ok_or_else(Error::internal)?)
        };
        let held: Option<Box<dyn Send>> = Some(Box::new(self.room));
        Ok((
            Vec::new(),
            Some(Attachment { content, len: self.len, base64: false, offset: 0, held }),
        ))
    }
}
