//! Response bodies of any length: above 64 KiB they wait in an unlinked file for their reader, not
//! in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{App, Error};
use crate::gate::response::{Attachment, Content};
use crate::store::{self, RowSink, StoreError};
use crate::util::limits::{
    PIECE_BYTES, RESPONSE_FILE_BYTES_PER_USER_MAX, RESPONSE_MEMORY_BYTES_MAX,
};
use crate::util::sync::lock;

/// What long responses take until they are read.
#[derive(Default)]
pub struct ResponseSpace {
    /// Bytes in files, by user.
    in_files: Mutex<HashMap<i64, u64>>,
    /// The one place in memory, for a response that the disk refused.
    in_memory: AtomicBool,
}

/// The room of one response; given back when this goes.
struct Room {
    space: Arc<ResponseSpace>,
    user_id: i64,
    bytes: u64,
    in_memory: bool,
}

impl Room {
    /// True if there was room for so many bytes more in the files of this user.
    fn grow(&mut self, bytes: u64) -> bool {
        let mut in_files = lock(&self.space.in_files);
        let of_user = in_files.entry(self.user_id).or_default();
        let fits = of_user.saturating_add(bytes) <= RESPONSE_FILE_BYTES_PER_USER_MAX;
        if fits {
            *of_user = of_user.saturating_add(bytes);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        fits
    }

    /// True if the place in memory is this one's now.
    fn move_to_memory(&mut self) -> bool {
        self.in_memory |= !self.space.in_memory.swap(true, Ordering::SeqCst);
        self.in_memory
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut in_files = lock(&self.space.in_files);
        let left = in_files.get(&self.user_id).map_or(0, |all| all.saturating_sub(self.bytes));
        match left {
            0 => in_files.remove(&self.user_id),
            left => in_files.insert(self.user_id, left),
        };
        if self.in_memory {
            self.space.in_memory.store(false, Ordering::SeqCst);
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
    /// There was no room: the sentence of the refusal.
    refused: Option<&'static str>,
}

impl<'a> BodyWriter<'a> {
    /// Writes the body of a response to this user: what `list` hands over. Returns what stays in
    /// memory, and the file that the rest is in.
    pub fn write(
        app: &'a App, user_id: i64, list: impl FnOnce(RowSink<'_>) -> store::Result<()>,
    ) -> Result<(Vec<u8>, Option<Attachment>), Error> {
        let space = Arc::clone(&app.responses);
        let room = Room { space, user_id, bytes: 0, in_memory: false };
        let (memory, file, len, refused) = (Vec::new(), None, 0, None);
        let mut body = BodyWriter { app, room, memory, file, len, refused };
        let mut done = list(&mut |text| body.push(text.as_bytes()));
        if done.is_ok() && body.file.is_some() {
            done = body.flush();
        }
        match (done, body.refused) {
            (Ok(()), _) => Ok(body.finish()),
            (Err(_), Some(sentence)) => Err(Error::overloaded(sentence)),
            (Err(error), None) => Err(error.into()),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> store::Result<()> {
        self.memory.extend_from_slice(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        let bound = if self.file.is_some() { PIECE_BYTES } else { RESPONSE_MEMORY_BYTES_MAX };
        if self.memory.len() > bound && !self.room.in_memory { self.flush() } else { Ok(()) }
    }

    /// Moves what is in memory to the file, or all back to memory where the disk refuses it.
    fn flush(&mut self) -> store::Result<()> {
        if self.room.in_memory {
            return Ok(());
        }
        if !self.room.grow(self.memory.len() as u64) {
            let many =
                "too many long responses of yours wait to be read; read them, then try again";
            self.refused = Some(many);
            return Err(StoreError::busy());
        }
        let written = match &mut self.file {
            Some(file) => Ok(file),
            none => self.app.store.response_file().map(|file| none.insert(file)),
        };
        let written = written.map(|file| file.write_all(&self.memory));
        if let Ok(Ok(())) = written {
            self.memory.clear();
            return Ok(());
        }
        self.refused =
            Some("the disk is full, and so is the place for one long response; try again");
        let moved = self.room.move_to_memory() && self.read_back().is_ok();
        if moved { Ok(()) } else { Err(StoreError::busy()) }
    }

    /// Puts what the file has before what is in memory.
    fn read_back(&mut self) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let in_file = self.len.saturating_sub(self.memory.len() as u64);
        let mut all = Vec::new();
        file.rewind()?;
        file.take(in_file).read_to_end(&mut all)?;
        all.append(&mut self.memory);
        self.memory = all;
        Ok(())
    }

    fn finish(self) -> (Vec<u8>, Option<Attachment>) {
        let (memory, content) = match self.file {
            None if !self.room.in_memory => return (self.memory, None),
            None => (Vec::new(), Content::Memory(self.memory)),
            Some(file) => (self.memory, Content::File(file)),
        };
        let held: Option<Box<dyn Send>> = Some(Box::new(self.room));
        (memory, Some(Attachment { content, len: self.len, base64: false, offset: 0, held }))
    }
}
